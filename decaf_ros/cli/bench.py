"""``decaf bench``: scores on held-out scenes, what each part of the method contributes, latency, and what ROS costs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from decaf_ros.bench.part import Option, Run
from decaf_ros.bench.parts import PARTS
from decaf_ros.cli import MESSAGE_CHARACTERS
from decaf_ros.cli.models import add_model_options, positive_int, whole_number
from decaf_ros.evaluation.setups import Setup
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.outputs import OutputFolder
from decaf_ros.strict_json import to_json
from decaf_ros.synthetic.table.sampling import FIRST_SCORED_SEED, require_held_out
from decaf_ros.text import brief


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print Markdown; returns the exit status."""
    arguments = _parser().parse_args(argv)
    values = vars(arguments)
    if arguments.quick:
        values |= {option.key: option.quick for part in PARTS for option in part.options if option.quick is not None}
    if arguments.processes is None:
        arguments.processes = (os.cpu_count() or 1) if arguments.device.type == "cpu" else 1
    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    run = Run(Setup(arguments.mllm, arguments.tracker, str(arguments.device)), arguments.first_seed, arguments.processes)
    chosen = [part for part in PARTS if part.name in arguments.parts]
    figures: dict[str, dict[str, float]] = {}
    try:
        pages = _folder(arguments.write, *(name for part in chosen for name in part.files)) if arguments.write else None
        data = _folder(arguments.json.parent, arguments.json.name) if arguments.json else None
        for part in chosen:
            measured = part.measure(run, values)
            figures[part.name] = measured.figures
            print(measured.page)
            if pages is not None:
                pages.write_text(f"{part.name}.md", measured.page)
                for name, picture in measured.pictures.items():
                    with pages.file(name) as file:
                        file.write(picture)
            if data is not None:  # after each part, so that one that fails later costs no figures
                data.write_text(arguments.json.name, to_json(figures, indent=1) + "\n")
    except (ModelNotFound, OSError, ValueError) as error:  # TimeoutError, of programs that do not start, is an OSError
        print(f"decaf bench: {brief(error, MESSAGE_CHARACTERS)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="decaf bench",
        description="Scores on held-out scenes of the robot's table, what each part of the method contributes, latency and "
        "memory of decaf_node, and what is computed against plain references, as Markdown.",
    )
    by_default = [part.name for part in PARTS if part.by_default]
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=[part.name for part in PARTS],
        default=by_default,
        help=f"what to measure (default: {' '.join(by_default)})",
    )
    parser.add_argument("--quick", action="store_true", help="a little of each part only, to see that it works")
    parser.add_argument(
        "--first-seed",
        type=_held_out_seed,
        default=FIRST_SCORED_SEED,
        help="of the scenes, which are none that models were trained on (default: %(default)s)",
    )
    parser.add_argument(
        "--processes", type=positive_int, help="queries scored at a time (default: one a core on a CPU, one on a GPU)"
    )
    parser.add_argument("--write", type=Path, metavar="DIR", help="also write the pages there, such as docs/benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there: {part: {name: value}}")
    add_model_options(parser)
    for part in PARTS:
        group = parser.add_argument_group(part.name, part.what)
        for option in part.options:
            default = " (default: %(default)s)" if option.default is not None else ""
            group.add_argument(
                f"--{option.name}",
                type=_type_of(option),
                nargs="*" if option.many else None,
                default=option.default,
                metavar="NAME" if option.many else "N",
                help=option.what + default,
            )
    return parser


def _type_of(option: Option) -> Callable[[str], Any]:
    if option.many:
        return str
    if isinstance(option.default, float):
        return float
    return positive_int if option.least == 1 else lambda text: _at_least(option.least, text)


def _at_least(least: int, text: str) -> int:
    if (number := whole_number(text)) < least:
        raise argparse.ArgumentTypeError(f"{number} is less than {least}")
    return number


def _held_out_seed(text: str) -> int:
    try:
        return require_held_out(whole_number(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _folder(path: Path, *names: str) -> OutputFolder:
    """Where results go; what is in their way is seen before hours of measurements."""
    folder = OutputFolder(path)
    for name in names:
        folder.holds_file(name)
    return folder


if __name__ == "__main__":
    sys.exit(main())
