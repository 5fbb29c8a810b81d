"""Between ROS messages and the types of decaf_ros: images, stamps and tracked objects.

Own code in place of cv_bridge: that one needs a ROS distribution, does not check the length of the data and costs a copy.
"""

from __future__ import annotations

import sys
from array import array

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from decaf_ros.datatypes import BoolArray, Frame, ObjectMask, Segmentation, UInt8Array, Visibility
from decaf_ros.msg import TrackedObject, TrackedObjectArray

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
_OUTPUT_LAYOUTS = {"mono8": (np.uint8, 1), "mono16": (np.uint16, 1), "rgb8": (np.uint8, 3), "32FC1": (np.float32, 1)}


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return stamp.sec * NANOSECONDS_PER_SECOND + stamp.nanosec


def stamp_from_ns(stamp_ns: int) -> Time:
    """The ``builtin_interfaces/Time`` of a number of nanoseconds."""
    sec, nanosec = divmod(stamp_ns, NANOSECONDS_PER_SECOND)
    return Time(sec=sec, nanosec=nanosec)


def make_header(stamp_ns: int, frame_id: str) -> Header:
    """The header of everything that is derived from the camera image with this stamp and frame."""
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)


def frame_from_image(image: Image) -> Frame:
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


def _pixels(image: Image) -> UInt8Array:
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


def image_from_array(values: np.ndarray, encoding: str, header: Header) -> Image:
    """Encode an array as an image message.

    Args:
        values: ``(H, W)`` uint8 for mono8, uint16 for mono16, float32 for 32FC1; ``(H, W, 3)`` uint8 for rgb8.
        encoding: one of the four.
        header: goes into the message as it is; see ``make_header``.

    Raises:
        ValueError: another encoding, or an array of the wrong type or shape for it.
    """
    if encoding not in _OUTPUT_LAYOUTS:
        raise ValueError(f"cannot encode images as '{encoding}': use one of {', '.join(_OUTPUT_LAYOUTS)}")
    dtype, channels = _OUTPUT_LAYOUTS[encoding]
    shape_fits = values.ndim == 2 if channels == 1 else values.ndim == 3 and values.shape[2] == channels
    if values.dtype != dtype or not shape_fits:
        shape = "(H, W)" if channels == 1 else f"(H, W, {channels})"
        raise ValueError(f"{encoding} needs {np.dtype(dtype).name} of shape {shape}, got {values.dtype.name} of {values.shape}")
    height, width = values.shape[:2]
    image = Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=int(sys.byteorder == "big"))
    image.step = width * channels * values.itemsize
    # rclpy takes an array.array as it is; it checks and copies anything else element by element, 200 ms for a 720p image.
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    image.data = data
    return image


def mask_image(mask_hw: BoolArray, header: Header) -> Image:
    """A ``(H, W)`` bool mask as mono8: 255 inside, 0 outside."""
    return image_from_array(mask_hw.astype(np.uint8) * np.uint8(255), "mono8", header)


def tracked_object(tracked: ObjectMask) -> TrackedObject:
    """One object as a message, without its mask."""
    x_min, y_min, x_max, y_max = tracked.box_xyxy
    return TrackedObject(
        id=tracked.object_id,
        query_id=tracked.query_id,
        label=tracked.label,
        state=TrackedObject.VISIBLE if tracked.visibility is Visibility.VISIBLE else TrackedObject.LOST,
        score=tracked.score,
        presence=tracked.presence,
        attention_consistency=tracked.attention_consistency,
        box=RegionOfInterest(x_offset=x_min, y_offset=y_min, width=x_max - x_min, height=y_max - y_min),
        pixel_count=tracked.pixel_count,
    )


def tracked_objects(segmentation: Segmentation) -> TrackedObjectArray:
    """All objects of a frame under the frame's own header, ascending by id."""
    frame = segmentation.frame
    ordered = sorted(segmentation.objects, key=lambda tracked: tracked.object_id)
    return TrackedObjectArray(header=make_header(frame.stamp_ns, frame.frame_id), objects=list(map(tracked_object, ordered)))
