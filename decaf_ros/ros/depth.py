"""The depth camera: which depth image belongs to which camera image, and the intrinsics of both."""

from __future__ import annotations

import threading

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from decaf_ros.datatypes import Frame
from decaf_ros.geometry import DepthView, Intrinsics, metres_from_depth
from decaf_ros.imaging import stamp_to_ns

try:
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter
except ImportError:
    from decaf_ros.ros.synchronizer import ApproximateTimeSynchronizer, SimpleFilter

DEPTH_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
# Images, and depth images, that wait for their counterpart.
_WAITING = 10
# Depth images that wait for the masks of their frame: a second of a 30 Hz camera.
_PAIRS_KEPT = 30
_WARNING_PERIOD_SECONDS = 5.0
# Some drivers call millimetres mono16.
_DEPTH_TYPES: dict[str, np.dtype] = {
    "32FC1": np.dtype(np.float32),
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
}


class DepthCamera:
    """Listens to ``depth`` and ``camera_info``, and finds the depth of a frame once its masks are there.

    Images and depth images are paired by message_filters' rule, within ``depth_slop_seconds`` (a parameter of the node). Images
    come from the node's own subscription through :meth:`note_image`, so colour never waits for depth. Of ``camera_info`` the
    newest holds: intrinsics hardly change, and some drivers publish them seldom or with stamps of their own. Thread-safe.

    Args:
        node: for subscriptions, the parameter and warnings.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._group = MutuallyExclusiveCallbackGroup()
        self._subscriptions: list[Subscription] = []
        self._lock = threading.Lock()
        self._info: CameraInfo | None = None
        self._pairs: dict[int, Image] = {}
        self._newest_image_ns = 0
        self._received = self._used = self._missing = self._rejected = 0
        self._problem = ""
        self._connect()

    def subscribe(self) -> None:
        """Listen from now on."""
        self._subscriptions = [
            self._node.create_subscription(CameraInfo, "camera_info", self._on_info, DEPTH_QOS, callback_group=self._group),
            self._node.create_subscription(Image, "depth", self._on_depth, DEPTH_QOS, callback_group=self._group),
        ]

    def unsubscribe(self) -> None:
        """Listen no more, if it did, and forget what was heard."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._info = None
        self._problem = ""
        self._connect()

    def note_image(self, image: Image | CompressedImage) -> None:
        """Tell of a camera image that came in; to be called for each one, in the image's callback."""
        stamp_ns = stamp_to_ns(image.header.stamp)
        if stamp_ns < self._newest_image_ns:
            # A bag that starts over. The synchronizer would keep the latest stamps, and never pair the earlier ones again.
            self._connect()
        self._newest_image_ns = stamp_ns
        self._images.signalMessage(image)

    def is_there(self, frame: Frame) -> bool:
        """Whether the depth image of a frame has come."""
        with self._lock:
            return frame.stamp_ns in self._pairs

    def view_of(self, frame: Frame) -> DepthView | None:
        """The depth image of a frame; ``None``, counted and with the reason for /diagnostics, when there is none.

        To be asked once for each frame, in the order of their stamps: with a depth image go all that are older.
        """
        depth = self._take(frame.stamp_ns)
        if depth is None or self._info is None:
            self._missing += 1
            self._problem = self._what_is_missing()
            return None
        try:
            view = depth_view(depth, self._info, frame.size_hw)
        except ValueError as error:
            self._rejected += 1
            self._problem = f"depth image rejected: {error}"
            self._node.get_logger().warning(self._problem, throttle_duration_sec=_WARNING_PERIOD_SECONDS)
            return None
        self._used += 1
        self._problem = _frame_id_problem(depth.header.frame_id, frame.frame_id)
        return view

    def problem(self) -> str:
        """What was wrong with the depth of the last frame that it was asked for; "" for nothing."""
        return self._problem

    def values(self) -> dict[str, object]:
        """What became of the depth images, for /diagnostics."""
        return {
            "camera_info": "received" if self._info else "none",
            "depth_received": self._received,
            "frames_with_depth": self._used,
            "frames_without_depth": self._missing,
            "depth_rejected": self._rejected,
        }

    def _connect(self) -> None:
        """Start with empty queues."""
        slop = float(self._node.get_parameter("depth_slop_seconds").value)
        self._images, self._depths = SimpleFilter(), SimpleFilter()
        pairs = ApproximateTimeSynchronizer([self._images, self._depths], _WAITING, slop)
        pairs.registerCallback(self._keep)
        with self._lock:
            self._pairs = {}

    def _on_info(self, info: CameraInfo) -> None:
        self._info = info

    def _on_depth(self, depth: Image) -> None:
        self._received += 1
        self._depths.signalMessage(depth)

    def _keep(self, image: Image | CompressedImage, depth: Image) -> None:
        with self._lock:
            self._pairs[stamp_to_ns(image.header.stamp)] = depth
            if len(self._pairs) > _PAIRS_KEPT:
                del self._pairs[next(iter(self._pairs))]

    def _take(self, stamp_ns: int) -> Image | None:
        with self._lock:
            depth = self._pairs.get(stamp_ns)
            if depth is not None:
                self._pairs = {stamp: each for stamp, each in self._pairs.items() if stamp > stamp_ns}
            return depth

    def _what_is_missing(self) -> str:
        for heard, topic in ((self._received, "depth"), (self._info, "camera_info")):
            if not heard:
                name = self._node.resolve_topic_name(topic)
                publishers = self._node.count_publishers(name)
                return f"nothing came on {name}, which has {publishers} publishers: check the topic (remap {topic}:=...)"
        slop = float(self._node.get_parameter("depth_slop_seconds").value)
        return (
            f"no depth image came within {slop:g} s of the image's stamp, or it came too late: is the depth camera slow, "
            "or are the cameras not synchronised (depth_slop_seconds)?"
        )


