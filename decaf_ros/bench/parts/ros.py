"""What ROS adds to each frame: from the message of the camera to the return of ``publish``, with subscribers over DDS."""

from __future__ import annotations

import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, HeatMap, ObjectMask, Segmentation, UInt8Array, Visibility
from decaf_ros.drawing import object_colour
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.imaging import frame_from_image
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.conversions import image_from_array, make_header
from decaf_ros.ros.painter import Painter
from decaf_ros.ros.processes import ChildProcess, ros_of_its_own
from decaf_ros.ros.publishers import OUTPUT_QOS, ResultPublisher, publish_asynchronously
from decaf_ros.synthetic.table.episodes import sample_episode

SIZE_HW = (720, 1280)

_SEED = 14
_OBJECTS = 3
_VIEWS = 10
_RATE_HZ = 20.0
_REFRESH_HZ = SessionConfig().refresh_hz
_WARM_UP_FRAMES = 30
_NODE = "bench_ros"
_START_SECONDS = 60.0

_EACH_FRAME = ("objects", "mask", "labels", "overlay")
_HEAT = ("attention", "heatmap")
_COMPRESSED = ("mask/compressed", "labels/compressed", "overlay/compressed", "heatmap/compressed")
_HEADER = ("subscribed", "p50", "p95", "target of p95", "pictures out, p95", "CPU, p50", "naive way, CPU, p50", "ratio")


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        topics: that have a subscriber.
        target_ms: what p95 may be.
        heat_apart: whether heat maps come as from the node, from another thread, instead of with each frame.
    """

    topics: tuple[str, ...]
    target_ms: float | None = None
    heat_apart: bool = False


CASES: dict[str, Case] = {
    "nothing: decoding alone": Case(()),
    **{f"`~/{name}`": Case((name,), 2.0 if name == "mask" else None) for name in (*_EACH_FRAME, *_HEAT)},
    "all four of each frame": Case(_EACH_FRAME),
    "all six, as from the node": Case((*_EACH_FRAME, *_HEAT), 8.0, heat_apart=True),
    "all six, a heat map with each frame": Case((*_EACH_FRAME, *_HEAT)),
    **{f"`~/{name}`": Case((name,)) for name in _COMPRESSED},
    "all ten, as from the node": Case((*_EACH_FRAME, *_HEAT, *_COMPRESSED), heat_apart=True),
}
_REFERENCE_TOPICS = ("mask", "labels", "overlay", "heatmap")


@dataclass(frozen=True)
class Cost:
    """Milliseconds a frame.

    Attributes:
        p50_ms, p95_ms: of the thread that follows objects.
        pictures_p95_ms: from the same start until the painter has published, too.
        cpu_p50_ms: that both threads compute for; what others do adds little to it.
    """

    p50_ms: float
    p95_ms: float
    pictures_p95_ms: float
    cpu_p50_ms: float


class _TimedPainter(Painter):
    """Tells when the pictures of a frame are out, and what it computed for them."""

    def __init__(self) -> None:
        self.out = threading.Event()
        self.out.set()
        self.computed_s = 0.0
        super().__init__()

    def submit(self, paint: Callable[[], object]) -> None:
        self.out.clear()
        super().submit(partial(self._timed, paint))

    def _timed(self, paint: Callable[[], object]) -> None:
        computed = time.thread_time()
        try:
            paint()
        finally:
            self.computed_s = time.thread_time() - computed
            self.out.set()


@dataclass(frozen=True, eq=False)
class _Sample:
    """A camera image as it arrives, and what models would say about it."""

    message: Image
    masks: tuple[np.ndarray, ...]
    heat_hw: np.ndarray

    def results(self, frame: Frame) -> tuple[Segmentation, HeatMap]:
        objects = tuple(
            ObjectMask(index, 1, "box", mask, 0.9, 0.9, Visibility.VISIBLE) for index, mask in enumerate(self.masks, 1)
        )
        return Segmentation(frame, objects), HeatMap(frame, 1, self.heat_hw)


def measure(run: Run, ros_frames: int) -> Measured:
    """The costs with their targets; without models: what is measured is what surrounds them.

    Raises:
        TimeoutError: a subscriber does not come or go.
    """
    return report(run, costs_by_case(ros_frames), ros_frames)


def costs_by_case(frames: int) -> dict[str, tuple[Cost, Cost | None]]:
    """The cost by case, and that of the naive way for the topics that it knows.

    Raises:
        TimeoutError: a subscriber does not come or go.
    """
    samples = _samples()
    costs: dict[str, tuple[Cost, Cost | None]] = {}
    with ExitStack() as stack:
        folder = OutputFolder(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        publish_asynchronously()
        cv2.setNumThreads(1)  # as in the node, whose models use the other cores
        stack.enter_context(ros_of_its_own())
        node = rclpy.create_node(_NODE)
        painter = _TimedPainter()
        painter.start()
        stack.callback(painter.close)
        results = ResultPublisher(node, painter)
        naive = _NaivePublisher(node)
        cost = partial(_cost, node, painter, samples, frames, folder)
        for name, case in CASES.items():
            with _heat_maps(results, samples[0]) if case.heat_apart else nullcontext():
                measured = cost(case.topics, partial(_publish, results, case))
            known = bool(case.topics) and set(case.topics) <= set(_REFERENCE_TOPICS)
            naive_topics = [f"naive/{topic}" for topic in case.topics]
            costs[name] = (measured, cost(naive_topics, partial(naive.publish, case.topics)) if known else None)
    return costs


def report(run: Run, costs: dict[str, tuple[Cost, Cost | None]], frames: int) -> Measured:
    """The costs with their targets."""
    rows = []
    for name, (cost, reference) in costs.items():
        target = CASES[name].target_ms
        rows.append(
            [
                name,
                f"{cost.p50_ms:.2f} ms",
                f"{cost.p95_ms:.2f} ms",
                f"<= {target:g} ms" if target else "",
                f"{cost.pictures_p95_ms:.2f} ms",
                f"{cost.cpu_p50_ms:.2f} ms",
                f"{reference.cpu_p50_ms:.2f} ms" if reference else "",
                f"{reference.cpu_p50_ms / cost.cpu_p50_ms:.1f}" if reference else "",
            ]
        )
    height, width = SIZE_HW
    page = f"""# The ROS layer

