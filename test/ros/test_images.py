"""Camera images over DDS, raw and compressed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rclpy
from harness import wait_until
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import image_from_array, jpeg_from_rgb, make_header
from decaf_ros.ros.images import ImageInput

PIXELS = np.full((16, 24, 3), (200, 30, 0), dtype=np.uint8)
HEADER = make_header(1_500_000_000, "camera")


@pytest.mark.parametrize(
    ("transport", "kind", "topic", "message"),
    [
        ("raw", Image, "/camera/image_raw", image_from_array(PIXELS, "rgb8", HEADER)),
        ("compressed", CompressedImage, "/camera/image_raw/compressed", jpeg_from_rgb(PIXELS, HEADER, 95)),
    ],
)
def test_a_remapped_topic_is_heard_under_each_transport(
    client: DecafClient, transport: str, kind: type, topic: str, message: Any
) -> None:
    node = rclpy.create_node("listener", cli_args=["--ros-args", "-r", "image:=/camera/image_raw"])
    received: list[Any] = []
    images = ImageInput(node, transport, max_pixels=PIXELS.shape[0] * PIXELS.shape[1])
    images.subscribe(received.append, QoSProfile(depth=1), ReentrantCallbackGroup())
    camera = client.node.create_publisher(kind, topic, QoSProfile(depth=1))

    def film() -> bool:
        camera.publish(message)
        rclpy.spin_once(node, timeout_sec=0.05)
        return bool(received)

    try:
        assert images.topic == topic
        wait_until(film, "an image")
        frame = images.frame(received[0])
        assert (frame.stamp_ns, frame.frame_id) == (1_500_000_000, "camera")
        assert np.abs(frame.image_rgb.astype(int) - PIXELS).max() <= 3
        with pytest.raises(ValueError, match="parameter max_image_pixels"):
            ImageInput(node, transport, max_pixels=1).frame(received[0])
    finally:
        client.node.destroy_publisher(camera)
        node.destroy_node()
