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
from ament_index_python import get_packages_with_prefixes
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
service = LaunchService(noninteractive=not sys.stdin.isatty())
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


def _launch(prefix: Path, file: str, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
    """A launch file at work, in a process group of its own, and its log."""
    log = prefix / "launch.log"
    search = os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", sys.prefix)])
    environment = os.environ | {"AMENT_PREFIX_PATH": search, "ROS_LOG_DIR": str(prefix / "log"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", LAUNCH, str(prefix / "share" / "decaf_ros" / "launch" / file), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return process, log


def _has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _launched(prefix: Path, file: str, *arguments: str, to_all: bool = True) -> Iterator[Path]:
    """A launch file at work; its log. It must end well when interrupted: as a terminal does, or launch alone."""
    process, log = _launch(prefix, file, *arguments)
    try:
        yield log
    finally:
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
        try:
            assert process.wait(timeout=180) == 0, log.read_text()
            assert not _has_processes(process.pid), "launch left processes behind"
        finally:
            if _has_processes(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "process has died" not in log.read_text(), log.read_text()


def test_demo_shows_masks(ros: None, prefix: Path) -> None:
    arguments = ("seeds:=[11]", "rate:=8.0")
    with _launched(prefix, "demo.launch.py", *arguments, to_all=False) as log, DecafClient(name="demo_client") as client:
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


def test_rviz_shows_the_node(prefix: Path, tmp_path: Path) -> None:
    """Whatever stands in for RViz is told what to show, of which node, in which frame."""
    (prefix / "share" / "ament_index" / "resource_index" / "packages" / "rviz2").touch()
    (prefix / "lib" / "rviz2").mkdir()
    rviz, words = prefix / "lib" / "rviz2" / "rviz2", tmp_path / "words"
    rviz.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{words}.part'\nmv '{words}.part' '{words}'\n")
    rviz.chmod(0o755)
    arguments = (
        *("rviz:=true", "fixed_frame:=map", "image:=/front/image"),
        *("namespace:=front", "name:=eyes", "use_sim_time:=true"),
    )
    with _launched(prefix, "decaf.launch.py", *arguments) as log:
        wait_until(lambda: "ready" in log.read_text(), f"the node to be ready; see {log}", 60.0)
        given = words.read_text().split("\n")
        parameters = Path(given[given.index("--params-file") + 1]).read_text()
    assert given[given.index("-d") + 1] == str(prefix / "share" / "decaf_ros" / "config" / "decaf.rviz")
    assert given[given.index("-f") + 1] == "map"
    assert "use_sim_time: true" in parameters
    shown = {word for word in given if ":=" in word}
    assert shown == {"/image:=/front/image"} | {
        f"/decaf_node/{topic}:=front/eyes/{topic}" for topic in ("overlay", "heatmap", "markers", "points")
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["rviz:=true"], "rviz2"),
        (["rviz:=perhaps"], "perhaps"),
        (["autostart:=perhaps"], "perhaps"),
        (["autostart:=perhaps", "rviz:=true"], "perhaps"),  # before RViz comes up
        (["depth:=perhaps"], "perhaps"),
    ],
)
def test_launch_that_cannot_be_leaves_nothing_behind(prefix: Path, arguments: list[str], reason: str) -> None:
    if reason == "rviz2" and "rviz2" in get_packages_with_prefixes():
        pytest.skip("RViz is installed")
    process, log = _launch(prefix, "demo.launch.py", *arguments)
    try:
        assert process.wait(timeout=60) == 1, log.read_text()
        assert reason in log.read_text()
        assert "process started" not in log.read_text()
        assert not _has_processes(process.pid)
    finally:
        if _has_processes(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