def depth_view(depth: Image, info: CameraInfo, image_size_hw: tuple[int, int]) -> DepthView:
    """Decode a depth image and scale the intrinsics to it.

    Args:
        depth: 32FC1 in metres or 16UC1 in millimetres, of the same view as the camera image.
        info: of the camera image or of the depth image.
        image_size_hw: height and width of the camera image.

    Raises:
        ValueError: a broken image, another encoding, an uncalibrated camera, or images that cannot show the same view.
    """
    metres = metres_from_depth(depth_samples(depth))
    height, width = metres.shape
    return DepthView(metres, intrinsics_from_info(info).scaled_to(image_size_hw).scaled_to((height, width)))


def depth_samples(image: Image) -> np.ndarray:
    """``(H, W)`` in native byte order: float32 metres of 32FC1, uint16 millimetres of 16UC1; see :func:`depth_view`."""
    if image.encoding not in _DEPTH_TYPES:
        raise ValueError(f"its encoding is '{image.encoding}', but depth is 32FC1 (metres) or 16UC1 (millimetres)")
    native = _DEPTH_TYPES[image.encoding]
    row_bytes, data_bytes = image.width * native.itemsize, image.height * image.step
    if 0 in (image.width, image.height) or image.step < row_bytes or len(image.data) < data_bytes:
        raise ValueError(
            f"{image.width}x{image.height} pixels of {native.itemsize} bytes do not fit a step of {image.step} and "
            f"{len(image.data)} bytes of data; check the driver of the depth camera"
        )
    stored = native.newbyteorder(">" if image.is_bigendian else "<")
    samples: np.ndarray = np.ndarray(
        (image.height, image.width), stored, buffer=image.data, strides=(image.step, native.itemsize)
    )
    return samples.astype(native, copy=False)


def intrinsics_from_info(info: CameraInfo) -> Intrinsics:
    """The pinhole of a rectified image, binned and cut as it says: ``p`` if it is given, as in depth_image_proc, else ``k``.

    Raises:
        ValueError: no size, or no focal length: the camera is not calibrated.
    """
    if info.width == 0 or info.height == 0:
        raise ValueError("camera_info has no width and height: the camera is not calibrated")
    fx, fy, cx, cy = (info.p[0], info.p[5], info.p[2], info.p[6]) if info.p[0] > 0 else (*info.k[[0, 4]], *info.k[[2, 5]])
    region = info.roi
    width, height = region.width or info.width, region.height or info.height
    full = Intrinsics(fx, fy, cx - region.x_offset, cy - region.y_offset, (height, width))
    binned = (height // max(1, info.binning_y), width // max(1, info.binning_x))
    return full if binned == full.size_hw else full.scaled_to(binned)


def _frame_id_problem(depth_frame_id: str, image_frame_id: str) -> str:
    if depth_frame_id == image_frame_id:
        return ""
    return (
        f"depth is in frame '{depth_frame_id}', the image in '{image_frame_id}': places are wrong by what lies between, unless "
        "depth is registered to the image (such as RealSense's aligned_depth_to_color)"
    )
