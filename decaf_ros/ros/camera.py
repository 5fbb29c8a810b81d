"""The camera's topic: what is subscribed while the node is active, and which of its images are followed."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from decaf_ros.datatypes import Frame
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.ros.depth import DepthCamera
from decaf_ros.ros.images import ImageInput
from decaf_ros.ros.statistics import CameraStatistics
from decaf_ros.session.engine import Engine

# Latest frame wins: a queue of images would only make masks late.
CAMERA_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class OldImageError(ValueError):
    """An image is older than the parameter ``max_frame_age_seconds`` allows."""


class Camera:
    """Hands images of the topic ``image`` to the engine, undecoded.

    Args:
        node: for subscription, clock and parameters.
        images: where the images come from.
        engine: follows the images.
        statistics: counts them.
        depth: hears of every image, and listens while the camera is listened to; ``None`` for a camera without depth.
    """

    def __init__(
        self, node: Node, images: ImageInput, engine: Engine, statistics: CameraStatistics, depth: DepthCamera | None
    ) -> None:
        self.topic = images.topic
        self._node = node
        self._images = images
        self._engine = engine
        self._statistics = statistics
        self._depth = depth
        self._group = MutuallyExclusiveCallbackGroup()
        self._subscription: Subscription[Any] | None = None

    def subscribe(self) -> None:
        """Listen from now on."""
        self._statistics.start()
        if self._depth is not None:
            self._depth.subscribe()
        self._subscription = self._images.subscribe(self._on_image, CAMERA_QOS, self._group)

    def unsubscribe(self) -> None:
        """Listen no more, if it did."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        if self._depth is not None:
            self._depth.unsubscribe()

    def problem(self) -> str:
        """That no image comes, or that none can be followed, and since when; "" for neither, or when nobody listens."""
        if self._subscription is None:
            return ""
        if self._statistics.clock_stands_at_zero:
            return "use_sim_time is set, but no time came on /clock: start what publishes it, or unset use_sim_time"
        silent, blind = self._statistics.silent_seconds, self._statistics.blind_seconds
        limit = float(self._node.get_parameter("camera_timeout_seconds").value)
        if silent > limit:
            return f"no image for {silent:.1f} s: {self._whereabouts()}"
        obstacle = self._statistics.obstacle
        return f"no image could be followed for {blind:.1f} s: {obstacle}" if obstacle and blind > limit else ""

    def hint(self) -> str:
        """Where to look when there is no frame: why those that came were not followed, else where they should come from."""
        return self._statistics.obstacle or self._whereabouts()

    def _whereabouts(self) -> str:
        return (
            f"{self._node.count_publishers(self.topic)} publishers on {self.topic}, subscribed best effort, volatile, depth 1; "
            "check the topic (remap image:=...), the camera and ROS_DOMAIN_ID"
        )

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.note_arrival(stamp_to_ns(message.header.stamp))
        if self._depth is not None:
            self._depth.expect_image(message)
        self._engine.submit(lambda: self._frame(message))

    def _frame(self, message: Image | CompressedImage) -> Frame:
        """The image, when its turn has come. The live thread reports the error to the engine's listener."""
        limit = float(self._node.get_parameter("max_frame_age_seconds").value)
        age = self._statistics.age_ns(stamp_to_ns(message.header.stamp)) * 1e-9
        if limit > 0 and age > limit:
            self._statistics.note_old()
            raise OldImageError(
                f"its stamp is {age:.3f} s old by the node's clock, max_frame_age_seconds is {limit:g}: is the network slow, "
                "are the clocks of two machines apart, or is this a bag and use_sim_time not set?"
            )
        frame = self._images.frame(message)
        if self._depth is not None:
            self._depth.note_image(message)
        return frame
