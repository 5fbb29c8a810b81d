"""Real processes, a camera under the test's control, and ears on the node's topics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filmed_table import EXPRESSION, TABLE, FilmedTable
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from decaf_ros.imaging import stamp_to_ns
from decaf_ros.msg import QueryInfo
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import image_from_array, make_header
from decaf_ros.srv import Query
from decaf_ros.synthetic.table.rendering import View

ATTEMPTS = 20


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """The first true value of the condition; fails with ``what`` was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s:g} s in vain for {what}")


class NodeProcess:
    """A node of this package in a process of its own; its output goes to a file."""

    def __init__(self, module: str, log: Path, parameters: Mapping[str, Any] | None = None, name: str = "") -> None:
        self.log = log
        renaming = ["-r", f"__node:={name}"] if name else []
        settings = [word for name, value in (parameters or {}).items() for word in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", f"decaf_ros.ros.{module}", "--ros-args", *renaming, *settings]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        """Interrupt the process as Ctrl-C does; its exit status."""
        if self.is_alive():
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"{self.log.name} did not end when interrupted:\n{self.output()}") from None


class Camera:
    """A camera driver in the test's own process."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(Image, "image", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._start_ns = self.now_ns()
        self._stamps: set[int] = set()

    def now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def view(self, stamp_ns: int, table: FilmedTable = TABLE) -> View:
        """The table as it was at a stamp of this camera."""
        return table.view((stamp_ns - self._start_ns) * 1e-9)

    def image(self, stamp_ns: int | None = None, table: FilmedTable = TABLE) -> Image:
        """A good image, now unless another stamp is given."""
        stamp_ns = self.now_ns() if stamp_ns is None else stamp_ns
        return image_from_array(self.view(stamp_ns, table).image_rgb, "rgb8", make_header(stamp_ns, "test_camera"))

    def publish(self, image: Image) -> int:
        """Send an image; its stamp."""
        stamp_ns = stamp_to_ns(image.header.stamp)
        self._stamps.add(stamp_ns)
        self._publisher.publish(image)
        return stamp_ns

    def stamps(self) -> set[int]:
        """Stamps of all images sent so far."""
        return set(self._stamps)

    def publish_until(self, image: Callable[[], Image], condition: Callable[[], Any], what: str, rate_hz: float = 10.0) -> Any:
        """Send images until something holds: best effort may lose any single one."""

        def attempt() -> Any:
            self.publish(image())
            time.sleep(1.0 / rate_hz)
            return condition()

        return wait_until(attempt, what)

    @contextmanager
    def filming(self, rate_hz: float = 10.0, table: FilmedTable = TABLE) -> Iterator[None]:
        """Send good images all the while."""
        over = threading.Event()

        def film() -> None:
            while not over.wait(1.0 / rate_hz):
                self.publish(self.image(table=table))

        thread = threading.Thread(target=film, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Recorder:
    """Keeps the messages of a topic with the time of their arrival."""

    def __init__(self, client: DecafClient, topic: str, kind: type) -> None:
        self.messages: list[Any] = []
        self.arrivals_s: list[float] = []
        self.listening = client.subscribe(topic, kind, self._keep)

    def _keep(self, message: Any) -> None:
        self.arrivals_s.append(time.monotonic())
        self.messages.append(message)

    def next(self, what: str = "a message", timeout_s: float = 30.0) -> Any:
        """The next message from now on."""
        count = len(self.messages)
        wait_until(lambda: len(self.messages) > count, what, timeout_s)
        return self.messages[count]


@dataclass
class System:
    """A running node and what it takes to talk to it."""

    process: NodeProcess
    client: DecafClient
    camera: Camera
    masks: Recorder

    def count(self, name: str) -> int:
        """A counter of the camera diagnostics."""
        return int(self.client.diagnostic_values("camera").get(name, 0))

    def ask(self, expression: str = EXPRESSION, **options: Any) -> Query.Response:
        """Query while the camera films, which it has done for a moment."""
        with self.camera.filming():
            self.wait_for_mask("a mask before the query")
            time.sleep(0.4)
            return self.client.query(expression, **options)

    def wait_for_mask(self, what: str = "a mask", timeout_s: float = 120.0) -> Image:
        """The mask of an image that is sent from now on; one of an earlier image may still come after a reset."""
        now_ns = self.camera.now_ns()
        count = len(self.masks.messages)

        def found() -> list[Image]:
            return [mask for mask in self.masks.messages[count:] if stamp_to_ns(mask.header.stamp) >= now_ns]

        return wait_until(found, what, timeout_s)[0]

    def refused_before_any_frame(self, ask: Callable[[], Any]) -> Any:
        """The answer to a question that cannot be met without a frame. One that was on its way may come after a reset."""

        def attempt() -> Any:
            self.client.reset()
            answer = ask()
            return None if answer.success else answer

        return wait_until(attempt, "a refusal before any frame", 120.0)

    def seen_running(self, ask: Callable[[], Any]) -> Any:
        """What ``ask`` returns, when its query has been seen to run; one that ended before anybody looked is asked again."""
        for _ in range(ATTEMPTS):
            known = {query.query_id for query in self.client.list_queries().queries}
            asked = ask()

            def state(known: set[int] = known) -> int:
                states = [query.state for query in self.client.list_queries().queries if query.query_id not in known]
                return 0 if states in ([], [QueryInfo.QUEUED]) else states[0]

            if wait_until(state, "the query to run", 60.0) == QueryInfo.RUNNING:
                return asked
        raise AssertionError(f"{ATTEMPTS} queries ended before they were seen to run")

    def query_that_fails(self, disturb: Callable[[], None]) -> Query.Response:
        """The answer to a query that was disturbed while it ran; one that ended before is asked again."""
        for _ in range(ATTEMPTS):
            with self.camera.filming():
                self.wait_for_mask()
                request = Query.Request(expression=EXPRESSION, replace=True)
                future = self.seen_running(lambda request=request: self.client.call_async("query", request))
            disturb()
            answer: Query.Response = self.client.wait_for(future, 120.0)
            if not answer.success:
                return answer
        raise AssertionError(f"{ATTEMPTS} queries ended before they were disturbed")

    def require_good_answer(self) -> Query.Response:
        """The node is alive, answers a good query, and its mask follows on the next frames."""
        answer = self.ask(accept_doubtful=True)  # the window may hold what was filmed before
        assert answer.success, answer.message
        assert len(answer.objects) == len(answer.masks) >= 1
        assert self.process.is_alive()
        with self.camera.filming():
            mask = self.wait_for_mask("a mask after the query")
        assert stamp_to_ns(mask.header.stamp) in self.camera.stamps()
        return answer


def pixels(image: Image) -> np.ndarray:
    """``(H, W)`` or ``(H, W, 3)``: the samples of an image that the node published."""
    dtype, channels = {"mono8": (np.uint8, 1), "mono16": (np.uint16, 1), "rgb8": (np.uint8, 3), "32FC1": (np.float32, 1)}[
        image.encoding
    ]
    assert image.step == image.width * channels * np.dtype(dtype).itemsize
    values = np.frombuffer(image.data, dtype=dtype)
    return values.reshape((image.height, image.width) + ((channels,) if channels > 1 else ()))


def stamps_of(messages: list[Any]) -> list[int]:
    """Header stamps in nanoseconds."""
    return [stamp_to_ns(message.header.stamp) for message in messages]
