"""Camera images as ROS carries them, decoded to frames: free of ROS itself, so that the node and bag files share it.

Messages are taken by their fields: those of rclpy serve as well as those that are read from a bag without it.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np

from decaf_ros.datatypes import Frame, UInt8Array

NANOSECONDS_PER_SECOND = 1_000_000_000

# Bytes of a sample and samples of a pixel.
_CAMERA_LAYOUTS = {"rgb8": (1, 3), "bgr8": (1, 3), "rgba8": (1, 4), "bgra8": (1, 4), "mono8": (1, 1), "mono16": (2, 1)}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "mono16": cv2.COLOR_GRAY2RGB,
}


class StampMessage(Protocol):
    """``builtin_interfaces/Time``."""

    sec: int
    nanosec: int


class HeaderMessage(Protocol):
    """``std_msgs/Header``."""

    stamp: StampMessage
    frame_id: str


class ImageMessage(Protocol):
    """``sensor_msgs/Image``; ``data`` is anything with the buffer interface."""

    header: HeaderMessage
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """``sensor_msgs/CompressedImage``; ``data`` is anything with the buffer interface."""

    header: HeaderMessage
    format: str
    data: Any


def stamp_to_ns(stamp: StampMessage) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return stamp.sec * NANOSECONDS_PER_SECOND + stamp.nanosec


def frame_from_image(image: ImageMessage) -> Frame:
    """Decode a camera image.

    Packed rgb8 is not copied: the frame then shares the memory of the message, which must not be written to. mono16 is scaled
    so that 65535 becomes 255.

    Args:
        image: rgb8, bgr8, rgba8, bgra8, mono8 or mono16 in either byte order, rows padded to ``step`` or not.

    Raises:
        ValueError: another encoding, an image without pixels, a ``step`` too small for the width, or less data than
            ``height * step`` bytes.
    """
    pixels = _pixels(image)
    if image.encoding == "mono16":
        pixels = _scale_to_8_bits(pixels, bool(image.is_bigendian))
    if image.encoding == "rgb8":
        rgb = np.ascontiguousarray(pixels).reshape(image.height, image.width, 3)
    else:
        converted = cv2.cvtColor(pixels.reshape(image.height, image.width, -1), _TO_RGB[image.encoding])
        rgb = converted.astype(np.uint8, copy=False)
    return Frame(stamp_to_ns(image.header.stamp), image.header.frame_id, rgb)


def frame_from_compressed(image: CompressedImageMessage) -> Frame:
    """Decode a compressed camera image, such as JPEG or PNG.

    An orientation in the file is ignored, as image_transport does: pixels stay where the camera's calibration has them.

    Raises:
        ValueError: no data, or data that OpenCV cannot decode as an image.
    """
    data = np.frombuffer(image.data, dtype=np.uint8)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image_bgr = cv2.imdecode(data, flags) if data.size else None
    if image_bgr is None:
        raise ValueError(
            f"{data.size} bytes of the format '{image.format}' cannot be decoded as an image; JPEG and PNG can "
            "(image_transport's compressedDepth and theora cannot)"
        )
    rgb = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return Frame(stamp_to_ns(image.header.stamp), image.header.frame_id, rgb)


def _pixels(image: ImageMessage) -> UInt8Array:
    """A view ``(height, bytes of a row without padding)`` of a camera image's data."""
    if image.encoding not in _CAMERA_LAYOUTS:
        raise ValueError(
            f"images with encoding '{image.encoding}' are not supported: use one of {', '.join(_CAMERA_LAYOUTS)}"
            " (image_proc converts Bayer images, image_transport republishes compressed ones)"
        )
    if image.height == 0 or image.width == 0:
        raise ValueError(f"the image has no pixels: width {image.width}, height {image.height}; check the camera driver")
    sample_bytes, channels = _CAMERA_LAYOUTS[image.encoding]
    row_bytes = image.width * channels * sample_bytes
    if image.step < row_bytes:
        raise ValueError(
            f"step is {image.step} bytes, but a row of {image.width} {image.encoding} pixels takes {row_bytes}; "
            "check the camera driver"
        )
    expected = image.height * image.step
    if len(image.data) < expected:
        raise ValueError(
            f"the image has {len(image.data)} bytes of data, but height {image.height} x step {image.step} is {expected}; "
            "check the camera driver or the node that resized the image"
        )
    data = np.frombuffer(image.data, dtype=np.uint8, count=expected)
    return data.reshape(image.height, image.step)[:, :row_bytes]


def _scale_to_8_bits(pixels: UInt8Array, big_endian: bool) -> UInt8Array:
    """16-bit samples as bytes, ``(H, 2 W)``, to 8 bits ``(H, W)``: rounded ``value * 255 / 65535``."""
    samples = pixels.view(">u2" if big_endian else "<u2").astype(np.uint32)
    return ((samples + 128) // 257).astype(np.uint8)
