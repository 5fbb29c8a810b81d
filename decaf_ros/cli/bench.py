"""``decaf bench``: scores on held-out clips, what each part of the method contributes, latency, and what ROS costs."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
import transformers

from decaf_ros.cli import MESSAGE_CHARACTERS
from decaf_ros.cli.models import add_model_options, positive_int
from decaf_ros.config import SessionConfig
from decaf_ros.evaluation.held_out import (
    CLIP_FRAMES,
    CLIP_HZ,
    FIRST_SEED,
    HEADER,
    KEY_FRAMES,
    OFFERED_FROM_POINTING,
    TARGET_KINDS,
    HeldOutQuery,
    QueryScore,
    even_counts,
    kind_rows,
    mean_row,
    sample_queries,
)
from decaf_ros.evaluation.replay import Latency
from decaf_ros.evaluation.runs import meet_doubles, play_episodes, score_queries
from decaf_ros.evaluation.scripted import FIRST_DOUBLE_SEED, HZ, PATIENCE_S, episodes, rates
from decaf_ros.evaluation.setups import Setup, ablations
from decaf_ros.evaluation.summary import PAPER
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.outputs import OutputFolder
from decaf_ros.text import brief

_Score = TypeVar("_Score")
_OTHER_KINDS = ("motion",)
_TRACKING_HEADER = (
    "the object is",
    "episodes",
    "found again, memory alone",
    "with re-query",
    "median delay in s",
    "frames out of sight with a mask",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print Markdown; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.quick:
        arguments.queries, arguments.ablation_queries, arguments.node_frames = 24, 8, 500
        arguments.node_seconds, arguments.ros_frames = 20.0, 60
        arguments.episodes, arguments.doubles = 2, 5
    if arguments.processes is None:
        arguments.processes = (os.cpu_count() or 1) if arguments.device.type == "cpu" else 1
    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    setup = Setup(arguments.mllm, arguments.tracker, str(arguments.device))
    try:
        folder = _page_folder(arguments.write, arguments.parts)
        for name, measure in _PARTS.items():
            if name in arguments.parts:
                _publish(name, measure(setup, arguments), folder)
    except (ModelNotFound, OSError) as error:  # TimeoutError, of programs that do not start, is an OSError
        print(f"decaf bench: {brief(error, MESSAGE_CHARACTERS)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="decaf bench",
        description="Scores on held-out clips of the procedural world, what each part of the method contributes, and latency "
        "and memory of decaf_node, as Markdown.",
    )
    parser.add_argument("--parts", nargs="+", choices=tuple(_PARTS), default=list(_PARTS), help="default: all")
    parser.add_argument(
        "--queries",
        type=positive_int,
        default=200,
        help="about colour, shape, size and position; an eighth as many about motion (default: %(default)s)",
    )
    parser.add_argument("--ablation-queries", type=positive_int, default=60, help="for each variant (default: %(default)s)")
    parser.add_argument(
        "--node-frames", type=positive_int, default=3000, help="to watch the node's memory for (default: %(default)s)"
    )
    parser.add_argument(
        "--node-seconds", type=float, default=300.0, help="to watch the node beside a slow subscriber (default: %(default)s)"
    )
    parser.add_argument(
        "--ros-frames", type=positive_int, default=300, help="to publish for each set of subscribers (default: %(default)s)"
    )
    parser.add_argument(
        "--episodes", type=positive_int, default=20, help="of loss and return, for each kind (default: %(default)s)"
    )
    parser.add_argument("--doubles", type=positive_int, default=50, help="that pass an object (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few queries only, to see that it works")
    parser.add_argument(
        "--processes", type=positive_int, help="queries scored at a time (default: one a core on a CPU, one on a GPU)"
    )
    parser.add_argument("--write", type=Path, metavar="DIR", help="also write the pages there, such as docs/benchmarks")
    add_model_options(parser)
    return parser


def _held_out(setup: Setup, arguments: argparse.Namespace) -> str:
    each = max(1, arguments.queries // 8)
    counts = even_counts(TARGET_KINDS, arguments.queries) | dict.fromkeys(_OTHER_KINDS, each)
    queries = sample_queries(counts)
    scores = list(_progress("held-out", score_queries(setup, queries, arguments.processes), len(queries)))
    table = markdown_table(("kind", *HEADER), kind_rows(scores))
    return f"""# Held-out scores

{table}
{_clips(queries)}
A clip is {CLIP_FRAMES} frames at {CLIP_HZ:g} Hz; the sentence is grounded in {KEY_FRAMES} key frames, uniform over the clip,
and the objects found are tracked over all frames, forwards and backwards.

- *pointing*: the centre of the clip's hottest cell in the fused map lies in the object's mask or within 8 pixels of it.
- *coarse IoU*: Otsu's masks straight from the heat map, over key frames that show the object.
- *name*: the name that the model settles on is right.
- *J*, *F*: DAVIS's region similarity and boundary accuracy of the tracked masks, mean over all frames.
- A kind is offered in the demo from {OFFERED_FROM_POINTING:.2f} pointing on.

