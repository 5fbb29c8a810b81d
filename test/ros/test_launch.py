"""The launch files, run by the real launch: installed with a ROS distribution, not from PyPI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import wait_until

from decaf_ros.ros.client import DecafClient

pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed: it comes with a ROS distribution")

ROOT = Path(__file__).parents[2]
PROGRAMS = {"decaf_node": "node", "decaf_sim_camera": "sim_camera"}
# What ros2 launch does, without ros2cli.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

path, *given = sys.argv[1:]
arguments = [each.split(":=", 1) for each in [*given, "sigterm_timeout:=120"]]
service = LaunchService()
source = PythonLaunchDescriptionSource(path)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """These sources laid out as colcon installs them."""
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "decaf_ros").touch()
    (tmp_path / "share" / "decaf_ros").mkdir()
    for folder in ("launch", "config"):
        (tmp_path / "share" / "decaf_ros" / folder).symlink_to(ROOT / folder)
    programs = tmp_path / "lib" / "decaf_ros"
    programs.mkdir(parents=True)
    for program, module in PROGRAMS.items():
        (programs / program).write_text(f"#!{sys.executable}\nfrom decaf_ros.ros.{module} import main\n\nmain()\n")
        (programs / program).chmod(0o755)
    return tmp_path


@contextmanager
def _launched(prefix: Path, file: str, *arguments: str) -> Iterator[Path]:
    """A launch file at work; its log. It must end well when interrupted."""
    log = prefix / "launch.log"
    search = os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", sys.prefix)])
    environment = os.environ | {"AMENT_PREFIX_PATH": search, "ROS_LOG_DIR": str(prefix / "log"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", LAUNCH, str(prefix / "share" / "decaf_ros" / "launch" / file), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
        try:
            assert process.wait(timeout=180) == 0, log.read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "process has died" not in log.read_text(), log.read_text()


def test_demo_shows_masks(ros: None, prefix: Path) -> None:
    with _launched(prefix, "demo.launch.py", "seeds:=[11]", "rate:=8.0") as log, DecafClient(name="demo_client") as client:
        try:
            client.wait_until_ready()
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{log.read_text()}") from error
        values = client.diagnostic_values
        wait_until(lambda: int(values("camera").get("processed", 0)) > 5, "images to be followed", 60.0)
        assert values("camera")["topic"] == "/image"


def test_arguments_reach_the_node(ros: None, prefix: Path, tmp_path: Path) -> None:
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**: {ros__parameters: {key_frames: 7, device: cuda}}\n")
    arguments = ("image:=/front/image", "namespace:=front", "name:=eyes", "device:=cpu", "autostart:=false")
    target = "/front/eyes"
    with (
        _launched(prefix, "decaf.launch.py", *arguments, f"params_file:={parameters}") as log,
        DecafClient(target, name="front_client") as client,
    ):
        wait_until(lambda: client.diagnostics("queries"), f"diagnostics of {target}; see {log}", 60.0)
        assert client.state() == "unconfigured", "autostart is off"
        assert client.diagnostic_values("camera")["topic"] == "/front/image"
        assert client.set_parameter("key_frames", 7)[0]
        assert client.change_state("configure"), "device:=cpu goes before the file"
        assert client.change_state("activate")
        client.wait_until_ready()
