"""``decaf evaluate``: J, F and J&F on the paper's datasets, beside the paper's figures; goes on where it was interrupted."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from decaf_ros.cli import INTERRUPTED
from decaf_ros.cli.models import add_model_options, load_models, positive_int
from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.evaluation.datasets import DATASETS, DatasetVideo, read_dataset
from decaf_ros.evaluation.entries import DatasetError
from decaf_ros.evaluation.journal import Journal, JournalError, Record
from decaf_ros.evaluation.live import AskAt, Asker, LiveAnswer, LiveAsker, evaluate_live
from decaf_ros.evaluation.methods import DECAF, METHODS
from decaf_ros.evaluation.replay import Latency
from decaf_ros.evaluation.runner import (
    ALL_OF_A_VIDEO_MB,
    GroundingSegmenter,
    Prediction,
    Segmenter,
    evaluate,
    middle_frames,
)
from decaf_ros.evaluation.setups import Setup, ablations, grounder_of, setup_of
from decaf_ros.evaluation.summary import (
    HEADER,
    LIVE_HEADER,
    NOT_RUN,
    live_rows,
    published_rows,
    summary_rows,
    write_expressions,
    write_summary,
)
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.method.loc_head import Head
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.errors import ModelNotFound, NoBoxesError, PromptError
from decaf_ros.models.protocols import MaskTracker, VideoMllm
from decaf_ros.outputs import OutputFolder, alike
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.loc_head import find_heads
from decaf_ros.text import brief, escaped, quoted
from decaf_ros.video import FrameSource, VideoError

# DecAF's variants: what is typed, and the name in tables. Those that read images alike stand together: models are loaded once
# for them.
_VARIANTS = {
    "full": "full method",
    "object-only": "object prompt only, no contrast",
    "video-only": "video path only",
    "frame-only": "frame path only",
    "single-scale": "single scale",
    "rollout-original": "rollout: original",
    "rollout-max": "rollout: max",
}
# Every family then reads a key frame as finely as it does in the paper. The node's default is lower, to bound its memory.
_FRAME_TOKENS = 8192
_EXPRESSIONS, _SUMMARY, _PAGE = "expressions.csv", "summary.csv", "summary.md"
_ABOUT = f"""Coarse masks are scored on the key frames, tracked masks on all frames. The paper's figures, DecAF's, are of
Qwen2.5-VL-7B and SAM 2 (Hiera-L). What is "{NOT_RUN}" is of others' papers, with other models and protocols."""
_MEASURED = "measured"
_REFRESH_SHARE = 0.1  # of what a query takes, to refresh heat maps: one key frame is read, on one path
_MOST_SECONDS = 3600.0  # that a query may take
_MOST_RATE = 1000.0  # of frames a second


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, and print the summary; returns the exit status: 0, 1 on an error, 130 when interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _complete_live(parser, arguments)
    try:
        config = GroundingConfig(
            point_threshold=arguments.point_threshold,
            tracklet_threshold=arguments.tracklet_threshold,
            min_presence=arguments.min_presence,
            prefix_cache_mb=GroundingConfig.prefix_cache_mb if arguments.live else ALL_OF_A_VIDEO_MB,
        )
    except ValueError as error:
        parser.error(str(error))
    dataset = DATASETS[arguments.dataset]
    try:
        all_videos = read_dataset(arguments.dataset, arguments.root, arguments.split)
        videos = all_videos[: arguments.limit]
        out = OutputFolder(arguments.out)
        for name in (_EXPRESSIONS, _SUMMARY, _PAGE):
            out.holds_file(name)  # what is in the way is seen before hours of work
        if arguments.save_masks or _without_truth(videos):
            _check_mask_names(videos)
        _check_times(arguments, videos)
        journal = Journal(out, _settings(arguments, config))
        status = _run(arguments, config, videos, all_videos, journal, out)
        _publish(arguments, videos, journal, dataset.overall_of, out)
    except (DatasetError, JournalError, ModelNotFound, NoBoxesError, VideoError, OSError) as error:
        message = escaped(str(error), kept="\n")  # a dataset's layout has several lines
        print(f"decaf evaluate: {message}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="decaf evaluate",
        description="J, F and J&F on a dataset of the paper, beside the paper's figures. The same command goes on where an "
        "earlier one was interrupted.",
        epilog="DIR then holds results.jsonl (a line a sentence, as it is done), expressions.csv, summary.csv and summary.md.",
    )
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="where the dataset lies")
    parser.add_argument("--split", help="such as valid_u or train (default: the dataset's usual one)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument(
        "--methods",
        nargs="+",
        type=_methods,
        default=[[DECAF]],
        metavar="METHOD",
        help=f"what is evaluated: {', '.join(METHODS)} (default: {DECAF})",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=(*_VARIANTS, "all"),
        default=["full"],
        help=f"{DECAF} as it is, or with one part changed (default: full)",
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="the first N videos only")
    parser.add_argument(
        "--save-masks", action="store_true", help="write masks as PNG (always, where ground truth is not published)"
    )
    parser.add_argument("--key-frames", type=positive_int, default=16, help="most frames looked at (default: %(default)s)")
    for name in ("point", "tracklet"):
        default = getattr(GroundingConfig, f"{name}_threshold")
        parser.add_argument(f"--{name}-threshold", type=float, default=default, help="(default: %(default)s)")
    parser.add_argument(
        "--min-presence",
        type=float,
        metavar="P",
        help="probability that there is such a thing, by the language model, below which nothing is found (default: 0, it is "
        f"not asked, as in the paper; with --live the node's: {GroundingConfig.min_presence:g})",
    )
    parser.add_argument(
        "--frame-tokens",
        type=positive_int,
        metavar="N",
        help="most visual tokens of a key frame on the frame path; a family's own limit may be lower (default: "
        f"{_FRAME_TOKENS}, with --live the node's: {MllmOptions().frame_tokens})",
    )
    live = parser.add_argument_group(
        "live", "a sentence is asked while its video plays, and its masks are scored from the answer on, in simulated time"
    )
    live.add_argument("--live", action="store_true", help="evaluate that, with the session and the settings of the node")
    live.add_argument(
        "--ask-at",
        type=_ask_times,
        metavar="TIME[,TIME...]",
        help="when: seconds from the beginning, or a share of the video; each time counts as a variant (default: 50%%)",
    )
    live.add_argument(
        "--query-seconds",
        type=_query_seconds,
        metavar="SECONDS",
        help=f'what a query takes, or "{_MEASURED}": as long as on this machine, on which scores then depend (default: 1)',
    )
    live.add_argument(
        "--frames-per-second",
        type=_rate,
        metavar="N",
        help="at which videos are played (default: the dataset's, where it has one)",
    )
    add_model_options(parser)
    parser.add_argument("--model", dest="mllm", default=argparse.SUPPRESS, help="the same as --mllm")
    return parser


