"""Neighbours that are killed: the node goes on, and what it counts keeps rising."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from filmed_table import EXPRESSION
from harness import NodeProcess, System, wait_until

from decaf_ros.msg import QueryInfo

ROUNDS = 2
CLIENT = f"""
import rclpy
from decaf_ros.ros.client import DecafClient

rclpy.init()
with DecafClient(name="doomed_client") as client:
    client.query({EXPRESSION!r}, timeout_s=600.0)
"""


def test_camera_is_killed_and_started_anew(system: System, tmp_path: Path) -> None:
    for round_index in range(ROUNDS):
        before = system.count("processed")
        camera = NodeProcess("sim_camera", tmp_path / f"camera_{round_index}.log", {"seeds": "[11]"})
        wait_until(lambda before=before: system.count("processed") > before + 5, "frames to be followed", 60.0)
        camera.process.send_signal(signal.SIGKILL)
        assert camera.process.wait(timeout=30) == -signal.SIGKILL
    assert system.process.is_alive()
    system.require_good_answer()


def test_client_is_killed_while_its_query_runs(system: System) -> None:
    with system.camera.filming():
        system.wait_for_mask("a mask before the query")
        for _ in range(ROUNDS):
            before = system.count("processed")
            client = system.seen_running(lambda: subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.DEVNULL))
            client.kill()
            assert client.wait(timeout=30) == -signal.SIGKILL
            wait_until(lambda: _states(system) == [QueryInfo.ACTIVE], "the query to be answered into the void", 60.0)
            wait_until(lambda before=before: system.count("processed") > before, "frames to be followed")
    system.require_good_answer()


def _states(system: System) -> list[int]:
    return [query.state for query in system.client.list_queries().queries]
