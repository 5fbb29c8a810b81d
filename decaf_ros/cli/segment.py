"""``decaf segment``: masks of what a sentence refers to, on every frame of a video, without ROS."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from decaf_ros.bags import BagTopic, is_bag
from decaf_ros.cli.masks import LabelImages, MaskFiles, RunLengths, write_png
from decaf_ros.cli.models import add_model_options, load_models, positive_int
from decaf_ros.config import GroundingConfig
from decaf_ros.datatypes import HeatMap, Segmentation, Visibility
from decaf_ros.drawing import colour_heat, draw_overlay
from decaf_ros.models.errors import ModelNotFound, PromptError
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.grounding import Grounder, StageClock
from decaf_ros.session.offline import QUERY_ID, GroundedVideo, ground_video, segment_video
from decaf_ros.text import checked_line
from decaf_ros.video import FrameSource, VideoError, VideoWriter, open_frames

_RESULTS = ("masks", "masks.json", "heat", "overlay.mp4", "frames.csv", "summary.json")
_NUMBERED = f"{'[0-9]' * 6}*.png"
_MASK_FILES: dict[str, Callable[[Path], MaskFiles]] = {"png": LabelImages, "rle": RunLengths}


class SegmentError(Exception):
    """Sentence, recording and folder do not go together; the message names the cause."""


def main(argv: Sequence[str] | None = None) -> int:
    """Segment a video; returns the exit status: 0, or 1 when the models, the video or the folder cannot be used."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        arguments.expression = checked_line(arguments.expression, "expression")
        config = GroundingConfig(tracklet_threshold=arguments.tracklet_threshold)
    except ValueError as error:
        parser.error(str(error))
    if not arguments.expression:
        parser.error('the expression is empty: say what to look for, such as "the red mug"')
    try:
        summary = _segment(arguments, config)
    except (SegmentError, ModelNotFound, VideoError, OSError) as error:
        print(f"decaf segment: {error}", file=sys.stderr)
        return 1
    _report(summary, arguments.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="decaf segment",
        description="Masks of what a sentence refers to, on every frame of a video.",
        epilog="DIR then holds masks/ (16-bit PNG, pixel = object id) or masks.json (COCO run lengths), heat/ (heat maps of "
        "the key frames), overlay.mp4, frames.csv (stamps) and summary.json.",
    )
    parser.add_argument("video", type=Path, help="a video file, a folder of images in the order of their names, or a rosbag2")
    parser.add_argument("expression", help='what to look for, such as "the red mug"')
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument("--overwrite", action="store_true", help="remove the results of an earlier run from DIR first")
    parser.add_argument("--topic", help="of a bag: images or compressed images (default: the only one there is)")
    parser.add_argument("--masks", choices=_MASK_FILES, default="png", help="how masks are written (default: %(default)s)")
    parser.add_argument(
        "--key-frames", type=positive_int, default=16, help="frames that the sentence is judged by (default: %(default)s)"
    )
    parser.add_argument(
        "--tracklet-threshold",
        type=float,
        default=GroundingConfig.tracklet_threshold,
        help="score from which an object is kept; the best one always is (default: %(default)s)",
    )
    add_model_options(parser)
    return parser


def _open(path: Path, topic: str | None) -> FrameSource:
    if is_bag(path):
        return BagTopic(path, topic)
    if topic is not None:
        raise VideoError(f"--topic is for bags, but {path} is none")
    return open_frames(path)


