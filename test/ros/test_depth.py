"""From depth images on a topic to objects, markers and points in space, over real DDS.

The masks are the test's own, so that every number is known; the node is a minimal one that wires depth as decaf_node does.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from filmed_table import BOX, OTHER_EXPRESSION, STILL, STILL_SCENE
from harness import NodeProcess, Recorder, stamps_of, wait_until
from rclpy.clock import ROSClock
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from decaf_ros.datatypes import Frame, ObjectMask, Segmentation, Visibility
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.msg import TrackedObject3D, TrackedObject3DArray
from decaf_ros.ros.camera import Camera
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import image_from_array, make_header
from decaf_ros.ros.depth import DepthCamera, depth_samples, depth_view, intrinsics_from_info
from decaf_ros.ros.images import ImageInput
from decaf_ros.ros.objects_3d import SpacePublisher
from decaf_ros.ros.statistics import CameraStatistics
from decaf_ros.session.engine import Engine

MS = 1_000_000
SECOND = 1000 * MS
SIZE_HW = (48, 64)
_NUMBERS = itertools.count()


class HeardDepth(DepthCamera):
    """Knows which depth images came in."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.stamps: set[int] = set()

    def _on_depth(self, depth: Image) -> None:
        super()._on_depth(depth)
        self.stamps.add(stamp_to_ns(depth.header.stamp))


