"""Speed and memory of the streaming tracker against sam2's own video predictor.

``python tools/bench_speed.py`` prints Markdown; one thread, warm-up apart, medians and 95th percentiles. Each measurement runs
in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from measuring import HEADER, Measurement, MemoryRise, apart, machine, timed
from PIL import Image

from decaf_ros.datatypes import Frame
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.models.sam2_loading import load_sam2
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.synthetic.world import View, sample_scene

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "test" / "parity"))

SCENE_SEED, CAMERA_HZ, WARM_UP_FRAMES = 11, 10.0, 16


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--frames", type=int, default=60, help="of the tracker (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    arguments = parser.parse_args()
    official, stream = (apart(side, arguments.frames) for side in (tracker_official, tracker_ours))
    tracker_rows = [["sam2's video predictor", *official.cells(official)], ["decaf_ros", *stream.cells(official)]]
    page = f"""# Streaming tracker

float32, warm-up apart. {machine()}. Made by `python tools/bench_speed.py`.

The embedded SAM 2.1, one object over {arguments.frames} frames of 192 x 256 pixels, encoder included; the first
{WARM_UP_FRAMES} are warm-up. The predictor gets the whole video beforehand and keeps all of it; the tracker gets one frame at
a time.

{markdown_table(HEADER, tracker_rows)}"""
    print(page)
    if arguments.write:
        arguments.write.write_text(page)


def tracker_ours(frames: int) -> Measurement:
    """One frame at a time, as in the node."""
    views = _views(frames)
    tracker = Sam2Tracker(Sam2Network(load_sam2("embedded")))
    memory = MemoryRise()
    stream = iter([Frame(index, "camera", view.image_rgb) for index, view in enumerate(views)])
    track = tracker.start_track(tracker.encode(next(stream)), views[0].mask_of(0))
    times = [timed(lambda: tracker.step([track], tracker.encode(next(stream)))) for _ in range(1, frames)]
    return Measurement(tuple(times[WARM_UP_FRAMES - 1 :]), memory.mib())


def tracker_official(frames: int) -> Measurement:
    """sam2's predictor over the same frames; the loading of the video is not timed."""
    from test_sam2_stream import predictor_of  # in test/parity

    views = _views(frames)
    predictor = predictor_of(load_sam2("embedded"))
    memory = MemoryRise()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for index, view in enumerate(views):
            Image.fromarray(view.image_rgb).save(Path(folder) / f"{index:05d}.jpg", format="PNG")
        state = predictor.init_state(folder)
        predictor.add_new_mask(state, 0, 1, views[0].mask_of(0))
        steps = predictor.propagate_in_video(state)
        times = [timed(lambda: next(steps)) for _ in range(frames)]
    return Measurement(tuple(times[WARM_UP_FRAMES:]), memory.mib())


def _views(frames: int) -> list[View]:
    scene = sample_scene(SCENE_SEED, screens=False)
    return [scene.render(index / CAMERA_HZ) for index in range(frames)]


if __name__ == "__main__":
    main()
