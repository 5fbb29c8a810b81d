"""The ``decaf`` command."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from decaf_ros.cli import INTERRUPTED, MESSAGE_CHARACTERS
from decaf_ros.synthetic.table.extras import SimulationMissingError
from decaf_ros.text import brief

# Imported when chosen: torch, transformers and rclpy take seconds.
_COMMANDS = {
    "segment": "masks of what a sentence refers to, in a video, a folder of images or a bag, without ROS",
    "demo": "a simulated camera, the node and three queries, scored against ground truth",
    "evaluate": "J&F on the paper's datasets, beside the paper's figures",
    "bench": "scores on held-out clips, ablations, loss and return, speed of the node and of its models, as Markdown",
}
_EXTRAS = {"matplotlib": "dev"}
_ROS_MODULES = ("rclpy", "sensor_msgs", "decaf_ros.msg", "decaf_ros.srv", "decaf_ros.action")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit status, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="decaf", description="From a sentence to a tracked mask.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        subparsers.add_parser(name, help=text, add_help=False)
    chosen, rest = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("decaf_ros.models.devices").setLevel(logging.INFO)  # which device auto is, and why
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names from elsewhere, on terminals that do not have their letters
    try:
        _check_working_folder()
        status = int(importlib.import_module(f"decaf_ros.cli.{chosen.command}").main(rest))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f"decaf {chosen.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _EXTRAS:
            way_out = f"pip install 'decaf_ros[{_EXTRAS[package]}]'"
            print(f"decaf {chosen.command} needs {package}, which is not installed: {way_out}", file=sys.stderr)
            return 1
        if error.name not in _ROS_MODULES:
            raise
        print(f"decaf {chosen.command} needs ROS 2: source its setup.bash, or use `make {chosen.command}`", file=sys.stderr)
        return 1
    except SimulationMissingError as error:
        print(f"decaf {chosen.command}: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # no folder for temporary files, a reader of the output that went away
        reason = f"not all could be printed: {error.strerror}" if _give_up_output() else error
        print(f"decaf {chosen.command}: {brief(reason, MESSAGE_CHARACTERS)}", file=sys.stderr)
        return 1


def _check_working_folder() -> None:
    """Without one that is there, libraries crash."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError("the current folder was removed: change to another one") from error


def _give_up_output() -> bool:
    """Whether nothing more can be printed; what could not is dropped then, lest Python try once more when it ends."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