class DepthNode(Node):
    """Hears images and depth as decaf_node does, and publishes what it is told to be on an image. It is its own engine."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        for parameter, value in (("depth_slop_seconds", 0.05), ("time_jump_seconds", 1.0), ("max_frame_age_seconds", 0.0)):
            self.declare_parameter(parameter, value)
        self.declare_parameter("max_image_pixels", 640 * 480)
        self.depth = HeardDepth(self)
        self.space = SpacePublisher(self, self.depth)
        self.frames: dict[int, Frame] = {}
        self.arrived = 0
        self.slot: Callable[[], Frame]
        self.is_busy = False
        statistics = CameraStatistics(cast(ROSClock, self.get_clock()))
        self.camera = Camera(self, ImageInput(self, "raw"), cast(Engine, self), statistics, self.depth)
        self.camera.subscribe()
        self.create_subscription(Image, "ground_truth", self._on_truth, 10)

    def count(self, name: str) -> int:
        """A counter of the diagnostics."""
        return int(str(self.depth.values()[name]))

    def submit(self, decode: Callable[[], Frame]) -> None:
        """Follow an image, unless masks of another are computed."""
        self.slot = decode
        if self.is_busy:
            self.arrived += 1
        else:
            self.take()

    def take(self) -> Frame:
        """Follow the image that waits."""
        frame = self.slot()
        self.frames[frame.stamp_ns] = frame
        return frame

    def _on_truth(self, truth: Image) -> None:
        """Ground truth of the simulated camera: thing ``i`` is object ``i + 1``."""
        frame = self.frames.get(stamp_to_ns(truth.header.stamp))
        if frame is not None:
            instances = np.frombuffer(truth.data, np.uint16).reshape(frame.size_hw)
            masks = [instances == label for label in range(1, len(STILL_SCENE.things) + 1)]
            self.space.publish(segmentation_of(frame, *masks))


def segmentation_of(frame: Frame, *masks: np.ndarray) -> Segmentation:
    """Objects 1, 2, ... with these masks."""
    objects = [
        ObjectMask(number, 4, f"box {number}", mask, 0.9, 0.9, Visibility.VISIBLE) for number, mask in enumerate(masks, start=1)
    ]
    return Segmentation(frame, tuple(objects))


def depth_image(stamp_ns: int, frame_id: str = "camera") -> Image:
    """The left half at 1 m, the right half at 2 m."""
    metres = np.full(SIZE_HW, 1.0, np.float32)
    metres[:, SIZE_HW[1] // 2 :] = 2.0
    return image_from_array(metres, "32FC1", make_header(stamp_ns, frame_id))


def camera_info() -> CameraInfo:
    height, width = SIZE_HW
    return CameraInfo(height=height, width=width, k=[64.0, 0.0, 31.5, 0.0, 64.0, 23.5, 0.0, 0.0, 1.0])


class Rig:
    """A depth camera, a colour camera and a node that hears both."""

    def __init__(self, name: str) -> None:
        self.node = DepthNode(name)
        self.client = DecafClient(f"/{name}", f"{name}_client")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._images, self._depths, self._infos = (
            self.client.node.create_publisher(kind, topic, 10)
            for kind, topic in ((Image, "image"), (Image, "depth"), (CameraInfo, "camera_info"))
        )
        self.now_ns = 100 * SECOND

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.client.close()
        self.node.destroy_node()

    def send_info(self) -> None:
        self._send(lambda: self._infos.publish(camera_info()), lambda: self.node.depth.values()["camera_info"] == "received")

    def send_depth(self, depth: Image) -> None:
        stamp_ns = stamp_to_ns(depth.header.stamp)
        self._send(lambda: self._depths.publish(depth), lambda: stamp_ns in self.node.depth.stamps)

    def send_image(self, stamp_ns: int) -> Segmentation:
        """Two objects, of 28 x 44 and 28 x 40 pixels without their rim of 1 pixel, 4 pixels apart."""
        colours = np.zeros((*SIZE_HW, 3), np.uint8)
        colours[:, :32], colours[:, 32:] = (200, 100, 50), (10, 20, 30)
        self.node.frames.pop(stamp_ns, None)
        self._send(lambda: self._publish_image(stamp_ns, colours), lambda: stamp_ns in self.node.frames)
        left, right = np.zeros(SIZE_HW, np.bool_), np.zeros(SIZE_HW, np.bool_)
        left[1:47, 1:31], right[1:43, 33:63] = True, True
        return segmentation_of(self.node.frames[stamp_ns], left, right)

    def send_image_in_vain(self, stamp_ns: int) -> None:
        """An image that comes while masks of another are computed."""
        self.node.is_busy, count = True, self.node.arrived
        self._send(lambda: self._publish_image(stamp_ns, np.zeros((*SIZE_HW, 3), np.uint8)), lambda: self.node.arrived > count)
        self.node.is_busy = False

    def _publish_image(self, stamp_ns: int, colours: np.ndarray) -> None:
        self._images.publish(image_from_array(colours, "rgb8", make_header(stamp_ns, "camera")))

    def publish(self, depth_lag_ns: int = 0, **header: Any) -> int:
        """One more image with its depth, and what is on it; its stamp."""
        self.now_ns += SECOND
        self.send_depth(depth_image(self.now_ns + depth_lag_ns, **header))
        self.node.space.publish(self.send_image(self.now_ns))
        return self.now_ns

    def publish_until_heard(self, *recorders: Recorder) -> None:
        """Topics are matched a while after they are subscribed."""

        def attempt() -> bool:
            self.publish()
            return all(recorder.messages for recorder in recorders)

        wait_until(attempt, "a message on every topic", 60.0)

    def objects(self) -> Recorder:
        recorder = Recorder(self.client, "~/objects_3d", TrackedObject3DArray)
        self.send_info()
        self.publish_until_heard(recorder)
        return recorder

    def _send(self, send: Callable[[], None], arrived: Callable[[], bool]) -> None:
        """Best effort may lose any single message."""

        def attempt() -> bool:
            send()
            with contextlib.suppress(AssertionError):
                wait_until(arrived, "this one", 0.5)
            return arrived()

        wait_until(attempt, "a message to arrive", 60.0)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()


@pytest.fixture
def rig(ros: None) -> Iterator[Rig]:
    rig = Rig(f"depth_node_{next(_NUMBERS)}")
    yield rig
    rig.close()


def heard(recorder: Recorder, stamp_ns: int) -> Any:
    """The message of a frame."""

    def found() -> list[Any]:
        return [each for each in recorder.messages if stamp_to_ns(_header(each).stamp) == stamp_ns]

    return wait_until(found, "the message of a frame", 60.0)[0]


def _header(message: Any) -> Header:
    return message.markers[0].header if isinstance(message, MarkerArray) else message.header


def test_objects_markers_and_points_agree(rig: Rig) -> None:
    markers = Recorder(rig.client, "~/markers", MarkerArray)
    points = Recorder(rig.client, "~/points", PointCloud2)
    objects = rig.objects()
    rig.publish_until_heard(markers, points)
    stamp_ns = rig.publish()

    array = heard(objects, stamp_ns)
    assert array.header == make_header(stamp_ns, "camera")
    left, right = array.objects
    assert (left.id, left.query_id, left.label, left.point_count) == (1, 4, "box 1", 28 * 44)
    assert (right.id, right.label, right.point_count) == (2, "box 2", 28 * 40)
    # Columns 2..29 and rows 2..45 at 1 m, columns 34..61 and rows 2..41 at 2 m; a pixel is 1/64 of the depth.
    assert _xyz(left.position) == pytest.approx([(15.5 - 31.5) / 64, 0.0, 1.0], abs=1e-6)
    assert _xyz(right.position) == pytest.approx([(47.5 - 31.5) / 32, (21.5 - 23.5) / 32, 2.0], abs=1e-6)
    assert left.covariance.reshape(3, 3) == pytest.approx(
        np.diag([(28**2 - 1) / 12 / 64**2, (44**2 - 1) / 12 / 64**2, 0]), abs=1e-7
    )
    assert _xyz(left.box_size) == pytest.approx([27 / 64, 43 / 64, 0.0], abs=1e-6)

    cloud = heard(points, stamp_ns)
    assert (cloud.header, cloud.height, cloud.width, cloud.is_dense) == (array.header, 1, 28 * 84, True)
    values = _points(cloud)
    for tracked, colour in ((left, 0xC86432), (right, 0x0A141E)):
        own = values[values["label"] == tracked.id]
        assert len(own) == tracked.point_count
        assert [own[axis].mean() for axis in "xyz"] == pytest.approx(_xyz(tracked.position), abs=1e-5)
        assert set(own["rgb"].view(np.uint32)) == {colour}

    clear, *drawn = heard(markers, stamp_ns).markers
    assert clear.action == Marker.DELETEALL
    assert all(each.header == array.header for each in drawn)
    assert [(each.ns, each.id, each.type) for each in drawn] == [
        ("box", 1, Marker.CUBE),
        ("label", 1, Marker.TEXT_VIEW_FACING),
        ("box", 2, Marker.CUBE),
        ("label", 2, Marker.TEXT_VIEW_FACING),
    ]
    assert _xyz(drawn[0].pose.position) == _xyz(left.box_center)
    assert drawn[1].text == "box 1 #1"
    assert drawn[1].pose.position.y < left.box_center.y - left.box_size.y / 2, "above: y points down"


def test_a_frame_without_depth_is_counted_and_not_published(rig: Rig) -> None:
    objects = rig.objects()
    before = rig.node.count("frames_without_depth")
    alone = []
    for _ in range(5):
        rig.now_ns += SECOND
        alone.append(rig.now_ns)
        rig.node.space.publish(rig.send_image(rig.now_ns))
    assert rig.node.count("frames_without_depth") == before + 2, "three wait"
    assert "no depth image came within 0.05 s" in rig.node.depth.problem()
    heard(objects, rig.publish())
    assert rig.node.count("frames_without_depth") == before + 5
    assert not set(alone) & set(stamps_of(objects.messages))
    assert rig.node.depth.problem() == ""


def test_depth_that_comes_after_the_masks_is_published_with_the_next_frame(rig: Rig) -> None:
    objects = rig.objects()
    before = rig.node.count("frames_without_depth")
    rig.now_ns += SECOND
    late_ns = rig.now_ns
    rig.node.space.publish(rig.send_image(late_ns))
    rig.send_depth(depth_image(late_ns))
    heard(objects, rig.publish())
    assert stamps_of(objects.messages)[-2:] == [late_ns, rig.now_ns]
    assert rig.node.count("frames_without_depth") == before


def test_depth_within_the_slop_is_taken_under_the_stamp_of_the_image(rig: Rig) -> None:
    objects = rig.objects()
    for lag_ns, fits in ((49 * MS, True), (-49 * MS, True), (50 * MS, False), (0, True)):
        before = rig.node.count("frames_with_depth")
        stamp_ns = rig.publish(lag_ns)
        assert rig.node.count("frames_with_depth") == before + fits
        if fits:
            heard(objects, stamp_ns)


def test_a_bag_that_starts_over(rig: Rig) -> None:
    objects = rig.objects()
    for _ in range(12):  # enough to fill the queues with stamps that are later than all that come
        rig.now_ns += SECOND
        rig.send_depth(depth_image(rig.now_ns + SECOND // 2))
        rig.send_image(rig.now_ns)
    rig.now_ns = 10 * SECOND
    rig.send_image(rig.now_ns)
    heard(objects, rig.publish())


def test_depth_is_there_however_long_the_masks_take(rig: Rig) -> None:
    objects = rig.objects()
    slow_ns = rig.now_ns = rig.now_ns + SECOND
    rig.send_depth(depth_image(slow_ns))
    slow = rig.send_image(slow_ns)
    for _ in range(40):
        rig.now_ns += 33 * MS
        rig.send_depth(depth_image(rig.now_ns))
        rig.send_image_in_vain(rig.now_ns)
    rig.node.space.publish(slow)
    heard(objects, slow_ns)


def test_depth_is_there_however_long_an_image_waits_for_its_turn(rig: Rig) -> None:
    objects = rig.objects()
    rig.now_ns += SECOND
    rig.send_depth(depth_image(rig.now_ns - 40 * MS))
    rig.send_depth(depth_image(rig.now_ns + 10 * MS))
    rig.send_image_in_vain(rig.now_ns)  # it waits
    rig.send_depth(depth_image(rig.now_ns + 20 * MS))
    for number in range(1, 41):
        rig.send_depth(depth_image(rig.now_ns + 20 * MS + number * 33 * MS))
    rig.node.space.publish(segmentation_of(rig.node.take(), np.ones(SIZE_HW, np.bool_)))
    heard(objects, rig.now_ns)


def test_a_short_bag_that_starts_over_has_depth_again(rig: Rig) -> None:
    objects = rig.objects()
    start_ns = rig.now_ns = rig.now_ns + SECOND
    for loop in range(2):
        for number in range(9):  # 0.9 s, a jump is 1 s
            stamp_ns = start_ns + number * 100 * MS
            rig.send_depth(depth_image(stamp_ns))
            if number % 3 == 2 or loop == 1:
                rig.node.space.publish(rig.send_image(stamp_ns))
    before = rig.node.count("frames_with_depth")
    rig.node.space.publish(rig.send_image(stamp_ns + 10 * MS))
    rig.send_depth(depth_image(stamp_ns + 100 * MS))
    rig.node.space.publish(rig.send_image(stamp_ns + 100 * MS))
    heard(objects, stamp_ns + 100 * MS)
    assert rig.node.count("frames_with_depth") > before


def test_a_slower_depth_camera_is_not_spent_on_images_that_nobody_follows(rig: Rig) -> None:
    objects = rig.objects()
    rig.now_ns += SECOND
    rig.send_depth(depth_image(rig.now_ns))
    rig.send_image_in_vain(rig.now_ns)
    followed_ns = rig.now_ns + 33 * MS
    rig.node.space.publish(rig.send_image(followed_ns))
    heard(objects, followed_ns)


def test_a_depth_clock_that_is_set_back(rig: Rig) -> None:
    objects = rig.objects()
    for number in range(12):
        rig.send_depth(depth_image(rig.now_ns + 60 * SECOND + number * 33 * MS))
    rig.publish()
    heard(objects, rig.publish())


def test_an_image_that_was_overtaken_takes_no_depth_from_others(rig: Rig) -> None:
    objects = rig.objects()
    rig.now_ns += SECOND
    rig.send_depth(depth_image(rig.now_ns))
    overtaker = rig.send_image(rig.now_ns)
    rig.send_image(rig.now_ns - 100 * MS)
    rig.node.space.publish(overtaker)
    heard(objects, rig.now_ns)


def test_camera_info_that_was_sent_once_before_anybody_listened(rig: Rig) -> None:
    rig.node.camera.unsubscribe()
    latched = rig.client.node.create_publisher(
        CameraInfo, "camera_info", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    latched.publish(camera_info())
    rig.node.camera.subscribe()

    def attempt() -> bool:
        rig.now_ns += SECOND
        rig.send_depth(depth_image(rig.now_ns))
        rig.send_image(rig.now_ns)
        return rig.node.depth.view_of(rig.node.frames[rig.now_ns]) is not None

    wait_until(attempt, "depth with intrinsics", 60.0)
    rig.node.camera.unsubscribe()
    latched.destroy()
    rig.node.camera.subscribe()
    assert attempt(), "after a deactivation, too"


def test_what_was_wrong_with_depth_is_forgotten_with_its_last_listener(rig: Rig) -> None:
    recorder = rig.objects()
    rig.publish(frame_id="depth_camera")
    assert rig.node.depth.problem() != ""
    recorder.listening.unsubscribe()

    def attempt() -> bool:
        rig.publish(frame_id="depth_camera")
        return rig.node.depth.problem() == ""

    wait_until(attempt, "nobody to listen", 60.0)


def test_broken_depth_is_told_and_survived(rig: Rig) -> None:
    objects = rig.objects()
    for change, cause in (
        ({"encoding": "8UC1"}, "its encoding is '8UC1', but depth is 32FC1"),
        ({"height": 480}, "64x480 pixels of 4 bytes do not fit"),
        ({"width": 32, "step": 256}, "cannot show the same view"),
    ):
        before = rig.node.count("depth_rejected")
        rig.now_ns += SECOND
        depth = depth_image(rig.now_ns)
        for name, value in change.items():
            setattr(depth, name, value)
        rig.send_depth(depth)
        rig.node.space.publish(rig.send_image(rig.now_ns))
        assert rig.node.count("depth_rejected") == before + 1
        assert cause in rig.node.depth.problem()
    heard(objects, rig.publish())


def test_depth_that_is_not_registered_is_told(rig: Rig) -> None:
    objects = rig.objects()
    heard(objects, rig.publish(frame_id="depth_camera"))
    assert "depth is in frame 'depth_camera', the image in 'camera'" in rig.node.depth.problem()


def test_what_never_came_is_named(rig: Rig) -> None:
    rig.send_image(SECOND)
    assert rig.node.depth.view_of(rig.node.frames[SECOND]) is None
    assert rig.node.depth.problem().startswith("nothing came on /depth, which has")
    rig.send_depth(depth_image(2 * SECOND))
    rig.send_image(2 * SECOND)
    assert rig.node.depth.view_of(rig.node.frames[2 * SECOND]) is None
    assert rig.node.depth.problem().startswith("nothing came on /camera_info, which has")


def test_nothing_is_computed_while_nobody_listens(rig: Rig) -> None:
    rig.send_info()
    rig.publish()
    assert (rig.node.count("frames_with_depth"), rig.node.count("frames_without_depth")) == (0, 0)


def still_camera(folder: Path, parameters: dict[str, Any]) -> NodeProcess:
    """The simulated camera before a table on which nothing moves."""
    (folder / "scene.json").write_text(STILL_SCENE.to_json())
    return NodeProcess("sim_camera", folder / "sim_camera.log", {"scene_file": folder / "scene.json", **parameters})


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_the_simulated_camera_shows_things_where_they_are(rig: Rig, tmp_path: Path, encoding: str) -> None:
    objects = Recorder(rig.client, "~/objects_3d", TrackedObject3DArray)
    parameters = {"reliability": "reliable", "depth": "true", "depth_encoding": encoding}
    camera = still_camera(tmp_path, parameters)
    try:
        array = objects.next("objects in space", 60.0)
    finally:
        status = camera.stop()
    assert status == 0, camera.output()
    assert [each.id for each in array.objects] == [1, 2, 3]
    for thing, each in enumerate(array.objects):
        assert _xyz(each.position) == pytest.approx(STILL.view(0.0).points_of(thing).mean(axis=0), abs=0.015)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "big_endian", "row", "expected"),
    [
        ("16UC1", False, "e803 0000", [1000, 0]),
        ("16UC1", True, "03e8 0000", [1000, 0]),
        ("mono16", False, "e803 0000", [1000, 0]),
        ("32FC1", False, "0000803f 0000c07f", [1.0, np.nan]),
        ("32FC1", True, "3f800000 7fc00000", [1.0, np.nan]),
    ],
)
def test_every_depth_encoding(encoding: str, big_endian: bool, row: str, expected: list[float], padding: int) -> None:
    data = bytes.fromhex(row) + b"\xde" * padding
    image = Image(height=2, width=2, encoding=encoding, step=len(data), is_bigendian=int(big_endian), data=data * 2)
    samples = depth_samples(image)
    assert samples.dtype == (np.float32 if encoding == "32FC1" else np.uint16)
    assert np.array_equal(samples, [expected] * 2, equal_nan=True)


def test_intrinsics_of_camera_info() -> None:
    info = CameraInfo(height=480, width=640, k=[500.0, 0.0, 319.5, 0.0, 501.0, 239.5, 0.0, 0.0, 1.0])
    raw = intrinsics_from_info(info)
    assert (raw.fx, raw.fy, raw.cx, raw.cy, raw.size_hw) == (500.0, 501.0, 319.5, 239.5, (480, 640))
    info.p = [400.0, 0.0, 320.0, 0.0, 0.0, 401.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 50, 320, 240
    info.binning_x = info.binning_y = 2
    cut = intrinsics_from_info(info)
    assert (cut.fx, cut.fy, cut.cx, cut.cy, cut.size_hw) == (200.0, 200.5, 109.75, 94.75, (120, 160))
    info.binning_y = 1
    across = intrinsics_from_info(info)
    assert (across.fx, across.fy, across.cx, across.cy, across.size_hw) == (200.0, 401.0, 109.75, 190.0, (240, 160))
    with pytest.raises(ValueError, match="not calibrated"):
        intrinsics_from_info(CameraInfo(height=480, width=640))
    with pytest.raises(ValueError, match="no width and height"):
        intrinsics_from_info(CameraInfo())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"binning_y": 49}, "for 64x0 pixels: its calibration is broken"),  # no row is left
        ({"k": [64.0, 0.0, math.nan, 0.0, 64.0, 23.5, 0.0, 0.0, 1.0]}, "cx nan"),
        ({"k": [64.0, 0.0, 31.5, 0.0, 64.0, -1e9, 0.0, 0.0, 1.0]}, "cy -1e"),
        ({"k": [1e-9, 0.0, 31.5, 0.0, 64.0, 23.5, 0.0, 0.0, 1.0]}, "fx 1e-09"),
        ({"k": [64.0, 0.0, 31.5, 0.0, math.inf, 23.5, 0.0, 0.0, 1.0]}, "fy inf"),
        ({"p": [math.nan] * 12, "k": [math.nan] * 9}, "fx nan"),
        ({"roi": RegionOfInterest(x_offset=2**32 - 1, width=64, height=48)}, "cx -4.29497e"),
    ],
)
def test_calibrations_that_no_camera_has_are_refused(change: dict[str, Any], cause: str) -> None:
    info = camera_info()
    for name, value in change.items():
        setattr(info, name, value)
    with pytest.raises(ValueError, match=cause):
        depth_view(depth_image(0), info, SIZE_HW)


def test_depth_that_no_camera_measures_is_no_depth() -> None:
    depth = depth_image(0)
    wrong = [1e-40, 1e-7, 2e6, 3e38, math.inf, -math.inf, -1.0, 0.0, math.nan]
    metres = np.array([*wrong, 1e-5, 1e5, *([1.0] * (SIZE_HW[0] * SIZE_HW[1] - len(wrong) - 2))], np.float32)
    depth.data = array.array("B", metres.tobytes())
    view = depth_view(depth, camera_info(), SIZE_HW)
    assert np.isnan(view.metres_hw.reshape(-1)).tolist() == [True] * len(wrong) + [False] * (metres.size - len(wrong))


def test_depth_without_a_time_or_too_large_is_refused_and_counted(rig: Rig) -> None:
    rejected = rig.node.count("depth_rejected")
    for sec, nanosec in ((-5, 0), (5, 2**32 - 1)):
        depth = depth_image(0)
        depth.header.stamp.sec, depth.header.stamp.nanosec = sec, nanosec
        rig.node.depth._on_depth(depth)
        assert f"{sec} s and {nanosec} ns" in rig.node.depth.problem()
    assert rig.node.count("depth_rejected") == rejected + 2
    with pytest.raises(ValueError, match=r"at most 3071 are accepted \(parameter max_image_pixels\)"):
        depth_view(depth_image(0), camera_info(), SIZE_HW, max_pixels=48 * 64 - 1)


def test_the_types_that_carry_the_contract() -> None:
    assert TrackedObject3D.get_fields_and_field_types() == {
        "id": "uint32",
        "query_id": "uint32",
        "label": "string",
        "position": "geometry_msgs/Point",
        "covariance": "double[9]",
        "box_center": "geometry_msgs/Point",
        "box_size": "geometry_msgs/Vector3",
        "point_count": "uint32",
    }


def _xyz(message: Any) -> list[float]:
    return [message.x, message.y, message.z]


def _points(cloud: PointCloud2) -> np.ndarray:
    """A cloud as its own description says."""
    kinds = {PointField.FLOAT32: "<f4", PointField.UINT32: "<u4"}
    layout = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [kinds[field.datatype] for field in cloud.fields],
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, layout)


def test_rviz_shows_what_is_published(rig: Rig) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "config" / "decaf.rviz").read_text())
    kinds = {"rviz_default_plugins/MarkerArray": MarkerArray, "rviz_default_plugins/PointCloud2": PointCloud2}
    displays = [each for each in config["Visualization Manager"]["Displays"] if each["Class"] in kinds]
    published = {publisher.topic_name.rpartition("/")[2]: publisher.msg_type for publisher in rig.node.publishers}
    assert len(displays) == 2
    for display in displays:
        node, _, topic = display["Topic"]["Value"].rpartition("/")
        assert (node, published[topic]) == ("/decaf_node", kinds[display["Class"]])


def test_decaf_node_tells_where_what_it_tracks_is_in_space(client: DecafClient, tmp_path: Path) -> None:
    """The whole way, with the node's own masks."""
    camera = still_camera(tmp_path, {"depth": "true"})
    node = NodeProcess("node", tmp_path / "decaf_node.log", {"depth": "true"})
    try:
        client.wait_until_ready()
        objects = Recorder(client, "~/objects_3d", TrackedObject3DArray)
        objects.next("the first frame with depth", 60.0)
        answer = client.query(OTHER_EXPRESSION)
        assert answer.success, answer.message
        ids = {each.id for each in answer.objects}
        found = wait_until(
            lambda: [each for each in objects.messages[-1].objects if each.id in ids], "an object in space", 60.0
        )
        wait_until(lambda: client.diagnostic_values("depth").get("camera_info") == "received", "the diagnostics")
    finally:
        statuses = (camera.stop(), node.stop())
    assert statuses == (0, 0), node.output()
    truth = STILL.view(0.0).points_of(BOX).mean(axis=0)
    assert min(math.dist(_xyz(each.position), truth) for each in found) < 0.05
