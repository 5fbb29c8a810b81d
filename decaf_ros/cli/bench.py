"""``decaf bench``: scores on held-out scenes, what each part of the method contributes, latency, and what ROS costs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from decaf_ros.bench import pages as bench_pages
from decaf_ros.bench.figures import Measured
from decaf_ros.cli import MESSAGE_CHARACTERS
from decaf_ros.cli.models import add_model_options, positive_int, whole_number
from decaf_ros.evaluation.held_out import FIRST_SEED
from decaf_ros.evaluation.setups import Setup
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.outputs import OutputFolder
from decaf_ros.strict_json import to_json
from decaf_ros.synthetic.table.sampling import require_held_out
from decaf_ros.text import brief

_QUICK = {
    "queries": 1,
    "presence_queries": 8,
    "scenes": 2,
    "ablation_queries": 4,
    "episodes": 1,
    "doubles": 2,
    "node_frames": 500,
    "node_seconds": 20.0,
    "ros_frames": 60,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print Markdown; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.quick:
        vars(arguments).update(_QUICK)
    if arguments.processes is None:
        arguments.processes = (os.cpu_count() or 1) if arguments.device.type == "cpu" else 1
    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    setup = Setup(arguments.mllm, arguments.tracker, str(arguments.device))
    figures: dict[str, dict[str, float]] = {}
    try:
        pages = _folder(arguments.write, *(f"{name}.md" for name in arguments.parts)) if arguments.write else None
        data = _folder(arguments.json.parent, arguments.json.name) if arguments.json else None
        for name, measure in _PARTS.items():
            if name in arguments.parts:
                page, figures[name] = measure(setup, arguments)
                print(page)
                if pages is not None:
                    pages.write_text(f"{name}.md", page)
                if data is not None:  # after each part, so that one that fails later costs no figures
                    data.write_text(arguments.json.name, to_json(figures, indent=1) + "\n")
    except (ModelNotFound, OSError, ValueError) as error:  # TimeoutError, of programs that do not start, is an OSError
        print(f"decaf bench: {brief(error, MESSAGE_CHARACTERS)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="decaf bench",
        description="Scores on held-out scenes of the robot's table, what each part of the method contributes, and latency and "
        "memory of decaf_node, as Markdown.",
    )

    def add_count(name: str, default: int, what: str) -> None:
        parser.add_argument(name, type=positive_int, default=default, help=f"{what} (default: %(default)s)")

    parser.add_argument("--parts", nargs="+", choices=tuple(_PARTS), default=list(_PARTS), help="default: all")
    add_count("--queries", 30, "for each kind of sentence")
    add_count("--presence-queries", 200, "true of something, and as many true of nothing")
    add_count("--scenes", 30, "in which objects are measured in space")
    add_count("--ablation-queries", 60, "for each variant")
    add_count("--episodes", 8, "of loss and return, for each kind")
    add_count("--doubles", 50, "that pass an object")
    add_count("--node-frames", 3000, "to watch the node's memory for")
    parser.add_argument(
        "--node-seconds", type=float, default=300.0, help="to watch the node beside a slow subscriber (default: %(default)s)"
    )
    add_count("--ros-frames", 300, "to publish for each set of subscribers")
    parser.add_argument("--quick", action="store_true", help="a few queries only, to see that it works")
    parser.add_argument(
        "--first-seed",
        type=_held_out_seed,
        default=FIRST_SEED,
        help="of the scenes, which are none that models were trained on (default: %(default)s)",
    )
    parser.add_argument(
        "--processes", type=positive_int, help="queries scored at a time (default: one a core on a CPU, one on a GPU)"
    )
    parser.add_argument("--write", type=Path, metavar="DIR", help="also write the pages there, such as docs/benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there: {part: {name: value}}")
    add_model_options(parser)
    return parser


def _held_out_seed(text: str) -> int:
    try:
        return require_held_out(whole_number(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _node(setup: Setup, arguments: argparse.Namespace) -> Measured:
    """Always with the embedded models: what is measured is the node."""
    from decaf_ros.bench.parts import node as bench_node  # the other parts work without ROS

    latency, endurance = bench_node.measure_latency(300), bench_node.measure_endurance(arguments.node_frames)
    return bench_node.report(latency, endurance, bench_node.measure_slow_subscriber(arguments.node_seconds))


def _ros(setup: Setup, arguments: argparse.Namespace) -> Measured:
    """Without models: what is measured is what surrounds them."""
    from decaf_ros.bench.parts import ros as bench_ros  # the other parts work without ROS

    return bench_ros.report(bench_ros.measure(arguments.ros_frames), arguments.ros_frames)


_PARTS: dict[str, Callable[[Setup, argparse.Namespace], Measured]] = {
    "held-out": bench_pages.held_out,
    "presence": bench_pages.presence_of_yes,
    "objects-3d": bench_pages.objects_3d,
    "ablation": bench_pages.ablation,
    "tracking": bench_pages.tracking,
    "node": _node,
    "ros": _ros,
}


def _folder(path: Path, *names: str) -> OutputFolder:
    """Where results go; what is in their way is seen before hours of measurements."""
    folder = OutputFolder(path)
    for name in names:
        folder.holds_file(name)
    return folder


if __name__ == "__main__":
    sys.exit(main())
