"""``decaf segment``: masks of what a sentence refers to, on every frame of a video, without ROS."""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from decaf_ros.bags import BagTopic, is_bag
from decaf_ros.cli import MESSAGE_CHARACTERS
from decaf_ros.cli.masks import LabelImages, MaskFiles, RunLengths
from decaf_ros.cli.models import add_model_options, load_models, positive_int
from decaf_ros.config import GROUNDERS, GroundingConfig
from decaf_ros.datatypes import HeatMap, Segmentation, Visibility
from decaf_ros.drawing import colour_heat, draw_overlay
from decaf_ros.models.errors import ModelNotFound, NoBoxesError, PromptError
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.outputs import OutputFolder
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.offline import QUERY_ID, GroundedVideo, ground_video, segment_video
from decaf_ros.session.stages import StageClock
from decaf_ros.strict_json import to_json
from decaf_ros.text import brief, checked_line, quoted
from decaf_ros.video import FrameSource, VideoError, VideoWriter, open_frames

NOT_THERE = 3
"""The exit status where, by the language model, nothing in the recording fits the sentence. (2 is for wrong arguments.)"""
_FOLDERS = ("masks", "heat")
_FILES = ("masks.json", "overlay.mp4", "frames.csv", "summary.json")
_NUMBERED = re.compile(r"[0-9]{6,}\.png")
_MASK_FILES: dict[str, Callable[[OutputFolder], MaskFiles]] = {"png": LabelImages, "rle": RunLengths}


class SegmentError(Exception):
    """Sentence, recording and folder do not go together; the message names the cause."""


