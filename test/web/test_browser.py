"""The page in headless Chromium: type a query, see the mask arrive, remove it; processes that come and go meanwhile.

The table stands still, so the picture changes where and when a mask comes or goes, and only then.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filmed_table import BOX, EXPRESSION, MUG, OTHER_EXPRESSION, STILL
from geometry_msgs.msg import Point
from harness import Camera, NodeProcess, Recorder, System, wait_until
from page_process import PageProcess
from sensor_msgs.msg import Image

from decaf_ros.config import GroundingConfig
from decaf_ros.ros.client import DecafClient

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
NARROW_PX = 280
FINGER_PX = 32
OUT_OF_CARDS = """[...document.querySelectorAll(".card *")]
    .filter((each) => each.getBoundingClientRect().right > each.closest(".card").getBoundingClientRect().right)
    .map((each) => each.outerHTML)"""
NODE_ENDS = ("killed", "interrupted")
NO_NUMBER = "\N{EN DASH}"
MARKUP = '<img src=x onerror="document.title=1"> the red mug'


@pytest.fixture(scope="module")
def system(client: DecafClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    process = NodeProcess("node", tmp_path_factory.mktemp("node") / "decaf_node.log")
    system = System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
    try:
        client.wait_until_ready()
        with system.camera.filming(table=STILL):
            yield system
    finally:
        status = system.process.stop()
    assert status == 0, system.process.output()


@pytest.fixture(scope="module")
def page(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    with PageProcess(tmp_path_factory.mktemp("page") / "decaf_web.log", token=TOKEN) as page:
        yield page
        assert page.stop() == 0
        assert "Traceback" not in page.output(), page.output()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=list(BROWSER_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: playwright.Browser, page: PageProcess, **options: Any) -> Iterator[playwright.Page]:
    """The page as somebody sees it who typed the token (the page's own). No error of a script goes unnoticed."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    context.set_default_timeout(TIMEOUT_S * 1000)
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    try:
        tab.goto(page.address)
        sign_in(tab, page.token)
        tab.locator("#presence[data-presence=online]").wait_for()
        yield tab
        assert not errors
    finally:
        context.close()


@pytest.fixture
def tab(browser: playwright.Browser, page: PageProcess) -> Iterator[playwright.Page]:
    with opened(browser, page) as tab:
        yield tab


def sign_in(tab: playwright.Page, token: str) -> None:
    """Type a token where the page asks for it."""
    tab.get_by_label("Token").fill(token)
    tab.get_by_role("button", name="Open").click()


def picture(tab: playwright.Page, view: str = "overlay") -> np.ndarray:
    """``(H, W, 3)`` int16 BGR: what a view shows, without the camera's noise."""
    rgba = tab.locator(f"#{view} canvas").evaluate(
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"
    )
    height, width = STILL.size_hw
    bgr = cv2.cvtColor(np.array(rgba, np.uint8).reshape(height, width, 4), cv2.COLOR_RGBA2BGR)
    return cv2.blur(bgr, (7, 7)).astype(np.int16)


def changed(before: np.ndarray, after: np.ndarray, thing: int) -> float:
    """The part of a thing's pixels, away from its border and the labels, that look different."""
    mask = STILL.view(0.0).mask_of(thing).astype(np.uint8)
    inside = cv2.erode(mask, np.ones((13, 13), np.uint8)) > 0
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

    find(tab, EXPRESSION)
    tab.locator(".query[data-state=active]", has_text=EXPRESSION).wait_for()
    tab.locator(".object[data-state=visible]").first.wait_for()
    poll(tab, lambda: changed(before, picture(tab), MUG) > 0.6, "the mask")
    assert changed(before, picture(tab), BOX) < 0.1
    tab.locator("#heatmap canvas").wait_for()
    tab.locator("#stages").get_by_text("prefill").wait_for()

    removal = tab.get_by_role("button", name="Stop tracking object")
    while removal.count():
        count = removal.count()
        removal.first.click()
        poll(tab, lambda count=count: removal.count() < count, "an object to go")
    poll(tab, lambda: changed(before, picture(tab), MUG) < 0.1, "the mask to go")
    tab.get_by_role("button", name="Remove this query").click()
    tab.locator("#no-queries").wait_for()
    assert system.client.list_queries().queries == []


def test_two_queries_one_of_them_removed(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    find(tab, OTHER_EXPRESSION)
    tab.locator(".query[data-state=active]").wait_for()
    find(tab, EXPRESSION, "Add")
    tab.locator(".query[data-state=active]").nth(1).wait_for()
    tab.locator(".object[data-state=visible]").nth(1).wait_for()
    tab.locator(".query", has_text=EXPRESSION).get_by_role("button", name="Remove this query").click()
    tab.locator(".query", has_text=EXPRESSION).wait_for(state="detached")
    assert [query.expression for query in system.client.list_queries().queries] == [OTHER_EXPRESSION]
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


def test_what_is_not_there_is_told_and_its_best_guess_tracked_on_request(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    assert system.client.set_parameter("min_presence", 1.0) == (True, "")  # that nothing has
    try:
        find(tab, EXPRESSION)
        refused = tab.locator(".query[data-state=failed]", has_text="nothing in view fits")
        refused.wait_for()
        assert refused.locator(".query-head .state").inner_text() == "not there"
        assert re.fullmatch(r"\d+ %", refused.locator(".likely").inner_text())
        assert tab.locator(".object").count() == 0
        refused.get_by_role("button", name="Track the best guess").click()
        tab.locator(".query[data-state=active] .object").first.wait_for()
        assert not tab.locator(".query[data-state=active] .guess").is_visible()
    finally:
        assert system.client.set_parameter("min_presence", GroundingConfig.min_presence) == (True, "")


def test_text_is_never_markup(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    playwright.expect(tab.locator(".query")).to_have_count(0)
    find(tab, MARKUP)
    tab.locator(".query .sentence").wait_for()
    assert tab.locator(".query .sentence").inner_text() == MARKUP
    assert tab.locator("img[src=x]").count() == 0
    assert tab.title() == "decaf"


def test_a_long_sentence_leaves_everything_within_reach(browser: playwright.Browser, page: PageProcess, system: System) -> None:
    """Also under a finger, on a narrow screen, and in a sentence that is all one word."""
    system.client.reset()
    with opened(browser, page, is_mobile=True, has_touch=True, viewport={"width": 390, "height": 800}) as tab:
        sentence = "theyellowboxontherightside" * 18
        assert system.client.query(sentence, accept_doubtful=True).success  # that it means anything is not what is tested
        tab.locator(".query[data-state=active]", has_text=sentence).wait_for()
        for width in (1440, 901, 390, NARROW_PX):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(OUT_OF_CARDS) == []
        for button in tab.get_by_role("button").all():
            box = button.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= FINGER_PX, button
        tab.locator(".query").get_by_role("button", name="Remove this query").tap()
        tab.locator("#no-queries").wait_for()


def test_what_is_typed_during_a_query_stays(browser: playwright.Browser, page: PageProcess, system: System) -> None:
    """And that there is a query can be seen without motion."""
    system.client.reset()
    with opened(browser, page, reduced_motion="reduce") as tab:
        box = tab.get_by_label("What to look for")
        for more in ("", " and more"):
            find(tab, EXPRESSION)
            box.press_sequentially(more)
            tab.locator("#ask[aria-busy=true]").get_by_role("button", name="Finding").wait_for()
            tab.locator("#ask[aria-busy=false]").get_by_role("button", name="Find", exact=True).wait_for()
            selected = box.evaluate("box => box.value.slice(box.selectionStart, box.selectionEnd)")
            assert (box.input_value(), selected) == (EXPRESSION + more, "" if more else EXPRESSION)
        find(tab, EXPRESSION)
        tab.get_by_role("button", name="Reset").focus()
        tab.locator("#ask[aria-busy=false]").wait_for()
        assert focused(tab) == "Reset"


def focused(tab: playwright.Page) -> str:
    """Name of the button that has the focus."""
    return tab.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent")


def test_the_keyboard_goes_on_where_something_was_removed(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    for expression in (OTHER_EXPRESSION, EXPRESSION):
        assert system.client.query(expression, replace=False).success
    tab.locator(".object").nth(1).wait_for()
    tab.locator(".query", has_text=EXPRESSION).get_by_role("button", name="Stop tracking object").press("Enter")
    tab.locator(".object").nth(1).wait_for(state="detached")
    assert focused(tab) == f"Remove this query: {EXPRESSION}"
    tab.keyboard.press("Enter")
    tab.locator(".query", has_text=EXPRESSION).wait_for(state="detached")
    assert focused(tab) == f"Remove this query: {OTHER_EXPRESSION}"
    tab.keyboard.press("Enter")
    tab.locator("#no-queries").wait_for()
    assert focused(tab) == "Reset"


def test_queries_under_way_hold_up_nothing_else(tab: playwright.Page, system: System) -> None:
    """Chromium opens six connections to a host, and no more."""
    system.client.reset()
    system.process.process.send_signal(signal.SIGSTOP)
    try:
        for number in range(8):
            find(tab, f"{EXPRESSION} {number}", "Add")
        tab.evaluate("fetch('icon.svg', {cache: 'no-store', signal: AbortSignal.timeout(3000)}).then((reply) => reply.text())")
        assert tab.locator("#ask").get_attribute("aria-busy") == "true"
    finally:
        system.process.process.send_signal(signal.SIGCONT)
    tab.get_by_role("button", name="Reset").click()
    tab.locator("#ask[aria-busy=false]").wait_for()


def test_a_heat_map_that_is_newer_than_the_state_is_kept(tab: playwright.Page) -> None:
    """Without refreshing there is one per answer, and the page has it before it knows of the answer."""
    sockets: dict[str, Any] = {}
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
    for name in ("state", "overlay", "heatmap"):
        tab.route_web_socket(f"**/live/{name}", lambda socket, name=name: sockets.update({name: socket}))
    tab.reload()

    def tell(*queries: dict[str, Any]) -> None:
        state = {"queries": queries, "diagnostics": [], "questions": [], "answer": None}
        sockets["state"].send(json.dumps(state | {"node": {"name": "/decaf_node", "presence": "online", "restarts": 0}}))

    query = {"id": 1, "expression": EXPRESSION, "object_name": "", "message": "", "objects": []}
    poll(tab, lambda: "state" in sockets, "the connection")
    tell(query | {"state": "running"})
    poll(tab, lambda: "heatmap" in sockets, "the connection for the heat map")
    sockets["heatmap"].send(jpeg)
    canvas = tab.locator("#heatmap canvas")
    poll(tab, lambda: canvas.evaluate("canvas => canvas.width") == 64, "the heat map to be drawn")
    tell(query | {"state": "running", "object_name": "mug"})
    tell(query | {"state": "active"})
    canvas.wait_for(timeout=60_000)
    assert tab.get_by_role("img", name="Heat map").is_visible()
    tell(query | {"state": "failed"})
    canvas.wait_for(state="hidden")


def test_an_object_that_was_pointed_out_has_a_name_and_no_heat_map(tab: playwright.Page, system: System) -> None:
    system.client.reset()
    rows, columns = np.nonzero(STILL.view(0.0).mask_of(MUG))
    answer = system.client.add_object(label="cup", on_points=[Point(x=columns.mean(), y=rows.mean())])
    assert answer.success, answer.message
    tab.locator(".query[data-state=active] .sentence", has_text="cup, pointed out").wait_for()
    tab.locator("#heatmap .placeholder", has_text="Shown while a sentence is tracked").wait_for()


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


def test_the_page_says_when_decaf_web_hangs(tab: playwright.Page, page: PageProcess) -> None:
    tab.locator("#overlay canvas").wait_for()
    serving = page.child
    serving.suspend()
    try:
        tab.locator("#presence", has_text="decaf_web does not answer").wait_for(timeout=60_000)
        assert tab.locator("#overlay canvas").is_hidden()
    finally:
        serving.resume()
    tab.locator("#presence:not([data-presence=connecting])").wait_for(timeout=60_000)
    tab.locator("#presence[data-presence=online]").wait_for()  # when DDS, which stood still as well, brings diagnostics again
    tab.locator("#overlay canvas:not(.stale)").wait_for()


def test_a_crash_of_decaf_web_is_told_and_survived(tab: playwright.Page, page: PageProcess) -> None:
    """Without another sign-in: the token is kept."""
    tab.locator("#overlay canvas").wait_for()
    page.child.send_signal(signal.SIGSEGV)
    tab.locator("#notice", has_text="decaf_web was restarted, it crashed: signal 11").wait_for()
    tab.locator("#presence[data-presence=online]").wait_for()
    tab.locator("#overlay canvas:not(.stale)").wait_for()
    find(tab, EXPRESSION)
    tab.locator(".query[data-state=active]", has_text=EXPRESSION).wait_for()
    assert tab.locator("#notice").is_hidden()


def test_scores_that_are_no_numbers_are_shown_as_none(tab: playwright.Page) -> None:
    node = {"name": "/decaf_node", "presence": "online", "restarts": 0}
    known = {"id": 1, "colour": "#ff0000", "label": "mug", "state": "visible", "score": None, "presence": None}
    objects = [known, {"id": 2, "colour": "#ff0000"}, known | {"id": 3, "score": 0.5}]
    query = {"id": 1, "expression": EXPRESSION, "object_name": "", "state": "active", "message": "", "objects": objects}
    answer = {"expression": EXPRESSION, "object_name": "", "stages": [{"name": "prefill", "ms": None}], "total_ms": None}
    values = [
        {"name": "dropped_late", "text": "nan"},
        {"name": "dropped_old", "text": "2"},
        {"name": "input_rate_hz", "text": "nan"},
    ]
    camera = {"part": "camera", "level": "ok", "message": "", "values": values}
    state = {"node": node, "queries": [query], "diagnostics": [camera], "questions": [], "answer": answer, "remark": ""}
    tab.route_web_socket("**/live/*", lambda socket: socket.send(json.dumps(state)) if "state" in socket.url else None)
    tab.reload()
    tab.locator(".object").nth(2).wait_for()
    assert tab.locator(".object .score").all_inner_texts() == [NO_NUMBER, "", "0.50"]
    assert tab.locator("#total").inner_text() == tab.locator("#stages dd").inner_text() == NO_NUMBER
    assert tab.locator("#figures dd").all_inner_texts() == [NO_NUMBER, "2"]


def test_of_what_waits_it_is_told_when_it_looked_last_and_how_sure_it_was(tab: playwright.Page) -> None:
    node = {"name": "/decaf_node", "presence": "online", "restarts": 0}
    waits = {"expression": EXPRESSION, "object_name": "", "state": "waiting", "message": "nothing in view fits", "objects": []}
    looked = [(1, None, None), (2, 0.124, 0.5)]
    queries = [waits | {"id": number, "presence": sure, "looked_s": ago} for number, sure, ago in looked]
    state = {"node": node, "queries": queries, "diagnostics": [], "questions": [], "answer": None, "remark": ""}
    tab.route_web_socket("**/live/*", lambda socket: socket.send(json.dumps(state)) if "state" in socket.url else None)
    tab.reload()
    tab.locator(".query").nth(1).wait_for()
    assert tab.locator(".query-head .state").all_inner_texts() == ["waiting"] * 2
    reasons, likely = (tab.locator(f".query .{part}").all_inner_texts() for part in ("reason", "likely"))
    assert reasons == ["Not there yet, looked 0.5 s ago", "nothing in view fits"], "the newest query comes first"
    assert likely == ["12 %", ""]


def test_the_page_goes_along_with_a_node_that_is_restarted(tab: playwright.Page, system: System, tmp_path: Path) -> None:
    """State, picture, questions and the count are those of the new one each time, however the old one ended."""
    for count, ends in enumerate(NODE_ENDS, start=1):
        tab.locator("#overlay canvas:not(.stale)").wait_for()
        find(tab, EXPRESSION)
        tab.locator(".query[data-state=active]", has_text=EXPRESSION).wait_for()
        tab.locator(".object[data-state=visible]").first.wait_for()
        tab.locator("#heatmap canvas").wait_for()
        if ends == "killed":
            system.process.process.kill()
            system.process.process.wait()
        else:
            assert system.process.stop() == 0
        system.process = NodeProcess("node", tmp_path / f"decaf_node_{count}.log")
        tab.locator("#presence[data-presence=online]", has_text=f"restarted {count}\N{MULTIPLICATION SIGN}").wait_for()
        tab.locator("#no-queries").wait_for()
        tab.locator("#heatmap canvas").wait_for(state="hidden")
        tab.locator("#diagnostics article[data-level=ok]", has_text="queries").wait_for()
    find(tab, EXPRESSION)
    tab.locator(".object[data-state=visible]").first.wait_for()


def test_the_page_comes_back_after_decaf_web_was_killed(browser: playwright.Browser, system: System, tmp_path: Path) -> None:
    """Another token is asked for."""
    with (
        PageProcess(tmp_path / "decaf_web.log", token=TOKEN) as page,
        opened(browser, page) as tab,
    ):
        tab.locator("#overlay canvas").wait_for()
        page.kill()
        tab.locator("#presence[data-presence=connecting]").wait_for()
        system.wait_for_mask("a mask while there is no page", TIMEOUT_S)
        with PageProcess(tmp_path / "restarted.log", port=page.port, token=TOKEN) as restarted:
            tab.locator("#presence[data-presence=online]").wait_for()
            tab.locator("#overlay canvas").wait_for()
            find(tab, EXPRESSION)
            tab.locator(".query[data-state=active]").wait_for()
            restarted.kill()
        with PageProcess(tmp_path / "locked.log", port=page.port, token=f"{TOKEN}-2"):
            tab.locator("#presence", has_text="A token is needed").wait_for()
            tab.get_by_role("link", name="Enter it").click()
            sign_in(tab, TOKEN)
            tab.get_by_text("That was not the token").wait_for()
            sign_in(tab, f"{TOKEN}-2")
            tab.locator("#presence[data-presence=online]").wait_for()
