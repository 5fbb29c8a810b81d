"""Picking up what was found, by the example that a roboticist copies: where it is in space, for the arm, in the gripper."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
from harness import NodeProcess, Recorder, pixels, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import UInt16

from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import mask_image
from decaf_ros.ros.qos import LATCHED_QOS
from decaf_ros.synthetic.table.scene import Action, Camera, Look, Scene, Thing

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pick_by_sentence.py"
MUG = 0
SCENE = Scene(
    things=(Thing("mug", "red", 1.0, (0.0, 0.1), 0.0), Thing("can", "blue", 1.0, (-0.05, -0.1), 0.0)),
    actions=(Action("push", 1, (0.05, -0.1)),),
    camera=Camera(target=(0.0, 0.0, 0.05), distance=0.9, azimuth=0.4, elevation=0.8, fov_y=0.8, sway=(0.1, 0.0, 0.0)),
    look=Look(),
)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = util.spec_from_file_location("pick_by_sentence", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nodes(client: DecafClient, tmp_path: Path) -> Iterator[None]:
    scene_file = tmp_path / "scene.json"
    scene_file.write_text(SCENE.to_json())
    camera = NodeProcess("sim_camera", tmp_path / "camera.log", {"scene_file": scene_file, "depth": "true"})
    node = NodeProcess("node", tmp_path / "node.log", {"depth": "true"})
    try:
        client.wait_until_ready()
        yield
    finally:
        statuses = node.stop(), camera.stop()
    assert statuses == (0, 0), node.output() + camera.output()


def test_what_was_pointed_out_ends_up_in_the_gripper(nodes: None, client: DecafClient, example: ModuleType) -> None:
    truths = Recorder(client, "ground_truth", Image)
    held: list[int] = []
    client.node.create_subscription(UInt16, "ground_truth/held", lambda message: held.append(message.data), LATCHED_QOS)

    def pointed_out() -> int | None:
        truth = truths.next("an image", 60.0)
        mask = mask_image(pixels(truth) == MUG + 1, truth.header)
        answer = client.add_object(label="mug", mask=mask, stamp=truth.header.stamp)
        return answer.object.id if answer.success else None  # the node may not have followed that very image

    mug = wait_until(pointed_out, "the mug to be tracked", 60.0)
    picker = example.Client()
    try:
        frames, arm = example.Frames(picker), example.Arm(picker)
        arm.wait_until_idle()
        place = frames.take(picker.where(mug), "table")
        # The middle of what is seen of it: a mug is 8 to 10 cm wide and high, and stands where the scene has it.
        assert (place.point.x, place.point.y, place.point.z) == pytest.approx((0.0, 0.1, 0.05), abs=0.05)
        arm.pick(place)
        wait_until(lambda: held and held[-1] == MUG + 1, "the mug to be in the gripper")
        with pytest.raises(example.PickError, match=r"the arm refused to pick at .*: the hand holds something"):
            arm.pick(place)
    finally:
        picker.destroy_node()
