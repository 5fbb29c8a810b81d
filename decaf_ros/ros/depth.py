"""The depth camera: which depth image belongs to which camera image, and the intrinsics of both."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from decaf_ros.datatypes import Frame
from decaf_ros.geometry import DepthView, Intrinsics, metres_from_depth
from decaf_ros.image_files import check_size
from decaf_ros.imaging import checked_stamp_ns, stamp_to_ns
from decaf_ros.ros.qos import LATCHED_QOS
from decaf_ros.session.stamps import StampWatch
from decaf_ros.text import quoted

try:
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter
except ImportError:
    from decaf_ros.ros.synchronizer import ApproximateTimeSynchronizer, SimpleFilter

DEPTH_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_TOPICS = 2
# Images, and depth images, that wait for their counterpart.
_WAITING = 10
# Depth images of frames that are being followed, or wait to be published; there are no more than a few.
_PAIRS_KEPT = 8
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
    come through :meth:`note_image`, so colour never waits for depth, and only those that are followed: a slower depth camera is
    not spent on others. What belongs to an image that waits for its turn is held for it, and what belongs to one that is
    followed until its masks are there, however long that takes. Of ``camera_info`` the newest holds, also from before a
    deactivation: intrinsics hardly change, and some drivers publish them seldom, once, or with stamps of their own.
    Thread-safe.

    Args:
        node: for subscriptions, the parameters and warnings.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._group = MutuallyExclusiveCallbackGroup()
        self._subscriptions: list[Subscription] = []
        self._lock = threading.Lock()
        self._info: CameraInfo | None = None
        self._pairs: dict[int, Image] = {}
        self._stamps = {"image": StampWatch(), "depth": StampWatch()}
        self._recent: deque[Image] = deque(maxlen=_WAITING)
        self._reserved: dict[int, Image | None] = {}
        self._heard = False
        self._received = self._used = self._missing = self._rejected = 0
        self._problem = ""
        self._connect()

    def subscribe(self) -> None:
        """Listen from now on."""
        with self._lock:
            self._subscriptions = [
                self._node.create_subscription(CameraInfo, "camera_info", self._on_info, DEPTH_QOS, callback_group=self._group),
                self._node.create_subscription(Image, "depth", self._on_depth, DEPTH_QOS, callback_group=self._group),
            ]

    def unsubscribe(self) -> None:
        """Listen no more, if it did, and forget what was heard, but for the intrinsics."""
        with self._lock:
            subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)
        self._heard = False
        self._problem = ""
        self._connect()

    def expect_image(self, image: Image | CompressedImage) -> None:
        """Tell of a camera image that came in and may be followed later: its depth may be long overtaken by then."""
        stamp_ns = stamp_to_ns(image.header.stamp)
        with self._lock:
            # Of the image that is about to be taken, and of the one that waits behind it.
            self._reserved = dict([*self._reserved.items(), (stamp_ns, None)][-2:])
            for depth in self._recent:
                self._reserve(depth)

    def note_image(self, image: Image | CompressedImage) -> None:
        """Tell of a camera image that is about to be followed, before its depth is asked for."""
        stamp_ns = stamp_to_ns(image.header.stamp)
        self._note_stamp("image", stamp_ns)
        self._images.signalMessage(image)
        with self._lock:
            reserved = self._reserved.get(stamp_ns)
            if reserved is not None and stamp_ns not in self._pairs:
                self._pair(stamp_ns, reserved)

    def is_there(self, frame: Frame) -> bool:
        """Whether the depth image of a frame has come."""
        with self._lock:
            return frame.stamp_ns in self._pairs

    def view_of(self, frame: Frame) -> DepthView | None:
        """The depth image of a frame; ``None``, counted and with the reason for /diagnostics, when there is none.

        To be asked once for each frame, in the order of their stamps: with a depth image go all that are older.
        """
        depth, info = self._take(frame.stamp_ns), self._info
        if depth is None or info is None:
            self._missing += 1
            self._problem = self._what_is_missing()
            return None
        try:
            view = depth_view(depth, info, frame.size_hw, int(self._node.get_parameter("max_image_pixels").value))
        except ValueError as error:
            self._reject(error)
            return None
        self._used += 1
        self._problem = _frame_id_problem(depth.header.frame_id, frame.frame_id)
        return view

    def problem(self) -> str:
        """What was wrong with the depth of the last frame that it was asked for; "" for nothing."""
        return self._problem

    def forget_problem(self) -> None:
        """Nobody asks for depth any more: what was wrong with it may have passed."""
        self._problem = ""

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
        self._slop_ns = int(slop * 1e9)
        self._images, self._depths = SimpleFilter(), SimpleFilter()
        pairs = ApproximateTimeSynchronizer([self._images, self._depths], _WAITING, slop)
        pairs.registerCallback(self._keep)
        with self._lock:
            self._pairs = {}
            self._recent.clear()

    def _on_info(self, info: CameraInfo) -> None:
        self._info = info

    def _reject(self, error: ValueError) -> None:
        self._rejected += 1
        self._problem = f"depth image rejected: {error}"
        self._node.get_logger().warning(self._problem, throttle_duration_sec=_WARNING_PERIOD_SECONDS)

    def _on_depth(self, depth: Image) -> None:
        self._received += 1
        self._heard = True
        try:
            stamp_ns = checked_stamp_ns(depth.header.stamp)
        except ValueError as error:  # message_filters has no such stamps
            self._reject(error)
            return
        self._note_stamp("depth", stamp_ns)
        with self._lock:
            self._recent.append(depth)
            self._reserve(depth)
        self._depths.signalMessage(depth)

    def _reserve(self, depth: Image) -> None:
        """For images that wait to be followed, when it is the closest to one of them."""
        depth_ns = stamp_to_ns(depth.header.stamp)
        for stamp_ns, reserved in self._reserved.items():
            best_ns = self._slop_ns if reserved is None else abs(stamp_to_ns(reserved.header.stamp) - stamp_ns)
            if abs(depth_ns - stamp_ns) < best_ns:
                self._reserved[stamp_ns] = depth

    def _note_stamp(self, topic: str, stamp_ns: int) -> None:
        """Start with empty queues when time went back, as when a bag starts over or a clock is set.

        The synchronizer keeps what has the latest stamps, and so would pair nothing until time is there again.
        """
        limit_s = float(self._node.get_parameter("time_jump_seconds").value)
        if self._stamps[topic].starts_anew(stamp_ns, limit_s):
            self._connect()

    def _keep(self, image: Image | CompressedImage, depth: Image) -> None:
        with self._lock:
            self._pair(stamp_to_ns(image.header.stamp), depth)

    def _pair(self, stamp_ns: int, depth: Image) -> None:
        self._pairs[stamp_ns] = depth
        if len(self._pairs) > _PAIRS_KEPT:
            del self._pairs[next(iter(self._pairs))]

    def _take(self, stamp_ns: int) -> Image | None:
        with self._lock:
            depth = self._pairs.get(stamp_ns)
            if depth is not None:
                self._pairs = {stamp: each for stamp, each in self._pairs.items() if stamp > stamp_ns}
            return depth

    def _what_is_missing(self) -> str:
        for heard, topic in ((self._heard, "depth"), (self._info, "camera_info")):
            if not heard:
                name = self._node.resolve_topic_name(topic)
                if topic == "camera_info":
                    self._ask_for_latched_info(name)
                publishers = self._node.count_publishers(name)
                return f"nothing came on {name}, which has {publishers} publishers: check the topic (remap {topic}:=...)"
        slop = float(self._node.get_parameter("depth_slop_seconds").value)
        return (
            f"no depth image came within {slop:g} s of the image's stamp, or it came too late: is the depth camera slow, "
            "or are the cameras not synchronised (depth_slop_seconds)?"
        )

    def _ask_for_latched_info(self, name: str) -> None:
        """Subscribe once more if somebody sends camera_info but once, for those who ask for what was sent before they came.

        Only then: publishers that keep nothing warn of whoever asks.
        """
        offered = self._node.get_publishers_info_by_topic(name)
        if not any(each.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in offered):
            return
        with self._lock:
            if len(self._subscriptions) == _TOPICS:  # neither asked before, nor unsubscribed
                self._subscriptions.append(
                    self._node.create_subscription(
                        CameraInfo, "camera_info", self._on_info, LATCHED_QOS, callback_group=self._group
                    )
                )


def depth_view(depth: Image, info: CameraInfo, image_size_hw: tuple[int, int], max_pixels: int | None = None) -> DepthView:
    """Decode a depth image and scale the intrinsics to it.

    Args:
        depth: 32FC1 in metres or 16UC1 in millimetres, of the same view as the camera image.
        info: of the camera image or of the depth image.
        image_size_hw: height and width of the camera image.
        max_pixels: larger depth images are refused.

    Raises:
        ValueError: a broken or too large image, another encoding, a camera that is not calibrated or could not exist, or images
            that cannot show the same view.
    """
    check_size(depth.width, depth.height, max_pixels)
    metres = metres_from_depth(depth_samples(depth))
    height, width = metres.shape
    return DepthView(metres, intrinsics_from_info(info).scaled_to(image_size_hw).scaled_to((height, width)))


def depth_samples(image: Image) -> np.ndarray:
    """``(H, W)`` in native byte order: float32 metres of 32FC1, uint16 millimetres of 16UC1; see :func:`depth_view`."""
    if image.encoding not in _DEPTH_TYPES:
        raise ValueError(f"its encoding is {quoted(image.encoding)}, but depth is 32FC1 (metres) or 16UC1 (millimetres)")
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
    across, down = max(1, info.binning_x), max(1, info.binning_y)
    # Pixel centres are at integers: the corner of the region, at -0.5, stays where it is.
    cx, cy = (cx - region.x_offset + 0.5) / across - 0.5, (cy - region.y_offset + 0.5) / down - 0.5
    return Intrinsics(fx / across, fy / down, cx, cy, (height // down, width // across))


def _frame_id_problem(depth_frame_id: str, image_frame_id: str) -> str:
    if depth_frame_id == image_frame_id:
        return ""
    return (
        f"depth is in frame {quoted(depth_frame_id)}, the image in {quoted(image_frame_id)}: places are wrong by what lies "
        "between, unless depth is registered to the image (such as RealSense's aligned_depth_to_color)"
    )
