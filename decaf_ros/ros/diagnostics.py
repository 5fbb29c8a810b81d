"""How the node is doing, once a second on /diagnostics, for as long as it lives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from decaf_ros.ros.camera import Camera
from decaf_ros.ros.depth import DepthCamera
from decaf_ros.ros.painter import Painter
from decaf_ros.ros.shared_memory import free_shared_memory_mib
from decaf_ros.ros.statistics import CameraStatistics
from decaf_ros.session.engine import Engine
from decaf_ros.session.tasks.task import Activity
from decaf_ros.text import brief

_PERIOD_SECONDS = 1.0
_WARNING_PERIOD_SECONDS = 5.0
_LONGEST_MESSAGE = 2000  # characters: what is wrong with two models


@dataclass(frozen=True)
class Health:
    """Whether the node can answer queries.

    Attributes:
        state: of its lifecycle.
        problem: why it cannot; "" when it can.
        level: how bad that is, of ``DiagnosticStatus``.
    """

    state: str
    problem: str
    level: bytes


class NodeDiagnostics:
    """Publishes the state of the node, and warns in the log of a silent camera.

    Args:
        node: for its name, parameters and clock.
        health: of the node, at any time.
        activity: what its worker is at.
        camera: its topic.
        statistics: what became of the images.
        engine: what became of the queries.
        painter: what became of the pictures.
        depth: what became of the depth images; ``None`` for a camera without depth.
    """

    def __init__(
        self,
        node: Node,
        health: Callable[[], Health],
        activity: Callable[[], Activity],
        camera: Camera,
        statistics: CameraStatistics,
        engine: Engine,
        painter: Painter,
        depth: DepthCamera | None = None,
    ) -> None:
        self._node = node
        self._health = health
        self._activity = activity
        self._camera = camera
        self._statistics = statistics
        self._engine = engine
        self._painter = painter
        self._depth = depth
        self._topic = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # By the wall clock: when simulated time stands still, this is what tells why nothing happens.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(_PERIOD_SECONDS, self._report, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady)

    def _report(self) -> None:
        camera_problem = self._camera.problem()
        if camera_problem:
            self._node.get_logger().warning(camera_problem, throttle_duration_sec=_WARNING_PERIOD_SECONDS)
        array = DiagnosticArray(status=[self._camera_status(camera_problem), self._tracking_status(), self._query_status()])
        if self._depth is not None:
            array.status.append(self._status("depth", self._depth.problem(), DiagnosticStatus.WARN, self._depth.values()))
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._topic.publish(array)

    def _camera_status(self, problem: str) -> DiagnosticStatus:
        counters = self._engine.session.counters
        values = {
            "topic": self._camera.topic,
            "input_rate_hz": self._statistics.take_input_rate(),
            "received": self._statistics.received,
            "processed": counters.processed,
            "dropped_superseded": self._engine.frames_superseded,
            "dropped_late": counters.late,
            "dropped_repeated": counters.repeated,
            "dropped_old": self._statistics.dropped_old,
            "rejected": self._statistics.rejected,
            "last_rejection": self._statistics.last_rejection,
            "discontinuities": counters.discontinuities,
        }
        return self._status("camera", problem, DiagnosticStatus.WARN, values)

    def _tracking_status(self) -> DiagnosticStatus:
        counters = self._engine.session.counters
        median, p95 = self._statistics.mask_age_ms()
        values = {
            "objects": len(self._engine.session.object_ids),
            "mask_age_p50_ms": median,
            "mask_age_p95_ms": p95,
            "catch_up_skipped": counters.catch_up_skipped,
            "reacquired": self._engine.session.reacquired,
            "pictures_skipped": self._painter.skipped,
            "memory_rss_mib": process_memory_mib(),
            "shared_memory_free_mib": free_shared_memory_mib(),
        }
        return self._status("tracking", "", DiagnosticStatus.OK, values)

    def _query_status(self) -> DiagnosticStatus:
        queries, health, activity = self._engine.session.queries, self._health(), self._activity()
        ahead = self._engine.read_so_far
        values = {
            "state": health.state,
            "stage": activity.stage,
            "stage_seconds": time.monotonic() - activity.since,
            "stage_query": activity.query_id or "",
            "pending": self._engine.pending_queries,
            "standing": self._engine.standing_queries,
            "active": len(queries),
            "in_doubt": len(self._engine.session.queries_in_doubt()),
            "read_ahead": f"{ahead.frames} of {ahead.of} key frames",
            "read_ahead_time_share": f"{ahead.share:.2f}",
            "newest_expression": queries[-1].expression if queries else "",
            "mllm_model": self._node.get_parameter("mllm_model").value,
            "tracker_model": self._node.get_parameter("tracker_model").value,
        }
        return self._status("queries", health.problem, health.level, values)

    def _status(self, part: str, problem: str, level: bytes, values: Mapping[str, object]) -> DiagnosticStatus:
        """One entry; ``level`` holds if there is a problem."""
        return DiagnosticStatus(
            level=level if problem else DiagnosticStatus.OK,
            name=f"{self._node.get_fully_qualified_name()}: {part}",
            message=brief(problem, _LONGEST_MESSAGE) or "ok",
            hardware_id="decaf_ros",
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )


def process_memory_mib() -> float:
    """Resident memory of this process."""
    return psutil.Process(os.getpid()).memory_info().rss / 2**20


def _text(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else brief(value)
