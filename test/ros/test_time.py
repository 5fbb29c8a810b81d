"""Simulated time: a bag that is paused, loops and jumps, as ``ros2 bag play --clock`` does it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from filmed_table import EXPRESSION
from harness import Camera, NodeProcess, Recorder, System, stamps_of, wait_until
from rclpy.clock import ROSClock
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import stamp_from_ns
from decaf_ros.ros.statistics import CameraStatistics

SECOND_NS = 1_000_000_000
TICK_NS = SECOND_NS // 10
START_NS = 10_000 * SECOND_NS


class Bag:
    """A player at 10 Hz: the time on /clock, then an image of that time.

    Attributes:
        time_ns: of the next tick; assign to jump.
        paused: whether time stands still, and no image comes.
        blind: whether time goes on without images.
        lag_ns: how far the stamps of images are behind the clock.
    """

    def __init__(self, camera: Camera, client: DecafClient) -> None:
        self.time_ns, self.lag_ns = START_NS, 0
        self.paused = self.blind = False
        self._camera = camera
        self._clock = client.node.create_publisher(Clock, "/clock", 10)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> Bag:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _play(self) -> None:
        while not self._over.wait(0.1):
            if not self.paused:
                self.time_ns += TICK_NS
                now_ns = self.time_ns
                self._clock.publish(Clock(clock=stamp_from_ns(now_ns)))
                if not self.blind:
                    self._camera.publish(self._camera.image(now_ns - self.lag_ns))


@pytest.fixture(scope="module")
def system(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A node in simulated time; before there is any, it must say so."""
    log = tmp_path_factory.mktemp("time") / "node.log"
    process = NodeProcess("node", log, {"use_sim_time": True}, name="timed_node")
    try:
        with DecafClient("/timed_node", name="player") as client:
            client.wait_until_ready()
            wait_until(lambda: "no time came on /clock" in client.diagnostics("camera").message, "the lack of time to be told")
            yield System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
    finally:
        assert process.stop() == 0, process.output()


@pytest.fixture
def bag(system: System) -> Iterator[Bag]:
    """Plays from the start, and the node follows."""
    with Bag(system.camera, system.client) as bag:
        system.masks.next("a mask")
        system.client.reset()
        newest_ns = bag.time_ns  # a mask of an earlier image may still come after the reset
        wait_until(lambda: stamps_of(system.masks.messages)[-1] > newest_ns, "a mask")
        yield bag


def _camera_levels(system: System, count: int) -> list[bytes]:
    """Levels of the next messages about the camera, after one that may be from before the call."""
    heard = Recorder(system.client, "/diagnostics", DiagnosticArray)

    def levels() -> list[bytes]:
        found = [status for message in heard.messages for status in message.status if status.name == "/timed_node: camera"]
        return [status.level for status in found][1:]

    wait_until(lambda: len(levels()) >= count, "diagnostics")
    return levels()[:count]


def _age_ms(system: System) -> float:
    return float(system.client.diagnostic_values("tracking")["mask_age_p95_ms"])


def test_bag_that_loops(system: System, bag: Bag) -> None:
    answer = system.client.query(EXPRESSION)
    assert answer.success, answer.message
    bag.time_ns = START_NS + 5000 * SECOND_NS
    wait_until(lambda: stamps_of(system.masks.messages)[-1] > START_NS + 5000 * SECOND_NS, "masks of the end")
    before = system.count("discontinuities")
    bag.time_ns = START_NS
    wait_until(lambda: stamps_of(system.masks.messages)[-1] < START_NS + 1000 * SECOND_NS, "masks of the new beginning")
    wait_until(lambda: system.count("discontinuities") > before, "the loop to be counted")
    # An age that mixes the two rounds would be 5000 s.
    wait_until(
        lambda: 0 <= float(system.client.diagnostic_values("tracking")["mask_age_p95_ms"]) < 600e3, "an age that makes sense"
    )
    (query,) = system.client.list_queries().queries
    assert list(query.object_ids) == [each.id for each in answer.objects], "objects are followed on"
    again = system.client.query(EXPRESSION)
    assert again.success, again.message


def test_time_that_jumps_forwards(system: System, bag: Bag) -> None:
    assert system.client.set_parameter("camera_timeout_seconds", 300.0)[0]
    bag.blind = True
    bag.time_ns += 3600 * SECOND_NS
    assert _camera_levels(system, 3) == [DiagnosticStatus.OK] * 3, "an hour of simulated time is no hour of silence"
    bag.blind = False
    wait_until(lambda: stamps_of(system.masks.messages)[-1] > START_NS + 3600 * SECOND_NS, "masks after the jump")
    answer = system.client.query(EXPRESSION)
    assert answer.success, answer.message


def test_bag_that_is_paused(system: System, bag: Bag) -> None:
    assert system.client.set_parameter("camera_timeout_seconds", 3.0)[0]
    bag.paused = True
    assert _camera_levels(system, 6) == [DiagnosticStatus.OK] * 6, "6 s, but not of simulated time"
    bag.paused, bag.blind = False, True
    wait_until(lambda: "no image for" in system.client.diagnostics("camera").message, "the silence to be told")
    bag.blind = False
    wait_until(lambda: system.client.diagnostics("camera").level == DiagnosticStatus.OK, "the all-clear")
    assert system.client.query(EXPRESSION).success


def test_images_that_come_too_late_by_the_nodes_clock(system: System, bag: Bag) -> None:
    assert system.client.set_parameter("max_frame_age_seconds", 30.0)[0]
    rejected = system.count("rejected")
    bag.lag_ns = 60 * SECOND_NS
    wait_until(lambda: system.count("dropped_old") > 0, "old images to be dropped")
    assert "max_frame_age_seconds" in system.client.diagnostic_values("camera")["last_rejection"]
    assert system.count("rejected") == rejected
    assert system.client.set_parameter("max_frame_age_seconds", 0.0)[0]
    late = bag.time_ns
    wait_until(lambda: late - 60 * SECOND_NS < stamps_of(system.masks.messages)[-1] < late, "masks of old images")


def test_ages_and_silence_by_a_clock_that_is_set_by_hand() -> None:
    clock = ROSClock()
    clock._set_ros_time_is_active(True)
    statistics = CameraStatistics(clock)
    assert statistics.clock_stands_at_zero

    def now(seconds: float) -> None:
        clock.set_ros_time_override(Time(seconds=seconds, clock_type=clock.clock_type))

    now(50.0)
    assert not statistics.clock_stands_at_zero
    for stamp_s in (49.9, 49.7, 50.1):  # the last one is ahead of the time
        statistics.note_mask(int(stamp_s * 1e9))
    median, p95 = statistics.mask_age_ms()
    assert median == pytest.approx(200.0)
    assert p95 == pytest.approx(290.0)
    now(10.0)
    statistics.note_mask(int(9.6 * 1e9))
    assert statistics.mask_age_ms() == pytest.approx((400.0, 400.0))
    statistics.note_arrival(1)
    now(5.0)
    assert statistics.silent_seconds == statistics.blind_seconds == 0.0
    assert statistics.age_ns(4 * SECOND_NS) == SECOND_NS
