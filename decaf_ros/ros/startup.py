"""How programs enter ROS: with the reason and a way out where they cannot, in place of a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.action.server import RCLError
from rclpy.exceptions import NameValidationException

from decaf_ros.text import brief

# What ROS raises where it does not take a node's names, or those of its topics.
REFUSALS = (RCLError, NameValidationException)


def start_ros(program: str, words: Sequence[str] | None = None, **options: Any) -> None:
    """``rclpy.init``. Ends the program, with status 1 and the reason, where ROS cannot start.

    Args:
        program: its name, for the message.
        words: its command line.
        options: of ``rclpy.init``.
    """
    try:
        rclpy.init(args=None if words is None else list(words), **options)
    except (RCLError, RuntimeError) as error:
        hint = ""
        if "logging" in str(error):  # a home that is read-only, or not there, as of a service's user
            hint = "; set ROS_LOG_DIR to a folder that can be written to"
        raise SystemExit(f"{program}: ROS cannot start: {brief(error)}{hint}") from error


def refusal(error: Exception) -> str:
    """What to say about one of the ``REFUSALS``."""
    return f"ROS refuses the node: {brief(error)}; check its names and remappings (-r)"
