"""The arm of the simulated table on topics: pick, place and push by points in space, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PointStamped, PolygonStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header, UInt16

from decaf_ros.imaging import stamp_to_ns
from decaf_ros.ros.qos import LATCHED_QOS
from decaf_ros.synthetic.table.live import ArmState, LiveTable
from decaf_ros.synthetic.table.reel import Showing
from decaf_ros.text import brief, quoted

_ORDERS_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_MOST_WAITING = 100
_LEVELS = {"failed": DiagnosticStatus.ERROR, "refused": DiagnosticStatus.WARN}


class ArmTopics:
    """Takes orders on ``arm/pick``, ``arm/place`` (PointStamped) and ``arm/push`` (PolygonStamped of two points: from, to).

    Points are in the table's frame or in the camera's; the height of where something is to go does not matter. One order at a
    time: the arm, when it is busy, refuses others. ``arm/status`` (DiagnosticStatus, latched) tells what changes, in values:

    - ``state``: ``idle`` or ``busy``
    - ``order``: ``pick``, ``place``, ``push``, or ``script`` for what the scene has the arm do before it takes orders
    - ``stamp``: of the order's header, in nanoseconds, by which the one who gave it knows it; 0 for the script
    - ``outcome``: ``under way``, ``done``, ``failed`` or ``refused``; the reason is the status's ``message``
    - ``holds``: ``true`` or ``false``: whether there is something between the fingers

    ``ground_truth/held`` (UInt16, latched) is the label of what that is, 0 for nothing.

    Args:
        node: whose topics they are.
        table_frame, camera_frame: names of the frames.
    """

    def __init__(self, node: Node, table_frame: str, camera_frame: str) -> None:
        self._logger = node.get_logger()
        self._frames = {"": False, table_frame: False, camera_frame: True}  # whether it is the camera's
        self._orders: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._status = node.create_publisher(DiagnosticStatus, "arm/status", LATCHED_QOS)
        self._held = node.create_publisher(UInt16, "ground_truth/held", LATCHED_QOS)
        self._table: LiveTable | None = None
        self._told: tuple[ArmState, int | None] | None = None
        self._stamp_ns = 0
        for order, kind in (("pick", PointStamped), ("place", PointStamped), ("push", PolygonStamped)):
            node.create_subscription(kind, f"arm/{order}", partial(self._note, order), _ORDERS_QOS)

    def serve(self, showing: Showing) -> None:
        """Give the table the orders that came since the last time, and tell what the arm is at. One thread may call it."""
        if showing.table is not self._table:
            self._table, self._told, self._stamp_ns = showing.table, None, 0
        with suppress(Empty):
            while True:
                self._obey(*self._orders.get_nowait(), showing)
        self._tell(showing.table)

    def _note(self, order: str, message: Any) -> None:
        if self._orders.qsize() < _MOST_WAITING:  # else somebody floods it before there is a table
            self._orders.put((order, message))

    def _obey(self, order: str, message: Any, showing: Showing) -> None:
        points = [message.point] if order != "push" else message.polygon.points
        stamp_ns = stamp_to_ns(message.header.stamp)
        try:
            if order == "push" and len(points) != 2:
                raise ValueError(f"push takes two points, from and to, got {len(points)}")
            showing.table.order(order, *self._in_world(points, message.header, showing))
        except ValueError as error:
            self._logger.warning(f"the arm refuses to {order}: {brief(error)}")
            self._status.publish(_status(showing.table.arm, order, stamp_ns, "refused", brief(error)))
        else:
            self._logger.info(f"the arm is to {order}")
            self._stamp_ns = stamp_ns

    def _in_world(self, points: Sequence[Any], header: Header, showing: Showing) -> list[npt.NDArray[np.float64]]:
        """The points in the table's frame.

        Raises:
            ValueError: the frame is unknown.
        """
        if header.frame_id not in self._frames:
            known = " and ".join(sorted(name for name in self._frames if name))
            raise ValueError(f"unknown frame {quoted(header.frame_id)}; known are {known}")
        pose = np.eye(4)
        if self._frames[header.frame_id]:
            stamp_ns = stamp_to_ns(header.stamp)
            time_s = showing.time_at(stamp_ns) if stamp_ns else showing.table.time_s  # 0 is now, as for tf
            pose = showing.table.scene.camera.world_from_camera(time_s)
        return [pose[:3, :3] @ [point.x, point.y, point.z] + pose[:3, 3] for point in points]

    def _tell(self, table: LiveTable) -> None:
        """Publish what has changed."""
        arm, held = table.arm, table.world.held
        before, self._told = self._told, (arm, held)
        if before is None or before[0] != arm:
            self._status.publish(_status(arm, arm.order, self._stamp_ns, arm.outcome, arm.reason))
            if arm.outcome == "failed":
                self._logger.warning(f"the arm failed to {arm.order}: {arm.reason}")
        if before is None or before[1] != held:
            self._held.publish(UInt16(data=0 if held is None else held + 1))


def _status(arm: ArmState, order: str, stamp_ns: int, outcome: str, message: str) -> DiagnosticStatus:
    values = {
        "state": "busy" if arm.busy else "idle",
        "order": order,
        "stamp": str(stamp_ns),
        "outcome": outcome,
        "holds": str(arm.holds).lower(),
    }
    level = _LEVELS.get(outcome, DiagnosticStatus.OK)
    return DiagnosticStatus(
        level=level, name="arm", message=message, values=[KeyValue(key=k, value=v) for k, v in values.items()]
    )