def _ask_times(text: str) -> tuple[AskAt, ...]:
    try:
        return tuple(dict.fromkeys(AskAt.parse(each.strip()) for each in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _query_seconds(text: str) -> float | str:
    return _MEASURED if text == _MEASURED else _number(text, 0.0, _MOST_SECONDS)


def _rate(text: str) -> float:
    return _number(text, 1 / _MOST_RATE, _MOST_RATE)


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no number from {least:g} to {most:g}")
    return number


def _complete_live(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Fill in what depends on whether sentences are asked live; what has no sense then ends the program."""
    if not arguments.live:
        for name in ("ask_at", "query_seconds", "frames_per_second"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name.replace('_', '-')} goes with --live")
        arguments.frame_tokens = arguments.frame_tokens or _FRAME_TOKENS
        arguments.min_presence = arguments.min_presence or 0.0
        return
    dataset = DATASETS[arguments.dataset]
    arguments.frames_per_second = arguments.frames_per_second or dataset.frames_per_second
    if arguments.frames_per_second is None:
        parser.error(f"videos of {dataset.title} come without a rate: say with --frames-per-second at which they are played")
    arguments.frame_tokens = arguments.frame_tokens or MllmOptions().frame_tokens
    arguments.ask_at = arguments.ask_at or (AskAt(50.0, "%"),)
    if arguments.min_presence is None:
        arguments.min_presence = GroundingConfig.min_presence
    if arguments.query_seconds is None:
        arguments.query_seconds = 1.0


def _check_times(arguments: argparse.Namespace, videos: Sequence[DatasetVideo]) -> None:
    """Raises ``DatasetError`` where a video is over before its sentences are asked."""
    for ask_at, video in itertools.product(arguments.ask_at or (), videos):
        video_s = len(video.images) / arguments.frames_per_second
        if ask_at.in_video(video_s) >= video_s:
            way_out = "ask earlier, or at a share of each video, such as 50%"
            raise DatasetError(f"--ask-at {ask_at}: the video {quoted(video.name)} takes {video_s:.4g} s; {way_out}")


def _settings(arguments: argparse.Namespace, config: GroundingConfig) -> dict[str, Any]:
    """All that scores depend on, but for the variant."""
    live = {"query_seconds": arguments.query_seconds, "frames_per_second": arguments.frames_per_second}
    return {
        "dataset": arguments.dataset,
        "split": arguments.split or DATASETS[arguments.dataset].split,
        "mllm": arguments.mllm,
        "tracker": arguments.tracker,
        "device": arguments.device.type,  # on which the precision depends
        "key_frames": arguments.key_frames,
        "frame_tokens": arguments.frame_tokens,
        "point_threshold": config.point_threshold,
        "tracklet_threshold": config.tracklet_threshold,
        "min_presence": config.min_presence,
        "live": live if arguments.live else None,
    }


def _check_mask_names(videos: Sequence[DatasetVideo]) -> None:
    """Raises ``DatasetError`` where masks of two sentences could take each other's place on the disk."""
    pair = alike(f"{video.name}/{each.expression_id}" for video in videos for each in video.expressions)
    if pair:
        raise DatasetError(f"masks of {' and '.join(map(quoted, pair))} would be one folder where capitals do not count")


def _run(
    arguments: argparse.Namespace,
    config: GroundingConfig,
    videos: Sequence[DatasetVideo],
    all_videos: Sequence[DatasetVideo],
    journal: Journal,
    out: OutputFolder,
) -> int:
    """Add what the journal lacks; returns the exit status."""
    full = Setup(options=MllmOptions(frame_tokens=arguments.frame_tokens), config=config)
    setups = _chosen(arguments, full)
    names = {name: _names_in_records(name, arguments) for name in setups}
    counts = {name: sum(_count_missing(videos, each, journal) for each in asked) for name, asked in names.items()}
    missing = {name: setups[name] for name, count in counts.items() if count}
    progress = _Progress(sum(counts.values()))
    try:
        for options, group in itertools.groupby(missing.items(), key=lambda item: item[1].options):
            _run_setups(arguments, options, dict(group), videos, all_videos, journal, out, progress)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


def _names_in_records(variant: str, arguments: argparse.Namespace) -> dict[str, AskAt | None]:
    """By the names that a variant has in records: when sentences are asked."""
    return {f"{variant}, asked at {each}": each for each in arguments.ask_at} if arguments.live else {variant: None}


def _run_setups(
    arguments: argparse.Namespace,
    options: MllmOptions,
    setups: Mapping[str, Setup],
    videos: Sequence[DatasetVideo],
    all_videos: Sequence[DatasetVideo],
    journal: Journal,
    out: OutputFolder,
    progress: _Progress,
) -> None:
    """Those of one reading of the images, by name. The models go when this returns, before the next ones are loaded.

    Heads are found by sentences about all videos of the split, so that ``--limit`` does not change them.
    """
    try:
        mllm, tracker = load_models(arguments, options, gated=arguments.live)
    except ValueError as error:
        raise ModelNotFound(f"{arguments.mllm} cannot be read with these options: {error}") from error
    for name, setup in setups.items():
        if METHODS[setup.method].by_heads:
            setup = replace(setup, heads=_found_heads(mllm, all_videos))
            print(f"{name}: {', '.join(f'layer {layer} head {head}' for layer, head in setup.heads)}", file=sys.stderr)
        if setup.config.grounder != "decaf":
            mllm.box_format()  # a model that was not taught boxes is refused, and not each sentence
        for name_in_records, ask_at in _names_in_records(name, arguments).items():
            folder = None
            if arguments.save_masks or _without_truth(videos):
                folder = out.folder("masks", f"{_slug(name)}-{ask_at}" if ask_at else _slug(name))
            grounder = grounder_of(setup, mllm, tracker)
            if ask_at is None:
                segmenter = _lenient(GroundingSegmenter(grounder, arguments.key_frames))
                records = evaluate(videos, name_in_records, segmenter, journal, arguments.key_frames, folder)
            else:
                asker = _telling(_asker(arguments, tracker, grounder))
                rate = arguments.frames_per_second
                records = evaluate_live(videos, name_in_records, ask_at, asker, journal, rate, folder)
            for record in records:
                progress.report(record)


def _asker(arguments: argparse.Namespace, tracker: MaskTracker, grounder: Grounder) -> LiveAsker:
    query_s = arguments.query_seconds
    latency = None if query_s == _MEASURED else Latency(query_s, 0.0, _REFRESH_SHARE * query_s)
    return LiveAsker(tracker, grounder, SessionConfig(key_frames=arguments.key_frames), latency)


def _telling(asker: Asker) -> Asker:
    """The same, but it is said which sentences had no answer with a mask, and why."""

    def ask(source: FrameSource, expression: str, asked_s: float) -> LiveAnswer:
        answer = asker(source, expression, asked_s)
        if answer.refusal:
            print(f"{quoted(expression)} counts as not found: {brief(answer.refusal)}", file=sys.stderr)
        return answer

    return ask


def _found_heads(mllm: VideoMllm, videos: Sequence[DatasetVideo]) -> tuple[Head, ...]:
    try:
        return find_heads(mllm, middle_frames(videos))
    except ValueError as error:
        raise DatasetError(str(error)) from error


def _lenient(segmenter: Segmenter) -> Segmenter:
    """The same, but a sentence that the model cannot take is a query that failed, as in the node: it finds nothing."""

    def segment(source: FrameSource, expression: str) -> Prediction:
        try:
            return segmenter(source, expression)
        except PromptError as error:
            print(f"{quoted(expression)} counts as not found: {error}", file=sys.stderr)
        nothing = np.zeros(source.read(0, 1)[0].size_hw, dtype=np.bool_)
        return Prediction((0,), nothing[None], itertools.repeat(nothing, len(source)), "", confident=False)

    return segment


def _methods(text: str) -> list[str]:
    """An argument type: names of methods, with commas between them."""
    names = text.split(",")
    for name in names:
        if name not in METHODS:
            raise argparse.ArgumentTypeError(f"{quoted(name)} is no method; there are {', '.join(METHODS)}")
    return names


def _chosen(arguments: argparse.Namespace, full: Setup) -> dict[str, Setup]:
    """What is asked for, by its name in tables."""
    methods, variants = set(itertools.chain(*arguments.methods)), arguments.variants
    of_decaf = [name for slug, name in _VARIANTS.items() if slug in variants or "all" in variants]
    chosen = {name: ablations(full)[name] for name in of_decaf if DECAF in methods}
    return chosen | {METHODS[name].title: setup_of(name, full) for name in METHODS if name in methods - {DECAF}}


def _slug(title: str) -> str:
    """What is typed for a name in tables."""
    names = _VARIANTS | {name: method.title for name, method in METHODS.items() if name != DECAF}
    return next(slug for slug, name in names.items() if name == title)


def _count_missing(videos: Sequence[DatasetVideo], variant: str, journal: Journal) -> int:
    keys = ((variant, video.name, each.expression_id) for video in videos for each in video.expressions)
    return sum(key not in journal.records for key in keys)


def _without_truth(videos: Sequence[DatasetVideo]) -> bool:
    return any(expression.truth is None for video in videos for expression in video.expressions)


class _Progress:
    """A line a sentence, with the time that is left."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._start = time.monotonic()

    def report(self, record: Record) -> None:
        self._done += 1
        each_s = (time.monotonic() - self._start) / self._done
        left = timedelta(seconds=round(each_s * (self._total - self._done)))
        score = f"J&F {100 * record.masks.j_and_f:.1f}" if record.masks else "masks written"
        print(
            f"{self._done} of {self._total}, {left} left: {record.variant}, {record.video}/{record.expression_id}, {score}",
            file=sys.stderr,
        )


def _publish(
    arguments: argparse.Namespace,
    videos: Sequence[DatasetVideo],
    journal: Journal,
    overall_of: Sequence[str],
    out: OutputFolder,
) -> None:
    """Write and print what is known so far."""
    records = list(journal.records.values())
    header: Sequence[str] = LIVE_HEADER if arguments.live else HEADER
    rows = live_rows(records, overall_of) if arguments.live else summary_rows(arguments.dataset, records, overall_of)
    rows += [] if arguments.live else published_rows(arguments.dataset)
    write_expressions(out, _EXPRESSIONS, records)
    write_summary(out, _SUMMARY, header, rows)
    total = sum(len(video.expressions) for video in videos)
    page = f"""# {DATASETS[arguments.dataset].title}

{markdown_table(header, rows)}
Percent. Models: {brief(arguments.mllm)} (language), {brief(arguments.tracker)} (masks). {total} sentences a variant when
complete. {_about_live(arguments) if arguments.live else _ABOUT}
"""
    out.write_text(_PAGE, page)
    print(page)
    if _without_truth(videos):
        print(f"Ground truth is not published: hand {arguments.out / 'masks'} in at the dataset's evaluation server.")


def _about_live(arguments: argparse.Namespace) -> str:
    takes = f"takes {arguments.query_seconds} s, whatever the machine"
    if arguments.query_seconds == _MEASURED:
        takes = "takes as long as it took on this machine, so that another one, or a busy one, has other scores"
    return f"""Videos are played at {arguments.frames_per_second:g} frames a second in simulated time; a query {takes}.
J and F are of the frames from the answer on, or from the question on where the video was over before. *Frames without an
answer*: of those from the question on."""


if __name__ == "__main__":
    sys.exit(main())
