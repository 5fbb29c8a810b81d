"""What the simulated camera publishes of a view of the table, each message only for a topic that somebody listens to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from decaf_ros.datatypes import Float32Array, UInt8Array
from decaf_ros.ros.conversions import image_from_array, jpeg_from_rgb, make_header
from decaf_ros.ros.publishers import is_heard, publish_heard
from decaf_ros.synthetic.table.rendering import View

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # of ROS from wheels it is no part
    TFMessage = None

_DEPTH = 10
_JPEG_QUALITY = 90
IMAGE_ENCODINGS = ("rgb8", "mono8")
DEPTH_ENCODINGS = ("32FC1", "16UC1")
RELIABILITIES = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


class ViewTopics:
    """``image``, ``image/compressed``, ``camera_info``, ``ground_truth`` and where the camera is, all with one stamp.

    ``ground_truth`` is mono16: ``i + 1`` on thing ``i``, 255 on the arm, 0 elsewhere. ``camera_transform`` (TransformStamped)
    takes points from the camera's optical frame to the table's; ``/tf`` says the same where tf2_msgs is installed.
    What belongs to an image is sent before it.

    Args:
        node: whose topics they are.
        table_frame, camera_frame: names of the frames.
        encoding: of :data:`IMAGE_ENCODINGS`.
        depth_encoding: of :data:`DEPTH_ENCODINGS`, in metres or millimetres, for ``depth``; None for no such topic.
        reliability: of :data:`RELIABILITIES`, for all but ``ground_truth`` and the transforms, which are reliable.
    """

    def __init__(
        self, node: Node, table_frame: str, camera_frame: str, encoding: str, depth_encoding: str | None, reliability: str
    ) -> None:
        qos, reliable = QoSProfile(depth=_DEPTH, reliability=RELIABILITIES[reliability]), QoSProfile(depth=_DEPTH)
        self._table_frame, self._camera_frame = table_frame, camera_frame
        self._encoding, self._depth_encoding = encoding, depth_encoding
        self._images = node.create_publisher(Image, "image", qos)
        self._jpegs = node.create_publisher(CompressedImage, "image/compressed", qos)
        self._camera_infos = node.create_publisher(CameraInfo, "camera_info", qos)
        self._depths = node.create_publisher(Image, "depth", qos) if depth_encoding else None
        self._truths = node.create_publisher(Image, "ground_truth", reliable)
        self._transforms = node.create_publisher(TransformStamped, "camera_transform", reliable)
        self._tf = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100)) if TFMessage else None

    @property
    def heard(self) -> bool:
        """Whether anybody listens to anything."""
        topics = (self._images, self._jpegs, self._camera_infos, self._depths, self._truths, self._transforms, self._tf)
        return is_heard(*(topic for topic in topics if topic is not None))

    def publish(self, view: View, stamp_ns: int) -> None:
        """Publish a view under the stamp of its time."""
        header = make_header(stamp_ns, self._camera_frame)
        in_table = make_header(stamp_ns, self._table_frame)
        transform = cache(lambda: _transform(view.world_from_camera, in_table, self._camera_frame))
        outputs: list[tuple[Publisher[Any] | None, Callable[[], object]]] = [
            (self._tf, lambda: TFMessage(transforms=[transform()])),
            (self._transforms, transform),
            (self._camera_infos, lambda: _camera_info(view, header)),
            (self._depths, lambda: _depth_image(view.depth_hw, str(self._depth_encoding), header)),
            (self._images, lambda: image_from_array(_encoded(view.image_rgb, self._encoding), self._encoding, header)),
            (self._jpegs, lambda: jpeg_from_rgb(view.image_rgb, header, _JPEG_QUALITY)),
            (self._truths, lambda: image_from_array(view.instances_hw.astype(np.uint16), "mono16", header)),
        ]
        publish_heard(*((topic, make_message) for topic, make_message in outputs if topic is not None))


def _encoded(image_rgb: UInt8Array, encoding: str) -> UInt8Array:
    return image_rgb if encoding == "rgb8" else np.asarray(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _transform(pose: np.ndarray, header: Header, child: str) -> TransformStamped:
    """A pose ``(4, 4)`` as a transform: the child's frame in the header's."""
    transform = TransformStamped(header=header, child_frame_id=child)
    x, y, z = map(float, pose[:3, 3])
    transform.transform.translation = Vector3(x=x, y=y, z=z)
    transform.transform.rotation = _quaternion(pose[:3, :3])
    return transform


def _quaternion(rotation: np.ndarray) -> Quaternion:
    """Of a rotation ``(3, 3)``, by its axis and angle; stable for every angle."""
    vector, _ = cv2.Rodrigues(rotation)
    angle = float(np.linalg.norm(vector))
    x, y, z = (np.sin(0.5 * angle) * vector.ravel() / angle).tolist() if angle > 0 else (0.0, 0.0, 0.0)
    return Quaternion(x=x, y=y, z=z, w=float(np.cos(0.5 * angle)))


def _camera_info(view: View, header: Header) -> CameraInfo:
    height, width = view.depth_hw.shape
    k = view.intrinsics
    return CameraInfo(
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([k, np.zeros(3)]).ravel(),
    )


def _depth_image(metres_hw: Float32Array, encoding: str, header: Header) -> Image:
    """Depth as an image message; where nothing was met it is not a number, or 0 millimetres."""
    if encoding == "32FC1":
        return image_from_array(np.where(metres_hw > 0, metres_hw, np.float32(np.nan)), encoding, header)
    image = image_from_array(np.round(metres_hw * 1e3).astype(np.uint16), "mono16", header)
    image.encoding = encoding  # the same bytes, other units
    return image
