"""ROS for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy

from decaf_ros.ros.client import DecafClient


@pytest.fixture(scope="module")
def client() -> Iterator[DecafClient]:
    """A client of decaf_node in the test's own process."""
    rclpy.init()
    with DecafClient(name="test_client") as client:
        yield client
    rclpy.try_shutdown()
