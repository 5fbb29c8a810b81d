"""What the demo records: the image of a scene that it waits for, by what the camera tells of the scene's time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from harness import wait_until
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, TimeReference

from decaf_ros.cli.recording import Recorder
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import image_from_array, make_header, stamp_from_ns
from decaf_ros.ros.qos import LATCHED_QOS

S = 1_000_000_000


@pytest.fixture
def camera(client: DecafClient) -> Iterator[tuple[Publisher, Publisher]]:
    """What the simulated camera has for a scene and for its images."""
    publishers = (
        client.node.create_publisher(TimeReference, "scene", LATCHED_QOS),
        client.node.create_publisher(Image, "image", 10),
    )
    yield publishers
    for publisher in publishers:
        client.node.destroy_publisher(publisher)


def show(scenes: Publisher, name: str, stamp_ns: int, time_ns: int) -> None:
    scenes.publish(TimeReference(header=make_header(stamp_ns, ""), time_ref=stamp_from_ns(time_ns), source=name))


def test_the_image_of_a_scene_is_waited_for(client: DecafClient, camera: tuple[Publisher, Publisher]) -> None:
    scenes, images = camera
    show(scenes, "seed 7", 40 * S, 0)  # the same scene, but at another time: whoever comes later is told, too
    recorder = Recorder(client)
    recorder.start()
    wait_until(lambda: images.get_subscription_count() and scenes.get_subscription_count(), "the recorder")
    with ThreadPoolExecutor(1) as pool:
        # Once its clock was set, the camera says that the scene was at 2 s at 103 s: it began at 101 s.
        waiting = pool.submit(recorder.wait_for_scene, "seed 7", 5.0, 100 * S, 60.0)
        for tenths, scene in ((450, ""), (990, ""), (1010, "seed 6"), (1030, "seed 7"), (1059, ""), (1065, "")):
            stamp_ns = tenths * S // 10
            if scene:
                show(scenes, scene, stamp_ns, stamp_ns - 101 * S)
                wait_until(lambda name=scene: recorder.scene_name == name, "word of the scene")  # type: ignore[misc]
            assert not waiting.done()
            images.publish(image_from_array(np.zeros((4, 4, 3), np.uint8), "rgb8", make_header(stamp_ns, "camera")))
        assert waiting.result(30.0) == 106.5 * S


def test_a_scene_that_does_not_come_is_named(client: DecafClient) -> None:
    recorder = Recorder(client)
    with pytest.raises(TimeoutError, match=r"no image of seed 9 at 1\.0 s came .* within 0\.1 s; it shows "):
        recorder.wait_for_scene("seed 9", 1.0, 0, 0.1)
