"""How the node is doing, once a second on /diagnostics."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil  # type: ignore[import-untyped]
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image

from decaf_ros.ros.models import Models
from decaf_ros.session.engine import Engine

_AGES_KEPT = 300


@dataclass(eq=False)
class CameraStatistics:
    """What became of the camera's images. Thread-safe.

    Attributes:
        received: images that came in.
        rejected: those that could not be decoded or followed.
        last_rejection: why the last of them could not; "" for none.
    """

    received: int = 0
    rejected: int = 0
    last_rejection: str = ""
    _started: float = field(default_factory=time.monotonic)
    _last_arrival: float | None = None
    _last_report: tuple[float, int] | None = None
    _ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_AGES_KEPT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_arrival(self) -> None:
        """An image came in."""
        with self._lock:
            self.received += 1
            self._last_arrival = time.monotonic()

    def note_mask(self, age_ms: float) -> None:
        """A mask was published, so long after the stamp of its image."""
        with self._lock:
            self._ages_ms.append(age_ms)

    def note_rejection(self, reason: str) -> None:
        """An image could not be used."""
        with self._lock:
            self.rejected += 1
            self.last_rejection = reason

    @property
    def silent_seconds(self) -> float:
        """Time since the last image, or since the start before the first."""
        with self._lock:
            return time.monotonic() - (self._last_arrival or self._started)

    def take_input_rate(self) -> float:
        """Images a second since the last call."""
        with self._lock:
            now = time.monotonic()
            since, count = self._last_report or (self._started, 0)
            self._last_report = (now, self.received)
            return (self.received - count) / max(now - since, 1e-3)

    def mask_age_ms(self) -> tuple[float, float]:
        """Median and 95th percentile of the age of the last masks, in milliseconds; NaN before the first."""
        with self._lock:
            ages = list(self._ages_ms)
        if not ages:
            return float("nan"), float("nan")
        median, p95 = np.percentile(ages, [50, 95])
        return float(median), float(p95)


class NodeDiagnostics:
    """Turns the state of the node into messages for /diagnostics.

    Args:
        node: for its name, parameters and clock.
        camera: what became of the images.
        engine: what became of the queries.
        models: which of them are loaded.
        images: the subscription of the camera's topic.
    """

    def __init__(
        self, node: Node, camera: CameraStatistics, engine: Engine, models: Models, images: Subscription[Image]
    ) -> None:
        self._node = node
        self._camera = camera
        self._engine = engine
        self._models = models
        self._images = images

    def message(self) -> DiagnosticArray:
        """The state as of now; rates are since the last call."""
        array = DiagnosticArray(status=[self._camera_status(), self._tracking_status(), self._query_status()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        return array

    def camera_hint(self) -> str:
        """Where to look when no image comes."""
        topic = self._images.topic_name
        return (
            f"{self._node.count_publishers(topic)} publishers on {topic}, subscribed best effort, volatile, depth 1; "
            "check the topic (remap image:=...), the camera and ROS_DOMAIN_ID"
        )

    def camera_problem(self) -> str:
        """That the camera is silent, and for how long; "" when it is not."""
        silent = self._camera.silent_seconds
        limit = float(self._node.get_parameter("camera_timeout_seconds").value)
        return f"no image for {silent:.1f} s: {self.camera_hint()}" if silent > limit else ""

    def _camera_status(self) -> DiagnosticStatus:
        counters = self._engine.session.counters
        values = {
            "topic": self._images.topic_name,
            "input_rate_hz": self._camera.take_input_rate(),
            "received": self._camera.received,
            "processed": counters.processed,
            "dropped_superseded": self._engine.frames_superseded,
            "dropped_late": counters.late,
            "dropped_repeated": counters.repeated,
            "rejected": self._camera.rejected,
            "last_rejection": self._camera.last_rejection,
            "discontinuities": counters.discontinuities,
        }
        return self._status("camera", self.camera_problem(), DiagnosticStatus.WARN, values)

    def _tracking_status(self) -> DiagnosticStatus:
        median, p95 = self._camera.mask_age_ms()
        values = {
            "objects": len(self._engine.session.object_ids),
            "mask_age_p50_ms": median,
            "mask_age_p95_ms": p95,
            "catch_up_skipped": self._engine.session.counters.catch_up_skipped,
            "memory_rss_mib": process_memory_mib(),
        }
        return self._status("tracking", "", DiagnosticStatus.OK, values)

    def _query_status(self) -> DiagnosticStatus:
        queries = self._engine.session.queries
        values = {
            "stage": self._engine.stage,
            "pending": self._engine.pending_queries,
            "active": len(queries),
            "newest_expression": queries[-1].expression if queries else "",
            "mllm_model": self._node.get_parameter("mllm_model").value,
            "tracker_model": self._node.get_parameter("tracker_model").value,
        }
        return self._status("queries", self._models.problem, DiagnosticStatus.ERROR, values)

    def _status(self, part: str, problem: str, level: bytes, values: Mapping[str, object]) -> DiagnosticStatus:
        """One entry; ``level`` holds if there is a problem."""
        return DiagnosticStatus(
            level=level if problem else DiagnosticStatus.OK,
            name=f"{self._node.get_name()}: {part}",
            message=problem or "ok",
            hardware_id="decaf_ros",
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )


def process_memory_mib() -> float:
    """Resident memory of this process."""
    return psutil.Process(os.getpid()).memory_info().rss / 2**20


def _text(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
