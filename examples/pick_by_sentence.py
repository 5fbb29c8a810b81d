"""Picks up what a sentence describes: "the can that was moved". A ROS client to copy from: topics, an action and tf only.

It asks decaf_node, reads where the answer is in space, has the arm pick it up, and checks by a second sentence what it holds.
To try it on the simulated table, run each of these in a terminal of its own:

    decaf_sim_camera --ros-args -p seeds:="[7]" -p depth:=true
    decaf_node --ros-args -p depth:=true
    python3 examples/pick_by_sentence.py "the largest object"

For your own robot replace ``Arm`` by what moves it. The exit status is 0 if it holds what was asked for, as far as it can tell.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PointStamped, Quaternion, TransformStamped
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from rclpy.utilities import remove_ros_args
from std_msgs.msg import Header

from decaf_ros.action import TrackByLanguage
from decaf_ros.msg import TrackedObject3DArray

try:
    import tf2_ros
except ImportError:  # ROS from wheels has no tf2
    tf2_ros = None

HELD = "what the robot is holding"
SAME_METRES = 0.05  # two finds that are nearer to each other than this are one thing
PATIENCE_S = 60.0


class PickError(Exception):
    """Something did not come off; the message says what."""


class Client(Node):
    """Spins only while it waits: everything happens one after the other."""

    def __init__(self) -> None:
        super().__init__("pick_by_sentence")
        self.objects: TrackedObject3DArray | None = None
        self._tracking = ActionClient(self, TrackByLanguage, "decaf_node/track_by_language")
        self.create_subscription(TrackedObject3DArray, "decaf_node/objects_3d", self._on_objects, 5)

    def _on_objects(self, message: TrackedObject3DArray) -> None:
        self.objects = message

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
        """The first true value of a condition, which messages bring about."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise PickError(f"waited {seconds:g} s in vain for {what}")
            rclpy.spin_once(self, timeout_sec=0.1)
        return value

    def find(self, sentence: str, replace: bool) -> int:
        """Ask; the id of the object that fits best. Others are tracked, too, unless they are replaced."""
        self.until(self._tracking.server_is_ready, "decaf_node to be active")
        sent = self._tracking.send_goal_async(TrackByLanguage.Goal(expression=sentence, replace=replace))
        goal = self.until(lambda: sent.done() and sent.result(), "the question to be taken")
        asked = goal.get_result_async()
        answer = self.until(lambda: asked.done() and asked.result().result, f'an answer to "{sentence}"')
        if not answer.success:
            raise PickError(f'"{sentence}" was not found: {answer.message}')
        best = max(answer.objects, key=lambda each: each.score)
        print(f'"{sentence}": {answer.object_name} #{best.id}, after {answer.latency.total_ms / 1e3:.1f} s', flush=True)
        return best.id

    def where(self, object_id: int) -> PointStamped:
        """Where an object is from now on, in the camera's frame: the middle of the surface that the camera sees."""
        now = self.get_clock().now()

        def seen() -> PointStamped | None:
            message = self.objects
            if message is None or Time.from_msg(message.header.stamp) < now:
                return None
            found = [each for each in message.objects if each.id == object_id]
            return PointStamped(header=message.header, point=found[0].position) if found else None

        return self.until(seen, f"object #{object_id} to be seen in space, with the camera's depth")