def main(argv: Sequence[str] | None = None) -> int:
    """Segment a video.

    Returns:
        The exit status: 0, 1 when the models, the video or the folder cannot be used, or :data:`NOT_THERE`.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        arguments.expression = checked_line(arguments.expression, "expression")
        config = GroundingConfig(
            grounder=arguments.grounder,
            tracklet_threshold=arguments.tracklet_threshold,
            min_presence=arguments.min_presence,
        )
    except ValueError as error:
        parser.error(str(error))
    if not arguments.expression:
        parser.error('the expression is empty: say what to look for, such as "the red mug"')
    try:
        summary = _segment(arguments, config)
    except (SegmentError, ModelNotFound, NoBoxesError, VideoError, OSError) as error:
        print(f"decaf segment: {brief(error, MESSAGE_CHARACTERS)}", file=sys.stderr)
        return 1
    _report(summary, arguments.out)
    return 0 if summary["there"] else NOT_THERE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="decaf segment",
        description="Masks of what a sentence refers to, on every frame of a video.",
        epilog="DIR then holds masks/ (16-bit PNG, pixel = object id) or masks.json (COCO run lengths), heat/ (heat maps of "
        "the key frames), overlay.mp4, frames.csv (stamps) and summary.json. Where nothing in the video fits, it holds heat/ "
        f"and summary.json alone, and the exit status is {NOT_THERE}.",
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
        "--grounder",
        choices=GROUNDERS,
        default=GroundingConfig.grounder,
        help="where candidates come from: points where the language model looks (decaf), boxes that it answers with (box), or "
        "both (default: %(default)s)",
    )
    parser.add_argument(
        "--tracklet-threshold",
        type=float,
        default=GroundingConfig.tracklet_threshold,
        help="score from which an object is kept; the best one always is (default: %(default)s)",
    )
    parser.add_argument(
        "--min-presence",
        type=float,
        default=GroundingConfig.min_presence,
        help="probability that anything fits, by the language model, below which nothing does; 0 does not ask "
        "(default: %(default)s)",
    )
    parser.add_argument("--accept-doubtful", action="store_true", help="follow the best guess even where nothing fits")
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
    source, out = _open(arguments.video, arguments.topic), OutputFolder(arguments.out)
    _check_earlier_results(out, arguments.video, arguments.overwrite)
    with out.video("overlay.mp4", source.frames_per_second) as attempt:  # which leaves no file
        attempt.open(source.read(0, 1)[0].size_hw)
    mllm, tracker = load_models(arguments)
    if config.grounder != "decaf":
        mllm.box_format()  # or nothing goes
    _remove_earlier_results(out)
    clock = StageClock(lambda stage: print(f"{stage} ...", file=sys.stderr))
    grounder = Grounder(MllmAttention(mllm, config), tracker, config)
    try:
        grounded = ground_video(source, arguments.expression, grounder, tracker, arguments.key_frames, clock)
    except PromptError as error:
        raise SegmentError(str(error)) from error
    there = arguments.accept_doubtful or not grounded.grounding.doubted
    summary = _summary(source, grounded, arguments.expression) | {"there": there}
    _write_heat_maps(out.folder("heat"), grounded)
    if there:
        with out.video("overlay.mp4", source.frames_per_second) as overlay:
            masks = _MASK_FILES[arguments.masks](out)
            summary["objects"] = _write(out, overlay, masks, source, grounded, tracker, arguments.expression)
    summary["latency_ms"] = {stage: round(value, 1) for stage, value in clock.latency_ms.items()}
    out.write_text("summary.json", to_json(summary, indent=2) + "\n")  # the last one: with it, all is there
    return summary


def _earlier_results(out: OutputFolder) -> list[tuple[OutputFolder, str]]:
    """Files that an earlier run left, each with the folder that it is in.

    Raises:
        OutputError: what has the name of a result is none, a link for one.
    """
    files = [(out, name) for name in _FILES if out.holds_file(name)]
    for name in _FOLDERS:
        if out.holds_folder(name):
            folder = out.folder(name)
            files += [(folder, each) for each in folder.names() if _NUMBERED.fullmatch(each) and folder.holds_file(each)]
        elif out.holds_file(name):  # of somebody else
            files.append((out, name))
    return files


def _check_earlier_results(out: OutputFolder, video: Path, overwrite: bool) -> None:
    """See what is there, and whether it may go.

    Raises:
        SegmentError: it may not.
        OutputError: it is not what this command writes.
    """
    _earlier_results(out)
    there = [name for name in (*_FOLDERS, *_FILES) if name in out.names()]
    if any(video.resolve().is_relative_to((out.path / name).resolve()) for name in there):
        raise SegmentError(f"{video} is among the results in {out.path}: choose another folder for --out")
    if there and not overwrite:
        raise SegmentError(f"{out.path} holds results already ({', '.join(there)}): choose another folder, or add --overwrite")


def _remove_earlier_results(out: OutputFolder) -> None:
    """Remove results; files that no run of this command writes stay."""
    for folder, name in _earlier_results(out):
        folder.remove(name)
    for name in _FOLDERS:
        out.remove_folder(name)


def _write(
    out: OutputFolder,
    overlay: VideoWriter,
    masks: MaskFiles,
    source: FrameSource,
    grounded: GroundedVideo,
    tracker: MaskTracker,
    expression: str,
) -> list[dict[str, Any]]:
    """Write masks, stamps and the overlay video; return what there is to say about each object."""
    frames_seen: Counter[int] = Counter()
    with out.text("frames.csv") as stamps:
        rows = csv.writer(stamps, lineterminator="\n")
        rows.writerow(["frame", "stamp_ns", "frame_id"])
        for index, segmentation in enumerate(_with_progress(segment_video(source, grounded, tracker), len(source))):
            rows.writerow([index, segmentation.frame.stamp_ns, segmentation.frame.frame_id])
            masks.add(segmentation)
            overlay.write(draw_overlay(segmentation, {QUERY_ID: expression}))
            frames_seen.update(each.object_id for each in segmentation.objects if each.visibility is Visibility.VISIBLE)
    masks.finish()
    return [
        {
            "object_id": number,
            "score": round(found.score, 4),
            "grounder": found.grounder,
            "frames_visible": frames_seen[number],
        }
        for number, found in enumerate(grounded.grounding.objects, 1)
    ]


def _summary(source: FrameSource, grounded: GroundedVideo, expression: str) -> dict[str, Any]:
    grounding = grounded.grounding
    guess = grounding.guess if grounding.doubted else None
    return {
        "expression": expression,
        "object_name": grounding.attention.object_name,
        "confident": grounding.confident,
        "presence": round(grounding.attention.presence, 4),
        "guess": guess and {"box_xyxy": guess.box_xyxy, "score": round(guess.score, 4), "stamp_ns": guess.stamp_ns},
        "frames": len(source),
        "frames_per_second": source.frames_per_second,
        "key_frames": list(grounded.key_indices),
        "objects": [],
    }


def _write_heat_maps(folder: OutputFolder, grounded: GroundedVideo) -> None:
    grounding = grounded.grounding
    heat_thw = grounding.attention.heat_thw.numpy()
    for index, frame, values in zip(grounded.key_indices, grounding.window.frames, heat_thw, strict=True):
        folder.write_png(f"{index:06d}.png", colour_heat(HeatMap(frame, QUERY_ID, values))[..., ::-1])


def _with_progress(segmentations: Iterator[Segmentation], count: int) -> Iterator[Segmentation]:
    for done, segmentation in enumerate(segmentations, 1):
        yield segmentation
        if done % 50 == 0 or done == count:
            print(f"tracking ... {done} of {count} frames", file=sys.stderr)


def _report(summary: dict[str, Any], folder: Path) -> None:
    if not summary["there"]:
        likely = f"that there is such a thing is {summary['presence']:.1%} likely by the language model"
        print(f"{quoted(summary['expression'])}: nothing in the video fits, {likely}; heat maps are in {folder}")
        print("--accept-doubtful follows the best guess, --min-presence moves the limit")
        return
    name = brief(summary["object_name"] or "unnamed")
    print(f"{quoted(summary['expression'])}: {name}, {len(summary['objects'])} object(s), results in {folder}")
    if not summary["objects"]:
        print("nothing was found: the heat maps show where the model looked")
    elif not summary["confident"]:
        print("no candidate passed the threshold, so the best one was taken")