{_conditions(setup, f"--parts held-out --queries {arguments.queries}")}
"""


def _ablation(setup: Setup, arguments: argparse.Namespace) -> str:
    queries = sample_queries(even_counts(TARGET_KINDS, arguments.ablation_queries))
    rows = []
    for name, variant in ablations(setup).items():
        scores: list[QueryScore] = list(_progress(name, score_queries(variant, queries, arguments.processes), len(queries)))
        paper = [f"{PAPER[dataset, name].masks}" for dataset in ("ref-davis17", "reasonvos")]
        rows.append([name, *mean_row(scores)[1:], *paper])
    table = markdown_table(("variant", *HEADER[1:], "paper: Ref-DAVIS17 J&F", "paper: ReasonVOS J&F"), rows)
    return f"""# Ablations

{table}
One part of the method changed at a time; the full method is contrast, both paths, two scales and V-Max rollout.
{_clips(queries)}
The paper's figures (Qwen2.5-VL-7B, SAM 2 Hiera-L, real videos) stand beside ours for the shape of the table, not for
comparison: the embedded models are a thousand times smaller, and were trained with supervision of their attention.

{_conditions(setup, f"--parts ablation --ablation-queries {arguments.ablation_queries}")}
"""


def _node(setup: Setup, arguments: argparse.Namespace) -> str:
    """Always with the embedded models: what is measured is the node."""
    from decaf_ros.cli import bench_node  # the other parts work without ROS

    latency, endurance = bench_node.measure_latency(300), bench_node.measure_endurance(arguments.node_frames)
    return bench_node.report(latency, endurance, bench_node.measure_slow_subscriber(arguments.node_seconds))


def _ros(setup: Setup, arguments: argparse.Namespace) -> str:
    """Without models: what is measured is what surrounds them."""
    from decaf_ros.cli import bench_ros  # the other parts work without ROS

    return bench_ros.report(bench_ros.measure(arguments.ros_frames), arguments.ros_frames)


def _tracking(setup: Setup, arguments: argparse.Namespace) -> str:
    setup, processes = replace(setup, memory_gating=True, motion_gating=True), arguments.processes
    played = episodes(arguments.episodes)
    without, with_it = (
        rates(list(_progress(name, play_episodes(setup, SessionConfig(reacquire=again), played, processes), len(played))))
        for name, again in (("without", False), ("with re-query", True))
    )
    rows = [
        [
            kind,
            str(rate.episodes),
            f"{without[kind].in_time:.2f}",
            f"{rate.in_time:.2f}",
            f"{rate.delay_s:.1f}",
            f"{rate.wrong:.2f}",
        ]
        for kind, rate in with_it.items()
    ]
    seeds = range(FIRST_DOUBLE_SEED, FIRST_DOUBLE_SEED + arguments.doubles)
    kept, kept_without = (
        sum(_progress(name, meet_doubles(replace(setup, motion_gating=gated), seeds, processes), len(seeds)))
        for name, gated in (("doubles", True), ("doubles, without motion gating", False))
    )
    return f"""# Loss and return

{markdown_table(_TRACKING_HEADER, rows)}
An object is asked for by a sentence, followed, and goes out of sight, or touches another object, which can draw the mask away.
*Found again*: followed steadily under its old id within {PATIENCE_S:g} s of its return, among episodes in which it was followed
before. *Memory alone*: SAM 2's; *with re-query*: the node's default, which asks again for objects that are lost or that
attention disagrees with (target: 0.9). Simulated time (`decaf_ros/evaluation/replay.py`): a camera at {HZ:g} Hz, a query takes
{Latency().key_frame_s:g} s a key frame.

A double of the same colour and shape passes an object head-on, in front of it: in {kept} of {len(seeds)} clips the object
is followed on most frames of the last half second (target: 0.8 of them), without motion gating in {kept_without}. Re-query is
off, since no sentence tells the two apart. SAM 2's memory knows how things look, not how they move: the double draws the mask
onto both. Motion gating gives up the part that is not where the object was going. It cannot help where the mask moves to the
double alone.

{_conditions(setup, f"--parts tracking --episodes {arguments.episodes}")}
"""


_PARTS: dict[str, Callable[[Setup, argparse.Namespace], str]] = {
    "held-out": _held_out,
    "ablation": _ablation,
    "tracking": _tracking,
    "node": _node,
    "ros": _ros,
}


def _clips(queries: Sequence[HeldOutQuery]) -> str:
    return f"{len(queries)} queries, one scene each, seeds from {FIRST_SEED} to {queries[-1].seed}, none used in training."


def _conditions(setup: Setup, command: str) -> str:
    return (
        f"`decaf bench {command}`. "
        f"Models: {setup.mllm} (language), {setup.tracker} (masks), on {setup.device}. "
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )


def _progress(name: str, scores: Iterable[_Score], count: int) -> Iterator[_Score]:
    start = time.monotonic()
    for done, score in enumerate(scores, 1):
        yield score
        if done % 20 == 0 or done == count:
            print(f"{name}: {done} of {count}, {(time.monotonic() - start) / done:.1f} s each", file=sys.stderr)


def _page_folder(path: Path | None, parts: Sequence[str]) -> OutputFolder | None:
    """Where pages go; what is in their way is seen before hours of measurements."""
    if path is None:
        return None
    folder = OutputFolder(path)
    for name in parts:
        folder.holds_file(f"{name}.md")
    return folder


def _publish(name: str, page: str, folder: OutputFolder | None) -> None:
    print(page)
    if folder is not None:
        folder.write_text(f"{name}.md", page)


if __name__ == "__main__":
    sys.exit(main())