def _segment(arguments: argparse.Namespace, config: GroundingConfig) -> dict[str, Any]:
    """Write everything; return what there is to say about it.

    What can be in the way is seen before the models are loaded; what is there goes only once they are.
    """
    source, folder = _open(arguments.video, arguments.topic), arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _earlier_results(folder, arguments.video, arguments.overwrite)
    with VideoWriter(folder / "overlay.part.mp4", source.frames_per_second) as attempt:  # which leaves no file
        attempt.open(source.read(0, 1)[0].size_hw)
    mllm, tracker = load_models(arguments)
    _remove(earlier)
    with VideoWriter(folder / "overlay.mp4", source.frames_per_second) as overlay:
        clock = StageClock(lambda stage: print(f"{stage} ...", file=sys.stderr))
        grounder = Grounder(mllm, tracker, config)
        try:
            grounded = ground_video(source, arguments.expression, grounder, tracker, arguments.key_frames, clock)
        except PromptError as error:
            raise SegmentError(str(error)) from error
        masks = _MASK_FILES[arguments.masks](folder)
        summary = _write(folder, overlay, masks, source, grounded, tracker, arguments.expression)
    summary["latency_ms"] = {stage: round(value, 1) for stage, value in clock.latency_ms.items()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _earlier_results(folder: Path, video: Path, overwrite: bool) -> list[Path]:
    """What an earlier run left in a folder.

    Raises:
        SegmentError: it may not go.
    """
    earlier = [folder / name for name in _RESULTS if (folder / name).exists()]
    if any(video.resolve().is_relative_to(each.resolve()) for each in earlier):
        raise SegmentError(f"{video} is among the results in {folder}: choose another folder for --out")
    if earlier and not overwrite:
        names = ", ".join(each.name for each in earlier)
        raise SegmentError(f"{folder} holds results already ({names}): choose another folder, or add --overwrite")
    return earlier


def _remove(results: Sequence[Path]) -> None:
    """Remove results; files that no run of this command writes stay."""
    for each in results:
        for file in each.glob(_NUMBERED) if each.is_dir() else [each]:
            file.unlink()
        if each.is_dir() and not any(each.iterdir()):
            each.rmdir()


def _write(
    folder: Path,
    overlay: VideoWriter,
    masks: MaskFiles,
    source: FrameSource,
    grounded: GroundedVideo,
    tracker: MaskTracker,
    expression: str,
) -> dict[str, Any]:
    """Write masks, heat maps, stamps and the overlay video; return what there is to say about them."""
    _write_heat_maps(folder / "heat", grounded)
    frames_seen: Counter[int] = Counter()
    with (folder / "frames.csv").open("w") as stamps:
        rows = csv.writer(stamps, lineterminator="\n")
        rows.writerow(["frame", "stamp_ns", "frame_id"])
        for index, segmentation in enumerate(_with_progress(segment_video(source, grounded, tracker), len(source))):
            rows.writerow([index, segmentation.frame.stamp_ns, segmentation.frame.frame_id])
            masks.add(segmentation)
            overlay.write(draw_overlay(segmentation, {QUERY_ID: expression}))
            frames_seen.update(each.object_id for each in segmentation.objects if each.visibility is Visibility.VISIBLE)
    masks.finish()
    grounding = grounded.grounding
    objects = [
        {"object_id": number, "score": round(found.score, 4), "frames_visible": frames_seen[number]}
        for number, found in enumerate(grounding.objects, 1)
    ]
    return {
        "expression": expression,
        "object_name": grounding.attention.object_name,
        "confident": grounding.confident,
        "frames": len(source),
        "frames_per_second": source.frames_per_second,
        "key_frames": list(grounded.key_indices),
        "objects": objects,
    }


def _write_heat_maps(folder: Path, grounded: GroundedVideo) -> None:
    folder.mkdir(exist_ok=True)
    grounding = grounded.grounding
    heat_thw = grounding.attention.heat_thw.numpy()
    for index, frame, values in zip(grounded.key_indices, grounding.window.frames, heat_thw, strict=True):
        write_png(folder / f"{index:06d}.png", colour_heat(HeatMap(frame, QUERY_ID, values))[..., ::-1])


def _with_progress(segmentations: Iterator[Segmentation], count: int) -> Iterator[Segmentation]:
    for done, segmentation in enumerate(segmentations, 1):
        yield segmentation
        if done % 50 == 0 or done == count:
            print(f"tracking ... {done} of {count} frames", file=sys.stderr)


def _report(summary: dict[str, Any], folder: Path) -> None:
    name = summary["object_name"] or "unnamed"
    print(f"{summary['expression']!r}: {name}, {len(summary['objects'])} object(s), results in {folder}")
    if not summary["objects"]:
        print("nothing was found: the heat maps show where the model looked")
    elif not summary["confident"]:
        print("no candidate passed the threshold, so the best one was taken")
