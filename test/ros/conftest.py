"""One node process for every module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from harness import Camera, NodeProcess, Recorder, System
from sensor_msgs.msg import Image

from decaf_ros.ros.client import DecafClient


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    """The default context, for as long as a module needs it."""
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="module")
def client(ros: None, request: pytest.FixtureRequest) -> Iterator[DecafClient]:
    with DecafClient(name=f"client_{request.module.__name__.rpartition('.')[2]}") as client:
        yield client


@pytest.fixture(scope="module")
def running(client: DecafClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """decaf_node with the embedded models, loaded; it must also end well."""
    process = NodeProcess("node", tmp_path_factory.mktemp("node") / "decaf_node.log")
    try:
        client.wait_until_ready()
        yield System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{process.output()}") from error
    finally:
        status = process.stop()
    assert status == 0, process.output()
    assert "Traceback" not in process.output(), process.output()


@pytest.fixture
def system(running: System) -> System:
    """The running node, without queries, objects and frames."""
    running.client.reset()
    return running
