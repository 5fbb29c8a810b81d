"""The simulated camera and the arm before it: what is filmed is the world of the seed, and orders by points are obeyed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, Point32, PointStamped, PolygonStamped, TransformStamped
from harness import NodeProcess, Recorder, pixels, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, TimeReference
from std_msgs.msg import UInt16

from decaf_ros.imaging import frame_from_image, stamp_to_ns
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.table_camera import source_of_file
from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.synthetic.table.scene import Camera, Look, Scene, Thing

LATCHED = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SEED = 1
CAN, PLATE = 0, 1
SCENE = Scene(
    things=(Thing("can", "red", 1.0, (0.0, 0.1), 0.0), Thing("plate", "blue", 1.0, (0.0, -0.15), 0.0)),
    actions=(),
    camera=Camera(target=(0.0, 0.0, 0.05), distance=0.9, azimuth=0.0, elevation=0.8, fov_y=0.8, sway=(0.1, 0.0, 0.0)),
    look=Look(),
)


class Filmed:
    """A camera process, and what it says of the table and the arm."""

    def __init__(self, client: DecafClient, process: NodeProcess) -> None:
        self.client, self.process = client, process
        self.scenes: list[TimeReference] = []
        self.statuses: list[dict[str, str]] = []
        self.held: list[int] = []
        node = client.node
        node.create_subscription(TimeReference, "scene", self.scenes.append, LATCHED)
        node.create_subscription(DiagnosticStatus, "arm/status", self._note, LATCHED)
        node.create_subscription(UInt16, "ground_truth/held", lambda message: self.held.append(message.data), LATCHED)
        self._orders = {
            name: node.create_publisher(kind, f"arm/{name}", 10)
            for name, kind in (("pick", PointStamped), ("place", PointStamped), ("push", PolygonStamped))
        }
        wait_until(lambda: self.scenes, "a table", 120.0)

    def _note(self, status: DiagnosticStatus) -> None:
        self.statuses.append({pair.key: pair.value for pair in status.values} | {"message": status.message})

    def scene_time(self, stamp_ns: int) -> float:
        """Time of the scene at a stamp, by what the camera says."""
        began = self.scenes[-1]
        return stamp_to_ns(began.time_ref) * 1e-9 + (stamp_ns - stamp_to_ns(began.header.stamp)) * 1e-9

    def order(self, name: str, *points: tuple[float, float, float], frame: str = "table", stamp_s: int = 0) -> dict[str, str]:
        """Give an order, and wait for what becomes of it."""
        known = time.monotonic_ns() % 1_000_000_000  # tells this order from others
        if name == "push":
            message: Any = PolygonStamped()
            message.polygon.points = [Point32(x=x, y=y, z=z) for x, y, z in points]
        else:
            (x, y, z) = points[0]
            message = PointStamped(point=Point(x=x, y=y, z=z))
        message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec = frame, stamp_s, known
        publisher = self._orders[name]
        wait_until(lambda: publisher.get_subscription_count(), "the camera to listen")
        publisher.publish(message)
        return wait_until(lambda: self._ended(str(stamp_to_ns(message.header.stamp))), f"the end of {name}", 60.0)

    def _ended(self, stamp: str) -> dict[str, str] | None:
        ended = [each for each in self.statuses if each["stamp"] == stamp and each["outcome"] != "under way"]
        return ended[-1] if ended else None


@contextmanager
def filming(client: DecafClient, folder: Path, **parameters: Any) -> Iterator[Filmed]:
    process = NodeProcess("sim_camera", folder / "sim_camera.log", {"reliability": "reliable", **parameters})
    try:
        yield Filmed(client, process)
    finally:
        status = process.stop()
    assert status == 0, process.output()
    assert "Traceback" not in process.output(), process.output()


def show(camera: Filmed, seed: int) -> dict[str, Any]:
    """Messages of all topics about one image of another table, more than a second after its beginning."""
    topics = {
        name: Recorder(camera.client, name, kind)
        for name, kind in (
            ("image", Image),
            ("image/compressed", CompressedImage),
            ("depth", Image),
            ("ground_truth", Image),
            ("camera_info", CameraInfo),
            ("camera_transform", TransformStamped),
        )
    }
    accepted, reason = camera.client.set_parameter("seeds", [seed], node="/sim_camera")
    assert accepted, reason
    wait_until(lambda: camera.scenes[-1].source == f"seed {seed}", "the other table", 120.0)
    assert stamp_to_ns(camera.scenes[-1].time_ref) == 0
    first_ns = stamp_to_ns(camera.scenes[-1].header.stamp) + 1_500_000_000

    def seen() -> dict[str, Any] | None:
        by_stamp = [{stamp_to_ns(m.header.stamp): m for m in topic.messages} for topic in topics.values()]
        common = [stamp for stamp in set.intersection(*map(set, by_stamp)) if stamp >= first_ns]
        return dict(zip(topics, (each[common[0]] for each in by_stamp), strict=True)) if common else None

    return dict(wait_until(seen, "an image and all that belongs to it", 60.0))


def test_what_is_filmed_is_the_world_of_the_seed(client: DecafClient, tmp_path: Path) -> None:
    with filming(client, tmp_path, seeds=f"[{SEED + 1}]", depth="true", depth_encoding="16UC1") as camera:
        view = show(camera, SEED)
    expected = sample_episode(SEED).render(camera.scene_time(stamp_to_ns(view["image"].header.stamp)))
    assert np.array_equal(pixels(view["image"]), expected.image_rgb)
    assert np.array_equal(pixels(view["ground_truth"]), expected.instances_hw)
    decoded = frame_from_image(view["image"]).image_rgb.astype(int)
    jpeg = cv2.imdecode(np.frombuffer(view["image/compressed"].data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded - jpeg).mean() < 5
    millimetres = np.frombuffer(view["depth"].data, np.uint16).reshape(expected.depth_hw.shape)
    assert np.allclose(millimetres * 1e-3, expected.depth_hw, atol=0.00051)
    assert view["camera_info"].k.tolist() == pytest.approx(expected.intrinsics.ravel().tolist())
    # The transform takes a point of the camera's frame to where the truth has it: by hand, q v q*.
    transform = view["camera_transform"]
    assert (transform.header.frame_id, transform.child_frame_id) == ("table", "camera")
    q, t = transform.transform.rotation, transform.transform.translation
    axis, point = np.array([q.x, q.y, q.z]), np.array([0.1, -0.2, 0.9])
    turned = point + 2 * q.w * np.cross(axis, point) + 2 * np.cross(axis, np.cross(axis, point))
    world = expected.world_from_camera @ [*point, 1.0]
    assert turned + np.array([t.x, t.y, t.z]) == pytest.approx(world[:3])


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    path = tmp_path / "scene.json"
    path.write_text(SCENE.to_json())
    return path


def test_the_arm_does_what_it_is_told_by_points(client: DecafClient, tmp_path: Path, scene_file: Path) -> None:
    with filming(client, tmp_path, scene_file=scene_file) as camera:
        wait_until(lambda: camera.statuses and camera.statuses[-1]["state"] == "idle", "the arm to be idle")
        refusals = {
            "unknown frame 'kitchen'; known are camera and table": camera.order("pick", (0.0, 0.1, 0.05), frame="kitchen"),
            "nothing is at (0.200, 0.300, 0.000) m": camera.order("pick", (0.2, 0.3, 0.0)),
            "the gripper cannot lift a plate": camera.order("pick", (0.0, -0.15, 0.01)),
            "the hand holds nothing": camera.order("place", (0.0, 0.0, 0.0)),
            "push takes two points, from and to, got 1": camera.order("push", (0.0, 0.1, 0.05)),
            "a point has three finite coordinates": camera.order("pick", (float("nan"), 0.1, 0.05)),
        }
        for reason, status in refusals.items():
            assert (status["outcome"], status["message"], status["holds"]) == ("refused", reason, "false")

        # Where the can is in the camera's frame, at a time of the camera's choice: it sways.
        stamp_s = stamp_to_ns(camera.scenes[-1].header.stamp) // 1_000_000_000 + 3
        pose = SCENE.camera.world_from_camera(camera.scene_time(stamp_s * 1_000_000_000))
        x, y, z = (np.linalg.inv(pose) @ [0.0, 0.1, 0.05, 1.0])[:3].tolist()
        picked = camera.order("pick", (x, y, z), frame="camera", stamp_s=stamp_s)
        assert (picked["outcome"], picked["state"], picked["holds"]) == ("done", "idle", "true"), picked
        assert camera.held[-1] == CAN + 1
        far = camera.order("place", (0.5, 0.8, 0.0))
        assert (far["outcome"], far["message"]) == ("refused", "it is out of reach")
        placed = camera.order("place", (0.05, 0.2, 0.0))
        assert (placed["outcome"], placed["holds"]) == ("done", "false")
        wait_until(lambda: camera.held[-1] == 0, "the hand to be empty")
        assert camera.order("push", (0.05, 0.2, 0.05), (0.05, 0.05, 0.0))["outcome"] == "done"
        assert camera.order("pick", (0.05, 0.06, 0.05))["outcome"] == "done", "it is where it was pushed to"
    assert "the arm refuses to pick: unknown frame 'kitchen'" in camera.process.output()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda scene: scene["things"][0].update(kind="muk"), "unknown object 'muk'; known are mug, bowl"),
        (lambda scene: scene["things"][0].update(colour="beige"), "unknown colour 'beige'; known are red"),
        (lambda scene: scene.update(actions=[{"verb": "juggle"}]), "unknown action 'juggle'; known are pick, place"),
        (lambda scene: scene["things"][1].update(xy=[0.0, 0.1]), "stand in each other"),
        (lambda scene: scene.clear(), "missing"),
    ],
)
def test_a_scene_file_that_cannot_be_is_refused_by_name(scene_file: Path, change: Callable[[Any], None], reason: str) -> None:
    scene = json.loads(SCENE.to_json())
    change(scene)
    scene_file.write_text(json.dumps(scene))
    with pytest.raises(ValueError, match=rf"^scene_file '/.*: .*{reason}"):
        source_of_file(scene_file)


@pytest.mark.parametrize(
    ("program", "call"),
    [
        ("decaf_sim_camera", "from decaf_ros.ros.programs import sim_camera; sim_camera()"),
        ("decaf demo", "from decaf_ros.cli.main import main; sys.exit(main(['demo']))"),
        ("decaf demo", "from decaf_ros.cli.main import main; sys.exit(main(['demo', '--pick']))"),
        ("decaf bench", "from decaf_ros.cli.main import main; sys.exit(main(['bench']))"),
    ],
)
def test_without_the_simulator_the_extra_is_named(program: str, call: str) -> None:
    command = [sys.executable, "-c", f"import sys; sys.modules['mujoco'] = None; {call}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    expected = f"{program}: the simulated table needs mujoco, which is not installed: pip install 'decaf_ros[sim]'"
    assert ended.stderr.splitlines() == [expected]
