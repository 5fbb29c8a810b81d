"""Programs where ROS cannot start, as with a home that cannot be written to: one line, and the way out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "decaf_node": ["decaf_ros.ros.node"],
    "decaf_sim_camera": ["decaf_ros.ros.sim_camera"],
    "decaf_web": ["decaf_ros.web.main", "--port", "0"],
    "decaf": ["decaf_ros.cli.main", "demo", "--out", "demo"],
}


def _run(program: str, folder: Path, *words: str, **environment: str) -> str:
    command = [sys.executable, "-m", *PROGRAMS[program], *words]
    inherited = {name: value for name, value in os.environ.items() if name not in ("ROS_LOG_DIR", "ROS_HOME")}
    ended = subprocess.run(command, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_home_that_cannot_be_written_to(program: str, tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    cache = os.environ.get("WARP_CACHE_PATH", str(Path.home() / ".cache" / "warp"))  # of the simulated table, which has its own
    said = _run(program, tmp_path, HOME=str(tmp_path / "home"), WARP_CACHE_PATH=cache)
    assert said.startswith(f"{program}: ROS cannot start: ")
    assert f"{tmp_path}/home/.ros/log" in said
    assert said.endswith("; set ROS_LOG_DIR to a folder that can be written to")


def test_a_table_whose_compiled_code_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    said = _run("decaf_sim_camera", tmp_path, WARP_CACHE_PATH=str(tmp_path / "cache"))
    assert said.startswith("decaf_sim_camera: what the simulated table compiles cannot be kept: ")
    assert f"{tmp_path}/cache" in said
    assert said.endswith("; set WARP_CACHE_PATH to a folder that can be written to")


def test_a_domain_that_is_none(tmp_path: Path) -> None:
    said = _run("decaf_sim_camera", tmp_path, ROS_DOMAIN_ID="kitchen")
    assert "decaf_sim_camera: ROS cannot start: " in said
    assert "ROS_DOMAIN_ID is not an integral number" in said


@pytest.mark.parametrize("program", ["decaf_node", "decaf_sim_camera", "decaf_web"])
def test_a_parameter_of_ros_itself_that_is_of_another_type(program: str, tmp_path: Path) -> None:
    said = _run(program, tmp_path, "--ros-args", "-p", "use_sim_time:=soon")
    assert program in said
    assert "Trying to set parameter 'use_sim_time' to 'soon' of type 'STRING', expecting type 'BOOL'" in said
