"""Programs that run beside this one, each with its output in a log file, and all of them apart from everybody else's."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import psutil  # type: ignore[import-untyped]
import rclpy

from decaf_ros.ros.startup import start_ros

_GRACE_SECONDS = 10.0
_LAST_BYTES = 1 << 16
# Domains above 101 collide with ephemeral ports.
_DOMAINS = range(1, 101)


@contextmanager
def ros_of_its_own() -> Iterator[list[str]]:
    """ROS for this process and its children, apart from other nodes, which may be at work: a new domain on this machine alone.

    And a new namespace in it, as somebody else may have the same domain. This process's nodes are in the namespace.

    Yields:
        ROS arguments that put a child there, too.
    """
    exported = os.environ.get("ROS_DOMAIN_ID")
    os.environ["ROS_DOMAIN_ID"] = random.choice([str(each) for each in _DOMAINS if str(each) != exported])
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    arguments = ["--ros-args", "-r", f"__ns:=/decaf_{uuid.uuid4().hex[:8]}"]
    start_ros("decaf", arguments)
    try:
        yield arguments
    finally:
        rclpy.try_shutdown()


class ChildProcess:
    """A Python module running as a process of its own, which is ended when the ``with`` block ends.

    Args:
        module: which one.
        arguments: of its command line.
        log: takes its output, and is read for its last words; closed at the end.
        environment: what is different in its environment.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log: BinaryIO, environment: Mapping[str, str] | None = None
    ) -> None:
        self.module = module
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._log.close()

    @property
    def cpu_seconds(self) -> float:
        """What it has computed until now, on all cores together."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def last_words(self, lines: int = 8) -> str:
        """The end of its output."""
        start = max(0, os.fstat(self._log.fileno()).st_size - _LAST_BYTES)
        end = os.pread(self._log.fileno(), _LAST_BYTES, start).decode(errors="replace")
        return "\n".join(end.splitlines()[-lines:])
