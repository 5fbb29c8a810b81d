"""Takes docs/images/web.png: the page in headless Chromium, while the node tracks what two sentences about a table mean.

    python -m tools.page_picture [--seed N]

The first sentence is the first one of ``decaf demo``, the second one is about another thing of the same scene.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from decaf_ros.cli.demo import FIRST_SEED, KINDS
from decaf_ros.cli.demo_run import ANSWER_SECONDS, TRACKING_SECONDS, camera_and_node, say, show_until_asked
from decaf_ros.cli.demo_scenes import choose_queries
from decaf_ros.cli.models import whole_number
from decaf_ros.cli.recording import Recorder
from decaf_ros.evaluation.held_out import HeldOutQuery, queries_of
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.processes import ChildProcess

FOLDER, NAME = Path("docs/images"), "web.png"
CAMERA = {"height": 384, "width": 512, "rate": 5.0}  # large, since the page shows it large
VIEW = ViewportSize(width=1440, height=900)
_LONGEST_S = 120.0
_SETTLING_MS = 4000  # until rates have settled


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=whole_number, default=FIRST_SEED, help="as of decaf demo (default: %(default)s)")
    first, *_ = choose_queries(parser.parse_args().seed, KINDS, ANSWER_SECONDS + TRACKING_SECONDS)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("neither chromium nor google-chrome is installed")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out = OutputFolder(folder)
        client, arguments = stack.enter_context(camera_and_node(out, **CAMERA))
        command = ["--port", "0", *arguments]
        stack.enter_context(ChildProcess("decaf_ros.web.main", command, out.log("web.log")))
        started = stack.enter_context(sync_playwright())
        tab = started.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(viewport=VIEW)
        tab.set_default_timeout(_LONGEST_S * 1e3)
        tab.goto(_address(folder / "web.log"))
        tab.locator("#presence[data-presence=online]").wait_for()
        show_until_asked(first, client, Recorder(client))
        for mode, text in (("Replace", first.sentence.text), ("Add", _other_of(first))):
            _ask(tab, mode, text)
        tab.locator("#heatmap canvas").wait_for()
        tab.wait_for_timeout(_SETTLING_MS)
        with OutputFolder(FOLDER).file(NAME) as file:
            file.write(tab.screenshot(full_page=True))


def _other_of(first: HeldOutQuery) -> str:
    """A sentence about another thing at the same moment."""
    asked: Sequence[HeldOutQuery] = [query for query in queries_of(first.seed) if query.end_s == first.end_s]
    others = [query.sentence for query in asked if query.sentence.kind == "colour_category"]
    return next(sentence.text for sentence in others if sentence.target != first.sentence.target)


def _ask(tab: Page, mode: str, text: str) -> None:
    say(f'asking for "{text}"')
    tab.get_by_text(mode, exact=True).click()
    box = tab.get_by_label("What to look for")
    box.fill(text)
    box.press("Enter")
    tab.locator(".query[data-state=active]", has_text=text).wait_for()
    box.blur()


def _address(log: Path) -> str:
    """Where the page says that it is."""
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        if found := re.search(r"open (http://\S+)\n", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"decaf_web did not start: {log.read_text(errors='replace')}")


if __name__ == "__main__":
    main()
