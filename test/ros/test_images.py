"""Camera images over DDS, raw and compressed."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from harness import NodeProcess, Recorder, wait_until
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
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


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hostile_images() -> list[tuple[CompressedImage, str]]:
    """Each with what the node says to it."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    squeeze = zlib.compressobj(9)
    gigabyte = b"".join([*(squeeze.compress(bytes(1 << 20)) for _ in range(1 << 10)), squeeze.flush()])
    good = jpeg_from_rgb(PIXELS, HEADER, 95).data
    cases = [
        ("png", start + b"\x7f\xff\xff\xffIDAT", "camera", 0, "cannot be decoded: it breaks off"),
        (
            "png",
            start + chunk(b"IDAT", gigabyte) + chunk(b"IEND", b""),
            "camera",
            0,
            "inflates to more than its 10 x 10 pixels",
        ),
        ("\x1b" + "x" * 1_000_000, b"nothing", "camera", 0, "(1000001 characters)"),
        ("jpeg", good, "x" * 1_000_000, 0, "its frame_id has 1000000 characters"),
        ("jpeg", good, "camera", 2**32 - 1, "its stamp is no time"),
    ]
    images = []
    for image_format, data, frame_id, nanosec, cause in cases:
        image = CompressedImage(format=image_format, data=data)
        image.header.frame_id, image.header.stamp.nanosec = frame_id, nanosec
        images.append((image, cause))
    return images


def test_hostile_files_and_headers_cost_the_node_nothing(client: DecafClient, tmp_path: Path) -> None:
    log = tmp_path / "decaf_node.log"
    node = NodeProcess("node", log, {"image_transport": "compressed", "max_frame_age_seconds": 0.0})
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    camera = client.node.create_publisher(CompressedImage, "image/compressed", qos)
    masks = Recorder(client, "~/mask", Image)

    def peak_bytes() -> int:
        status = Path(f"/proc/{node.process.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])

    def film(image: CompressedImage) -> None:
        # The world goes on, whatever the nanoseconds are.
        image.header.stamp.sec = int(time.time())
        camera.publish(image)
        time.sleep(0.1)

    def told(image: CompressedImage, cause: str) -> bool:
        film(image)
        return cause in client.diagnostic_values("camera").get("last_rejection", "")

    def mask_of(image: CompressedImage) -> bool:
        film(image)
        return bool(masks.messages)

    good = jpeg_from_rgb(np.tile(PIXELS, (8, 8, 1)), HEADER, 95)
    try:
        client.wait_until_ready()
        wait_until(lambda: mask_of(good), "a mask", 60.0)
        before = peak_bytes()
        for image, cause in hostile_images():
            wait_until(lambda image=image, cause=cause: told(image, cause), cause, 60.0)
        assert peak_bytes() - before < 150_000_000
        masks.messages.clear()
        wait_until(lambda: mask_of(good), "a mask afterwards", 60.0)
    finally:
        client.node.destroy_publisher(camera)
        status = node.stop()
    assert status == 0, node.output()
    assert "Traceback" not in node.output()
    assert max(map(len, node.output().splitlines())) < 2000
