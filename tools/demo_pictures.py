"""Draws the pictures of docs/images that show the demo: its contact sheet, and its first query as it goes on.

    python -m tools.demo_pictures [--seed N]

It runs what ``decaf demo`` runs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from decaf_ros.cli.demo import FIRST_SEED, KINDS
from decaf_ros.cli.demo_pictures import draw_sheet, live_pictures, look_again
from decaf_ros.cli.demo_run import ANSWER_SECONDS, CAMERA_HZ, TRACKING_SECONDS, Outcome, run_node
from decaf_ros.cli.demo_scenes import choose_queries
from decaf_ros.cli.models import whole_number
from decaf_ros.datatypes import UInt8Array
from decaf_ros.outputs import OutputFolder

FOLDER, SHEET, ANIMATION = Path("docs/images"), "demo.jpg", "live.webp"
SHEET_WIDTH, ANIMATION_WIDTH = 1600, 1024
EVERY = 2  # of the camera's images is in the animation
MOST_BYTES = 2_000_000
_LAST_SECONDS = 2.0  # that the last picture stays


def main() -> None:
    """Run the demo's queries, and draw both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=whole_number, default=FIRST_SEED, help="as of decaf demo (default: %(default)s)")
    *present, absent = choose_queries(parser.parse_args().seed, KINDS, ANSWER_SECONDS + TRACKING_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        outcomes, absence = run_node(present, absent, OutputFolder(Path(folder)))
    _write_animation(outcomes[0])
    sheet = _at_width(draw_sheet(outcomes, absence, look_again(outcomes, absence)), SHEET_WIDTH)
    with OutputFolder(FOLDER).file(SHEET) as file:
        sheet.save(file, format="JPEG", quality=88, optimize=True)


def _write_animation(outcome: Outcome) -> None:
    first, *others = [_at_width(picture, ANIMATION_WIDTH) for picture in list(live_pictures(outcome))[::EVERY]]
    period_ms = round(1e3 * EVERY / CAMERA_HZ)
    durations = [period_ms] * len(others) + [round(1e3 * _LAST_SECONDS)]
    with OutputFolder(FOLDER).file(ANIMATION) as file:
        first.save(file, format="WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=75, method=4)
    size = (FOLDER / ANIMATION).stat().st_size
    print(f"{ANIMATION}: {len(durations)} pictures, {size / 1e6:.2f} MB")
    if size > MOST_BYTES:
        raise SystemExit(f"{ANIMATION} has more than {MOST_BYTES / 1e6:g} MB: lower its quality, its width or its rate")


def _at_width(image_rgb: UInt8Array, width: int) -> Image.Image:
    image = Image.fromarray(image_rgb)
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
