"""Signals: every program ends within 5 s, whatever it is at, and says what it was at when it had to be cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filmed_table import EXPRESSION
from harness import Camera, NodeProcess, Recorder, System, wait_until
from sensor_msgs.msg import Image

from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.ending import CUT_OFF
from decaf_ros.srv import ListQueries, Query

# A node whose part, named by its argument, hangs for good once it is used; all else is the node's own.
HANGING_NODE = """
import sys, threading
from decaf_ros.ros.camera import Camera
from decaf_ros.ros.images import ImageInput
from decaf_ros.ros.node import main
from decaf_ros.ros.services import Services
from decaf_ros.session.attention import MllmAttention

def hang(*_):
    print("it hangs", flush=True)
    threading.Event().wait()

owner, name = {
    "worker": (MllmAttention, "_read"),
    "live": (ImageInput, "frame"),
    "spinning": (Camera, "_on_image"),
    "callback": (Services, "_list_queries"),
}[sys.argv[1]]
setattr(owner, name, hang)
main(["--ros-args", "-r", "__node:=hanging_node"])
"""
# What is said of each: its stage, and the call that it does not return from.
HANGS = {
    "worker": "the worker's stage: prefill of query 1 for ",
    "live": "while it was stopping its threads",
    "spinning": "while it was running",
    "callback": "while it was waiting for callbacks that run",
}
# launch kills after 5 s; a machine that is busy with other tests may take longer to note that a process ended.
PATIENCE_S = 15.0


@contextmanager
def _program(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", *command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("part", HANGS)
def test_a_node_with_a_part_that_hangs_is_cut_off_and_says_what_it_was_at(ros: None, tmp_path: Path, part: str) -> None:
    log = tmp_path / "node.log"
    with _program([HANGING_NODE, part], log) as process, DecafClient("/hanging_node", name="patient_client") as client:
        client.wait_until_ready()
        with Camera(client.node).filming():
            client.call_async("query", Query.Request(expression=EXPRESSION))
            client.call_async("list_queries", ListQueries.Request())
            wait_until(lambda: "it hangs" in log.read_text(), "the part to hang", 60.0)
            if part == "worker":
                wait_until(lambda: _told(client) > 1, "diagnostics", 60.0)
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)  # who is impatient must not make it worse
            assert process.wait(timeout=PATIENCE_S) == CUT_OFF
    said = log.read_text()
    assert "cut off 4 s after SIGINT, with status 124" in said
    assert HANGS[part] in said
    assert "threading.Event().wait()" in said or "in hang" in said, "the call that hangs"


def _told(client: DecafClient) -> float:
    """How many seconds diagnostics say that query 1 has been in its prefill."""
    told = client.diagnostic_values("queries")
    return float(told["stage_seconds"]) if (told.get("stage"), told.get("stage_query")) == ("prefill", "1") else 0.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_ends_well_under_a_flood(ros: None, tmp_path: Path, number: signal.Signals) -> None:
    process = NodeProcess("node", tmp_path / "node.log", name="flooded_node")
    try:
        with DecafClient("/flooded_node", name="flooding_client") as client:
            client.wait_until_ready()
            node = System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
            pictures = Recorder(client, "~/overlay", Image)
            with node.camera.filming(30.0):
                wait_until(lambda: pictures.messages, "pictures", 60.0)
                queries = [Query.Request(expression=EXPRESSION, replace=False) for _ in range(8)]
                futures = [client.call_async("query", request) for request in queries]
                wait_until(lambda: client.diagnostic_values("queries").get("pending", "0") != "0", "queries to wait", 60.0)
                process.process.send_signal(number)
                _ask_while(process.is_alive, client)
                assert process.process.wait(timeout=PATIENCE_S) == 0, process.output()
                messages = [client.wait_for(future, 10.0).message for future in futures]
                assert any("shut down" in message for message in messages)
    finally:
        process.process.kill()
    assert "ending, from the state active" in process.output()
    assert "Traceback" not in process.output()


def _ask_while(condition: Callable[[], bool], client: DecafClient) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while condition() and time.monotonic() < deadline:
        try:
            client.call_async("list_queries", ListQueries.Request(), timeout_s=0.1)
        except TimeoutError:  # the service has gone
            time.sleep(0.1)


@pytest.mark.parametrize("program", ["node", "sim_camera"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_ends_while_it_is_being_imported(tmp_path: Path, program: str, number: signal.Signals) -> None:
    command = f"""
import sys
from decaf_ros.ros import ending, programs
def begun(*_):
    print("it begins", flush=True)
    sys.meta_path.pop(0)
class Finder:
    find_spec = begun
made = ending.Ending
ending.Ending = programs.Ending = lambda *args, **kwargs: (made(*args, **kwargs), sys.meta_path.insert(0, Finder))[0]
programs.{program}()
"""
    log = tmp_path / "program.log"
    with _program([command], log) as process:
        wait_until(lambda: "it begins" in log.read_text(), "the imports to begin", 60.0)
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE_S) == 0
    assert log.read_text() == "it begins\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_camera_ends_while_it_draws(ros: None, tmp_path: Path, number: signal.Signals) -> None:
    process = NodeProcess("sim_camera", tmp_path / "camera.log", {"height": 1024, "width": 1024, "reliability": "reliable"})
    try:
        with DecafClient(name="spectator") as client:
            Recorder(client, "/image", Image).next("an image", 60.0)
        process.process.send_signal(number)
        assert process.process.wait(timeout=PATIENCE_S) == 0
    finally:
        process.process.kill()
    assert "Traceback" not in process.output()


def test_a_program_that_nobody_listens_to_is_cut_off_all_the_same(tmp_path: Path) -> None:
    """Its standard error is a pipe that is full: whoever writes a line waits for ever."""
    command = """
import os, sys, threading, time
from decaf_ros.ros.ending import Ending
ending = Ending("deaf")
print("it begins", flush=True)
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(4096))
except BlockingIOError:
    os.set_blocking(2, True)
threading.Thread(target=lambda: print("blocked", file=sys.stderr, flush=True), daemon=True).start()
time.sleep(1.0)  # so that the lock of sys.stderr is held
print("it is full", flush=True)
time.sleep(1000)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # which has no such lock
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"it begins\n"
        assert process.stdout.readline() == b"it is full\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == CUT_OFF
    finally:
        process.kill()
