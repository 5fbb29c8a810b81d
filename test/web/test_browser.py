"""The page in headless Chromium: type a query, see the mask arrive, remove it; processes that come and go meanwhile.

The world stands still, so the picture changes where and when a mask comes or goes, and only then. With
``DECAF_SCREENSHOT=PATH`` in the environment, a picture of the page at work is written there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Point
from harness import BODY_INDEX, EXPRESSION, SCENE, Camera, NodeProcess, Recorder, System, wait_until
from page_process import PageProcess
from sensor_msgs.msg import Image

from decaf_ros.ros.client import DecafClient
from decaf_ros.synthetic.world import Motion

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it is in the extra 'dev'")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")

TOKEN = "a-token-of-the-test"
TIMEOUT_S = 120.0
BROWSER_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MARKUP = '<img src=x onerror="document.title=1"> the blue ball'

SCREENSHOT = os.environ.get("DECAF_SCREENSHOT", "")
STILL = replace(
    SCENE,
    size_hw=(336, 448) if SCREENSHOT else SCENE.size_hw,
    bodies=tuple(replace(body, motion=Motion(body.motion.position_at(0.0))) for body in SCENE.bodies),
)


@pytest.fixture(scope="module")
def system(client: DecafClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    process = NodeProcess("node", tmp_path_factory.mktemp("node") / "decaf_node.log")
    try:
        client.wait_until_ready()
        camera = Camera(client.node)
        with camera.filming(scene=STILL):
            yield System(process, client, camera, Recorder(client, "~/mask", Image))
    finally:
        status = process.stop()
    assert status == 0, process.output()


@pytest.fixture
def page(system: System, tmp_path: Path) -> Iterator[PageProcess]:
    with PageProcess(tmp_path / "decaf_web.log", token=TOKEN) as page:
        yield page


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=list(BROWSER_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: playwright.Browser, page: PageProcess) -> Iterator[playwright.Page]:
    """The page as somebody sees it who typed the token. No error of a script goes unnoticed."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(TIMEOUT_S * 1000)
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.address)
    tab.get_by_label("Token").fill(TOKEN)
    tab.get_by_role("button", name="Open").click()
    tab.locator("#presence[data-presence=online]").wait_for()
    yield tab
    assert not errors
    context.close()


def picture(tab: playwright.Page, view: str = "overlay") -> np.ndarray:
    """``(H, W, 3)`` int16 BGR: what a view shows, without the camera's noise."""
    rgba = tab.locator(f"#{view} canvas").evaluate(
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"
    )
    height, width = STILL.size_hw
    bgr = cv2.cvtColor(np.array(rgba, np.uint8).reshape(height, width, 4), cv2.COLOR_RGBA2BGR)
    return cv2.blur(bgr, (7, 7)).astype(np.int16)


def changed(before: np.ndarray, after: np.ndarray, body_index: int) -> float:
    """The part of a body's pixels, away from its border and the labels, that look different."""
    body = (STILL.render(0.0).instances_hw == body_index + 1).astype(np.uint8)
    inside = cv2.erode(body, np.ones((13, 13), np.uint8)) > 0
    return float((np.abs(after - before).max(axis=2) > 12)[inside].mean())


def find(tab: playwright.Page, expression: str, mode: str = "Replace") -> None:
    """Type a sentence and press Enter."""
    tab.get_by_text(mode, exact=True).click()
    tab.get_by_label("What to look for").fill(expression)
    tab.get_by_label("What to look for").press("Enter")


def poll(tab: playwright.Page, condition: Callable[[], object], what: str) -> None:
    """Wait for something that no locator can tell, while the browser works."""
    wait_until(lambda: condition() or tab.wait_for_timeout(100), what, TIMEOUT_S)