class Frames:
    """Takes points from one frame to another, by tf2.

    Where there is no tf2, it takes the simulated camera's transforms from a topic of their own.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transforms: deque[TransformStamped] = deque(maxlen=200)
        if tf2_ros is not None:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, client)
        else:
            client.create_subscription(TransformStamped, "camera_transform", self._on_transform, 10)

    def _on_transform(self, message: TransformStamped) -> None:
        self._transforms.append(message)

    def take(self, point: PointStamped, frame: str) -> PointStamped:
        """The same point in another frame, at the time of its stamp."""
        transform = self._client.until(lambda: self._find(point.header, frame), f"where {point.header.frame_id} is in {frame}")
        x, y, z = np.array(_xyz(transform.transform.translation)) + _rotated(_xyz(point.point), transform.transform.rotation)
        taken = PointStamped(header=transform.header)
        taken.point.x, taken.point.y, taken.point.z = float(x), float(y), float(z)
        return taken

    def _find(self, header: Header, frame: str) -> TransformStamped | None:
        if tf2_ros is not None:
            if not self._buffer.can_transform(frame, header.frame_id, Time.from_msg(header.stamp)):
                return None
            return self._buffer.lookup_transform(frame, header.frame_id, Time.from_msg(header.stamp))
        wanted = (frame, header.frame_id, header.stamp)
        return next((each for each in self._transforms if _key(each) == wanted), None)


class Arm:
    """The arm of the simulated table: one topic for each thing that it can do, and one that tells what became of it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._status: list[dict[str, str]] = []
        self._pick = client.create_publisher(PointStamped, "arm/pick", 1)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        client.create_subscription(DiagnosticStatus, "arm/status", self._on_status, latched)

    def _on_status(self, message: DiagnosticStatus) -> None:
        self._status.append({pair.key: pair.value for pair in message.values} | {"message": message.message})

    def wait_until_idle(self) -> None:
        """Wait for whatever it is at."""
        self._client.until(lambda: self._status and self._status[-1]["state"] == "idle", "the arm to be idle")

    def pick(self, point: PointStamped) -> None:
        """Pick up what is at a point, and wait until it has been."""
        stamp = point.header.stamp
        mine = str(stamp.sec * 1_000_000_000 + stamp.nanosec)
        self._client.until(self._pick.get_subscription_count, "the arm to listen")
        self._status.clear()
        self._pick.publish(point)

        def ended() -> dict[str, str] | None:
            ends = ("done", "failed", "refused")
            return next((each for each in self._status if each["stamp"] == mine and each["outcome"] in ends), None)

        status = self._client.until(ended, "the arm to pick")
        if status["outcome"] != "done":
            raise PickError(f"the arm {status['outcome']} to pick at {_told(point)}: {status['message']}")


def pick(client: Client, sentence: str, frame: str) -> str:
    """Pick up what a sentence describes; returns what the hand seems to hold."""
    frames, arm = Frames(client), Arm(client)
    wanted = client.find(sentence, replace=True)
    arm.wait_until_idle()
    place = frames.take(client.where(wanted), frame)
    print(f"it is at {_told(place)} in {frame}: picking it up", flush=True)
    arm.pick(place)
    held = client.find(HELD, replace=False)  # looks at the last seconds anew, knowing nothing of the first answer
    apart = np.linalg.norm(np.subtract(_xyz(client.where(held).point), _xyz(client.where(wanted).point)))
    if apart > SAME_METRES:
        raise PickError(f"what the hand seems to hold is {100 * apart:.0f} cm away from what was asked for")
    return f'it seems to hold "{sentence}": both sentences mean the same thing'


def _key(transform: TransformStamped) -> tuple[str, str, Any]:
    return transform.header.frame_id, transform.child_frame_id, transform.header.stamp


def _xyz(vector: Any) -> tuple[float, float, float]:
    return vector.x, vector.y, vector.z


def _rotated(point: tuple[float, float, float], rotation: Quaternion) -> np.ndarray:
    """A point turned by a unit quaternion."""
    axis = np.array(_xyz(rotation))
    return point + 2 * rotation.w * np.cross(axis, point) + 2 * np.cross(axis, np.cross(axis, point))


def _told(point: PointStamped) -> str:
    return f"({point.point.x:.2f}, {point.point.y:.2f}, {point.point.z:.2f})"


def main() -> int:
    """Pick; the exit status says whether it seems to have come off."""
    parser = argparse.ArgumentParser(description="Picks up what a sentence describes, and checks what it holds.")
    parser.add_argument("sentence", nargs="?", default="the object that was moved", help='default: "%(default)s"')
    parser.add_argument("--frame", default="table", help="the frame that the arm works in (default: %(default)s)")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    client = Client()
    try:
        print(pick(client, arguments.sentence, arguments.frame))
    except PickError as reason:
        print(f"it did not come off: {reason}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        client.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
