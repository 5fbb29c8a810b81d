"""The command line of programs that take nothing but ROS arguments: anything else is refused, which ROS would pass over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from decaf_ros.text import brief, quoted


def check_arguments(program: str, description: str, documentation: str, args: Sequence[str] | None = None) -> list[str]:
    """The words for ``rclpy.init``. Ends the program, with status 2 and the reason, where one of them means nothing.

    Args:
        program: its name.
        description: what it does, for ``--help``.
        documentation: where its parameters and topics are described.
        args: what follows the name on the command line; ``None`` for this process's own.
    """
    from rclpy.utilities import remove_ros_args  # so that decaf_web's parent process can use this module without ROS

    words = list(sys.argv if args is None else [program, *args])
    parser = argparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [-h] [--ros-args [-p PARAMETER:=VALUE ...] [-r TOPIC:=TOPIC ...] [--params-file FILE] ...]",
        description=description,
        epilog=f"Parameters and topics: {documentation}",
    )
    _, unknown = parser.parse_known_args(outside_ros_args(words[1:]))
    if unknown:
        given = " ".join(unknown)
        parser.error(
            f"nothing is known of {quoted(given)}: parameters (-p) and remappings (-r) come after --ros-args, which is missing"
        )
    try:
        remove_ros_args(words)
    except RuntimeError as error:  # rclpy.init would raise the same
        parser.error(f"ROS cannot read its arguments: {brief(error)}")
    return words


def outside_ros_args(words: Sequence[str]) -> list[str]:
    """What does not stand between ``--ros-args`` and ``--``.

    ROS itself would take ``name:=value`` anywhere, as ROS 1 did: for a remapping, also where a parameter is meant.
    """
    outside, ours = [], True
    for word in words:
        if word in ("--ros-args", "--"):
            ours = word == "--"
        elif ours:
            outside.append(word)
    return outside
