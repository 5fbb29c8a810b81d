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
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import rclpy

_GRACE_SECONDS = 10.0
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
    rclpy.init(args=arguments)
    try:
        yield arguments
    finally:
        rclpy.try_shutdown()


class ChildProcess:
    """A Python module running as a process of its own, which is ended when the ``with`` block ends."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.module = module
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
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
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