{markdown_table(_HEADER, rows)}
Time that ROS adds to a frame in the thread that follows objects: decoding of the camera's message ({width} x {height}, rgb8),
then everything from the masks of {_OBJECTS} objects to the return of the last `publish`. The overlay, and masks and labels
as files, are made by another thread, the painter; *pictures out* is the time from the same start until that has published as
well. Subscribers are reliable, in a process of their own, over {rclpy.get_rmw_implementation_identifier()} with
`RMW_FASTRTPS_PUBLICATION_MODE` set to {os.environ["RMW_FASTRTPS_PUBLICATION_MODE"]}. {frames} frames at {_RATE_HZ:g} Hz after
{_WARM_UP_FRAMES} of warm-up.

The node publishes heat maps from a third thread, {_REFRESH_HZ:g} a second unless `refresh_hz` says otherwise, and so do the
cases *as from the node*. In the others they are drawn in the first thread, one with each frame.

CPU is the time in which both threads compute; programs that share the machine, as the load below tells, add to the other
columns in full. The ratio is that of CPU times, naive to ours.

The naive way: `message.data = values.tobytes()`, masks blended over the whole image with numpy, contours with every pixel, heat
maps blended in floating point.

{os.cpu_count()} CPU cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}, OpenCV {cv2.__version__},
Python {platform.python_version()}. `{run.command}`
"""
    figures = {
        name: asdict(cost) | ({"naive_cpu_p50_ms": reference.cpu_p50_ms} if reference else {})
        for name, (cost, reference) in costs.items()
    }
    return Measured(page, named(figures))


def _samples() -> list[_Sample]:
    episode = sample_episode(_SEED)
    heat = np.random.default_rng(_SEED).random((20, 36), dtype=np.float32)
    samples = []
    for index in range(_VIEWS):
        view = episode.render(0.1 * index, SIZE_HW)
        message = image_from_array(view.image_rgb, "rgb8", make_header(index, "camera"))
        samples.append(_Sample(message, _disjoint_ellipses(index), heat))
    return samples


def _disjoint_ellipses(index: int) -> tuple[np.ndarray, ...]:
    """Masks of ``_OBJECTS`` objects, each of about 6 % of the image, that move with the index."""
    height, width = SIZE_HW
    masks = []
    for number in range(_OBJECTS):
        mask = np.zeros(SIZE_HW, np.uint8)
        centre = (width * (2 * number + 1) // (2 * _OBJECTS) + 4 * index, height // 2)
        cv2.ellipse(mask, centre, (width // 11, height // 5), 10 * index, 0, 360, 1, cv2.FILLED)
        masks.append(mask.astype(np.bool_))
    return tuple(masks)


def _cost(
    node: Node,
    painter: _TimedPainter,
    samples: Sequence[_Sample],
    frames: int,
    folder: OutputFolder,
    topics: Sequence[str],
    publish: Callable[[_Sample], None],
) -> Cost:
    """Milliseconds that ``publish`` takes while each of the topics has one subscriber."""
    names = [f"{node.get_fully_qualified_name()}/{topic}" for topic in topics]
    with ExitStack() as stack:
        if names:
            stack.enter_context(ChildProcess("decaf_ros.bench.listener", names, folder.log("listener.log")))
        _wait_for_subscribers(node, names, 1)
        times = []
        for index in range(_WARM_UP_FRAMES + frames):
            time.sleep(1.0 / _RATE_HZ)
            painter.computed_s = 0.0
            start, computed = time.perf_counter(), time.thread_time()
            publish(samples[index % len(samples)])
            computed, elapsed = time.thread_time() - computed, time.perf_counter() - start
            painter.out.wait()
            times.append((elapsed, time.perf_counter() - start, computed + painter.computed_s))
    _wait_for_subscribers(node, names, 0)
    elapsed_ms, out_ms, computed_ms = 1e3 * np.array(times[_WARM_UP_FRAMES:]).T
    return Cost(*map(float, (*np.percentile(elapsed_ms, [50, 95]), np.percentile(out_ms, 95), np.percentile(computed_ms, 50))))


def _wait_for_subscribers(node: Node, names: Sequence[str], count: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while any(node.count_subscribers(name) != count for name in names):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{', '.join(names)} should have {count} subscribers each, and have not")
        time.sleep(0.05)


@contextmanager
def _heat_maps(results: ResultPublisher, sample: _Sample) -> Iterator[None]:
    """Heat maps from a thread of their own."""
    _, heat = sample.results(frame_from_image(sample.message))
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(1.0 / _REFRESH_HZ):
            results.publish_heat_map(heat)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _publish(results: ResultPublisher, case: Case, sample: _Sample) -> None:
    segmentation, heat = sample.results(frame_from_image(sample.message))
    results.publish_segmentation(segmentation, {1: "the red box"})
    if not case.heat_apart and any(topic.startswith(_HEAT) for topic in case.topics):
        results.publish_heat_map(heat)


class _NaivePublisher:
    """The outputs as they are written at first."""

    def __init__(self, node: Node) -> None:
        self._publishers = {name: node.create_publisher(Image, f"~/naive/{name}", OUTPUT_QOS) for name in _REFERENCE_TOPICS}
        self._draw: dict[str, Callable[[Any], np.ndarray]] = {
            "mask": _naive_mask,
            "labels": _naive_labels,
            "overlay": _naive_overlay,
            "heatmap": _naive_heat,
        }

    def publish(self, topics: Sequence[str], sample: _Sample) -> None:
        pixels = np.frombuffer(sample.message.data, np.uint8).reshape(*SIZE_HW, 3).copy()
        segmentation, heat = sample.results(Frame(0, "camera", pixels))
        for topic in topics:
            values = self._draw[topic](heat if topic == "heatmap" else segmentation)
            message = Image(header=sample.message.header, height=SIZE_HW[0], width=SIZE_HW[1], step=values.strides[0])
            message.encoding = "mono16" if values.dtype == np.uint16 else "mono8" if values.ndim == 2 else "rgb8"
            message.data = values.tobytes()
            self._publishers[topic].publish(message)


def _naive_mask(segmentation: Segmentation) -> np.ndarray:
    return np.any([tracked.mask_hw for tracked in segmentation.objects], axis=0).astype(np.uint8) * 255


def _naive_labels(segmentation: Segmentation) -> np.ndarray:
    labels = np.zeros(SIZE_HW, np.uint16)
    for tracked in segmentation.objects:
        labels[tracked.mask_hw] = tracked.object_id
    return labels


def _naive_overlay(segmentation: Segmentation) -> UInt8Array:
    image = segmentation.frame.image_rgb.copy()
    for tracked in segmentation.objects:
        colour = object_colour(tracked.object_id, tracked.query_id)
        inside = tracked.mask_hw[..., None]
        image = np.where(inside, image * 0.55 + np.array(colour) * 0.45, image).astype(np.uint8)
        contours, _ = cv2.findContours(tracked.mask_hw.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, colour, 3, cv2.LINE_AA)
        cv2.putText(image, tracked.label, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, 1, cv2.LINE_AA)
    return image


def _naive_heat(heat: HeatMap) -> UInt8Array:
    values = cv2.resize(heat.values_hw, SIZE_HW[::-1])
    mapped = cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = (0.35 + 0.4 * values)[..., None]
    return (heat.frame.image_rgb * (1 - opacity) + mapped * opacity).astype(np.uint8)