def test_a_query_from_the_box_to_the_mask_and_away(tab: playwright.Page, system: System) -> None:
    assert TOKEN not in tab.url
    assert tab.evaluate("document.cookie") == ""
    system.client.reset()
    tab.locator("#overlay canvas").wait_for()
    tab.locator("#no-queries").wait_for()
    before = picture(tab)
    other = 1 - BODY_INDEX

    find(tab, EXPRESSION)
    tab.locator(".query[data-state=active]", has_text=EXPRESSION).wait_for()
    tab.locator(".object[data-state=visible]").first.wait_for()
    poll(tab, lambda: changed(before, picture(tab), BODY_INDEX) > 0.6, "the mask")
    assert changed(before, picture(tab), other) < 0.1
    tab.locator("#heatmap canvas").wait_for()
    tab.locator("#stages").get_by_text("prefill").wait_for()

    removal = tab.get_by_role("button", name="Stop tracking object")
    while removal.count():
        count = removal.count()
        removal.first.click()
        poll(tab, lambda count=count: removal.count() < count, "an object to go")
    poll(tab, lambda: changed(before, picture(tab), BODY_INDEX) < 0.1, "the mask to go")
    tab.get_by_role("button", name="Remove this query").click()
    tab.locator("#no-queries").wait_for()
    assert system.client.list_queries().queries == []


def test_two_queries_one_of_them_removed(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    find(tab, "the yellow box")
    tab.locator(".query[data-state=active]").wait_for()
    find(tab, EXPRESSION, "Add")
    tab.locator(".query[data-state=active]").nth(1).wait_for()
    tab.locator(".object[data-state=visible]").nth(1).wait_for()
    if SCREENSHOT:
        tab.locator("#heatmap canvas").wait_for()
        tab.get_by_label("What to look for").blur()
        tab.wait_for_timeout(4000)  # until rates have settled
        tab.screenshot(path=SCREENSHOT, full_page=True)
    tab.locator(".query", has_text=EXPRESSION).get_by_role("button", name="Remove this query").click()
    tab.locator(".query", has_text=EXPRESSION).wait_for(state="detached")
    assert [query.expression for query in system.client.list_queries().queries] == ["the yellow box"]
    tab.get_by_role("button", name="Reset").click()
    tab.locator("#no-queries").wait_for()
    assert system.client.list_queries().queries == []


def test_a_query_that_failed_can_be_removed(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    answer = system.client.add_object(on_points=[Point(x=1e6)])
    assert not answer.success
    tab.locator(".query[data-state=failed]", has_text=answer.message).get_by_role("button", name="Remove this query").click()
    tab.locator("#no-queries").wait_for()
    assert system.client.list_queries().queries == []


def test_text_is_never_markup(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    find(tab, MARKUP)
    tab.locator(".query .sentence").wait_for()
    assert tab.locator(".query .sentence").inner_text() == MARKUP
    assert tab.locator("img[src=x]").count() == 0
    assert tab.title() == "decaf"


def test_errors_of_the_node_come_as_they_are(tab: playwright.Page, system: System) -> None:
    find(tab, "   ")
    tab.locator("#notice").wait_for()
    assert tab.locator("#notice").inner_text() == system.client.query("   ").message


def test_images_flow_only_while_the_page_is_open(tab: playwright.Page, system: System) -> None:
    def subscribed() -> list[int]:
        return [system.client.node.count_subscribers(f"/decaf_node/{topic}") for topic in ("overlay", "heatmap")]

    poll(tab, lambda: subscribed() == [1, 1], "the page to subscribe")
    tab.goto("about:blank")
    poll(tab, lambda: subscribed() == [0, 0], "the page to unsubscribe")


def test_the_page_comes_back_after_decaf_web_was_killed(
    tab: playwright.Page, page: PageProcess, system: System, tmp_path: Path
) -> None:
    tab.locator("#overlay canvas").wait_for()
    page.kill()
    tab.locator("#presence[data-presence=connecting]").wait_for()
    system.wait_for_mask("a mask while there is no page", TIMEOUT_S)
    with PageProcess(tmp_path / "restarted.log", port=page.port, token=TOKEN):
        tab.locator("#presence[data-presence=online]").wait_for()
        tab.locator("#overlay canvas").wait_for()
        find(tab, EXPRESSION)
        tab.locator(".query[data-state=active]").wait_for()
