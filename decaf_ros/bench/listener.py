"""A subscriber in a process of its own, for benchmarks: ``python -m decaf_ros.bench.listener TOPIC ... [--pause SECONDS]``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import CompressedImage, Image

from decaf_ros.msg import TrackedObjectArray
from decaf_ros.ros.startup import start_ros

_DEPTH = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Take messages, reliably and without looking at them, until interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(description="Subscribe to topics of decaf_node, and take the messages.")
    parser.add_argument("topics", nargs="+", help="full names")
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="spent on each message (default: none)")
    arguments = parser.parse_args(argv)
    start_ros("listener")
    node = rclpy.create_node("listener")
    for topic in arguments.topics:
        # Serialized: what a subscriber in Python takes to unpack an image is not what is measured.
        node.create_subscription(_kind(topic), topic, lambda _: time.sleep(arguments.pause), _DEPTH, raw=True)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


def _kind(topic: str) -> type:
    if topic.endswith("/objects"):
        return TrackedObjectArray
    return CompressedImage if topic.endswith("/compressed") else Image


if __name__ == "__main__":
    raise SystemExit(main())
