"""Camera images as ROS carries them, decoded to frames: free of ROS itself, so that the node and bag files share it.

Messages are taken by their fields: those of rclpy serve as well as those that are read from a bag without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import cv2
import numpy as np

from decaf_ros.datatypes import Frame, UInt8Array
from decaf_ros.image_files import check_size, walk
from decaf_ros.text import brief, quoted

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
# tf2 has no limit; what is published bears this name once more for every frame.
_MOST_FRAME_ID = 256
_CHECK_LINK = "check the camera driver and the link to it"


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


def checked_stamp_ns(stamp: StampMessage) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time`` that is one.

    Raises:
        ValueError: it is before 1970, or its nanoseconds make a second or more: that is no stamp of a camera, and what is made
            of the image could not bear it.
    """
    if stamp.sec < 0 or stamp.nanosec >= NANOSECONDS_PER_SECOND:
        raise ValueError(f"its stamp is no time: {stamp.sec} s and {stamp.nanosec} ns; check the camera driver")
    return stamp_to_ns(stamp)


def frame_from_image(image: ImageMessage, max_pixels: int | None = None) -> Frame:
    """Decode a camera image.

    Packed rgb8 is not copied: the frame then shares the memory of the message, which must not be written to. mono16 is scaled
    so that 65535 becomes 255.

    Args:
        image: rgb8, bgr8, rgba8, bgra8, mono8 or mono16 in either byte order, rows padded to ``step`` or not; with cv_bridge
            installed, every encoding that it converts to rgb8, such as bayer_rggb8 and yuv422.
        max_pixels: larger images are refused; ``None`` for those above :data:`decaf_ros.image_files.MOST_PIXELS`.

    Raises:
        ValueError: another encoding, too many pixels or none, a ``step`` too small for the width, less data than
            ``height * step`` bytes, a stamp that is no time, or a frame_id of more than 256 characters.
    """
    stamp_ns, frame_id = _checked_header(image.header)
    _check_length(image)
    check_size(image.width, image.height, max_pixels)
    rgb = _rgb(image) if image.encoding in _CAMERA_LAYOUTS else _rgb_by_cv_bridge(image)
    return Frame(stamp_ns, frame_id, rgb)


def frame_from_compressed(image: CompressedImageMessage, max_pixels: int | None = None) -> Frame:
    """Decode a JPEG or PNG image, with the channels in the order that image_transport takes them to be in.

    An orientation in the file is ignored, as image_transport does: pixels stay where the camera's calibration has them. Of
    16-bit samples the upper 8 bits are taken; transparency is dropped.

    Args:
        image: its ``format`` is "jpeg", "png", or as image_transport writes it: "rgb8; jpeg compressed bgr8".
        max_pixels: larger images are refused before they are decoded, as by :func:`frame_from_image`.

    Raises:
        ValueError: data that is no JPEG or PNG image, breaks off or would cost much more than its image; too many pixels, a
            Bayer mosaic, a stamp that is no time, or a frame_id of more than 256 characters.
    """
    stamp_ns, frame_id = _checked_header(image.header)
    encoding, _, compression = image.format.partition(";")
    if encoding.startswith("bayer_") and "compressed bgr" not in compression:
        raise ValueError(
            f"a compressed Bayer mosaic (format {quoted(image.format)}) has no colours: use the camera's colour topic"
        )
    with _naming(image):
        file = walk(image.data)
    if file is None:
        raise ValueError(
            f"{_described(image)} are neither a JPEG nor a PNG image "
            f"(image_transport's compressedDepth and theora are not supported): {_CHECK_LINK}"
        )
    check_size(file.width, file.height, max_pixels)
    with _naming(image):
        image_bgr = file.decode()
    # Some publishers encode RGB as if it were BGR. Like image_transport, tell them by what their format string leaves out.
    swapped = encoding.startswith(("rgb", "bgr")) and bool(compression) and "compressed bgr" not in compression
    rgb = image_bgr if swapped else cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return Frame(stamp_ns, frame_id, rgb)


def _checked_header(header: HeaderMessage) -> tuple[int, str]:
    """Stamp in nanoseconds and frame_id, which go into the header of all that is made of the image."""
    if len(header.frame_id) > _MOST_FRAME_ID:
        raise ValueError(
            f"its frame_id has {len(header.frame_id)} characters, at most {_MOST_FRAME_ID} are accepted: "
            f"{quoted(header.frame_id)}; check the camera driver"
        )
    return checked_stamp_ns(header.stamp), header.frame_id


def _described(image: CompressedImageMessage) -> str:
    return f"{len(image.data)} bytes of the format {quoted(image.format)}"


@contextmanager
def _naming(image: CompressedImageMessage) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{_described(image)} cannot be decoded: {error}; {_CHECK_LINK}") from error


def _rgb(image: ImageMessage) -> UInt8Array:
    pixels = _pixels(image)
    if image.encoding == "mono16":
        pixels = _scale_to_8_bits(pixels, bool(image.is_bigendian))
    if image.encoding == "rgb8":
        return np.ascontiguousarray(pixels).reshape(image.height, image.width, 3)
    converted = cv2.cvtColor(pixels.reshape(image.height, image.width, -1), _TO_RGB[image.encoding])
    return converted.astype(np.uint8, copy=False)


def _rgb_by_cv_bridge(image: ImageMessage) -> UInt8Array:
    try:
        from cv_bridge import CvBridge  # type: ignore[import-not-found]  # part of a ROS distribution, not of PyPI
    except ImportError as error:
        raise ValueError(
            f"images with encoding {quoted(image.encoding)} are not supported: use one of {', '.join(_CAMERA_LAYOUTS)}. Others "
            f"are converted by cv_bridge, which cannot be imported ({brief(error)}): install ros-$ROS_DISTRO-cv-bridge, or let "
            "image_proc convert the images"
        ) from error
    try:
        return np.asarray(CvBridge().imgmsg_to_cv2(image, "rgb8"), dtype=np.uint8)
    except Exception as error:  # its own, OpenCV's and numpy's, as it comes
        raise ValueError(
            f"cv_bridge cannot convert an image with encoding {quoted(image.encoding)} to rgb8: {brief(error)}"
        ) from error


def _check_length(image: ImageMessage) -> None:
    expected = image.height * image.step
    if len(image.data) < expected:
        raise ValueError(
            f"the image has {len(image.data)} bytes of data, but height {image.height} x step {image.step} is {expected}; "
            "check the camera driver or the node that resized the image"
        )


def _pixels(image: ImageMessage) -> UInt8Array:
    """A view ``(height, bytes of a row without padding)`` of a camera image's data."""
    sample_bytes, channels = _CAMERA_LAYOUTS[image.encoding]
    row_bytes = image.width * channels * sample_bytes
    if image.step < row_bytes:
        raise ValueError(
            f"step is {image.step} bytes, but a row of {image.width} {image.encoding} pixels takes {row_bytes}; "
            "check the camera driver"
        )
    data = np.frombuffer(image.data, dtype=np.uint8, count=image.height * image.step)
    return data.reshape(image.height, image.step)[:, :row_bytes]


def _scale_to_8_bits(pixels: UInt8Array, big_endian: bool) -> UInt8Array:
    """16-bit samples as bytes, ``(H, 2 W)``, to 8 bits ``(H, W)``: rounded ``value * 255 / 65535``."""
    samples = pixels.view(">u2" if big_endian else "<u2").astype(np.uint32)
    return ((samples + 128) // 257).astype(np.uint8)
