"""Processes that are stopped for a while (SIGSTOP), as a debugger or an exhausted machine does, and go on (SIGCONT)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filmed_table import EXPRESSION
from harness import Recorder, System, stamps_of, wait_until
from sensor_msgs.msg import Image

from decaf_ros.ros.client import DecafClient
from decaf_ros.srv import ListQueries, Query

# Listens to all images, has asked more than it takes answers for, and stops itself.
CLIENT = f"""
import os, signal
import rclpy
from decaf_ros.ros.client import DecafClient
from decaf_ros.srv import ListQueries, Query
from harness import Recorder, wait_until
from sensor_msgs.msg import Image

rclpy.init()
with DecafClient(name="stopped_client") as client:
    heard = [Recorder(client, f"~/{{name}}", Image) for name in ("mask", "labels", "overlay")]
    wait_until(lambda: all(each.messages for each in heard), "images", 60.0)
    answers = [client.call_async("list_queries", ListQueries.Request()) for _ in range(300)]
    answers.append(client.call_async("query", Query.Request(expression={EXPRESSION!r}, replace=True)))
    os.kill(os.getpid(), signal.SIGSTOP)
    wait_until(lambda: all(each.done() for each in answers), "all answers", 120.0)
"""


@contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _with_harness() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def test_a_node_that_was_stopped_answers_what_it_was_asked_and_follows_new_images(system: System) -> None:
    client = system.client
    with system.camera.filming():
        system.wait_for_mask()
        with _stopped(system.process.process):
            asked = [
                client.call_async("list_queries", ListQueries.Request()),
                client.call_async("query", Query.Request(expression="")),
            ]
            with pytest.raises(TimeoutError, match=r"/decaf_node did not answer within 1 s"):
                client.call("list_queries", ListQueries.Request(), timeout_s=1.0)
            time.sleep(2.0)
        listed, refused = [client.wait_for(each, 30.0) for each in asked]
        assert len(listed.queries) == 0
        assert "expression is empty" in refused.message
        system.wait_for_mask("a mask of an image since")
    stamps = stamps_of(system.masks.messages)
    assert stamps == sorted(set(stamps)), "in order, and none twice"
    assert set(stamps) <= system.camera.stamps(), "none is called new"


def test_a_client_that_was_stopped_holds_up_nobody_and_finds_its_answers(system: System) -> None:
    with system.camera.filming():
        system.wait_for_mask()
        process = subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.DEVNULL, env=_with_harness())
        try:
            wait_until(lambda: _is_stopped(process.pid), "the client to stop", 120.0)
            with DecafClient(name="third") as other:
                masks = Recorder(other, "~/mask", Image)
                for _ in range(30):
                    masks.next("masks beside a client that is stopped")
                other.list_queries()
            process.send_signal(signal.SIGCONT)
            assert process.wait(timeout=150) == 0
        finally:
            process.kill()
            process.wait(timeout=30)
