"""Between ROS messages and the types of decaf_ros: images, stamps and tracked objects.

Own code in place of cv_bridge: that one needs a ROS distribution, does not check the length of the data and costs a copy. How
camera images are decoded is in :mod:`decaf_ros.imaging`, which needs no ROS.
"""

from __future__ import annotations

import sys
from array import array

import cv2
import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from decaf_ros.datatypes import BoolArray, Frame, ObjectMask, Segmentation, UInt8Array, UInt16Array, Visibility
from decaf_ros.imaging import NANOSECONDS_PER_SECOND
from decaf_ros.msg import TrackedObject, TrackedObjectArray

_OUTPUT_LAYOUTS = {"mono8": (np.uint8, 1), "mono16": (np.uint16, 1), "rgb8": (np.uint8, 3), "32FC1": (np.float32, 1)}


def stamp_from_ns(stamp_ns: int) -> Time:
    """The ``builtin_interfaces/Time`` of a number of nanoseconds."""
    sec, nanosec = divmod(stamp_ns, NANOSECONDS_PER_SECOND)
    return Time(sec=sec, nanosec=nanosec)


def make_header(stamp_ns: int, frame_id: str) -> Header:
    """The header of everything that is derived from the camera image with this stamp and frame."""
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)


def frame_header(frame: Frame) -> Header:
    """The header of everything that is derived from a frame."""
    return make_header(frame.stamp_ns, frame.frame_id)


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
    image.data = byte_array(values)
    return image


def jpeg_from_rgb(image_rgb: UInt8Array, header: Header, quality: int) -> CompressedImage:
    """Encode ``(H, W, 3)`` uint8 RGB as a JPEG message for image_transport's "compressed"; quality 1 to 100."""
    return _compressed(jpeg_file(image_rgb, quality), "rgb8; jpeg compressed bgr8", header)


def jpeg_file(image_rgb: UInt8Array, quality: int) -> npt.NDArray[np.uint8]:
    """``(bytes,)`` uint8: ``(H, W, 3)`` uint8 RGB as a JPEG file; quality 1 to 100."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(encoded, dtype=np.uint8)


def png_from_array(values: UInt8Array | UInt16Array, header: Header) -> CompressedImage:
    """Encode ``(H, W)`` uint8 or uint16 without loss as a PNG message for image_transport's "compressed"."""
    _, encoded = cv2.imencode(".png", values)
    # image_transport, too, ends with a blank where a colour format would stand.
    return _compressed(encoded, f"mono{8 * values.itemsize}; png compressed ", header)


def _compressed(encoded: npt.NDArray[np.uint8], image_format: str, header: Header) -> CompressedImage:
    message = CompressedImage(header=header, format=image_format)
    message.data = byte_array(encoded)
    return message


def byte_array(values: np.ndarray) -> array[int]:
    """A copy as rclpy takes it as it is; it checks and copies anything else element by element, 200 ms for a 720p image."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def mask_pixels(mask_hw: BoolArray) -> UInt8Array:
    """A ``(H, W)`` bool mask as uint8: 255 inside, 0 outside."""
    return mask_hw.view(np.uint8) * np.uint8(255)


def mask_image(mask_hw: BoolArray, header: Header) -> Image:
    """A ``(H, W)`` bool mask as mono8: 255 inside, 0 outside."""
    return image_from_array(mask_pixels(mask_hw), "mono8", header)


def region(box_xyxy: tuple[int, int, int, int]) -> RegionOfInterest:
    """A box ``(x_min, y_min, x_max, y_max)`` in pixels, max exclusive."""
    x_min, y_min, x_max, y_max = box_xyxy
    return RegionOfInterest(x_offset=x_min, y_offset=y_min, width=x_max - x_min, height=y_max - y_min)


def tracked_object(tracked: ObjectMask) -> TrackedObject:
    """One object as a message, without its mask."""
    return TrackedObject(
        id=tracked.object_id,
        query_id=tracked.query_id,
        label=tracked.label,
        state=TrackedObject.VISIBLE if tracked.visibility is Visibility.VISIBLE else TrackedObject.LOST,
        score=tracked.score,
        presence=tracked.presence,
        attention_consistency=tracked.attention_consistency,
        box=region(tracked.box_xyxy),
        pixel_count=tracked.pixel_count,
    )


def tracked_objects(segmentation: Segmentation) -> TrackedObjectArray:
    """All objects of a frame under the frame's own header, ascending by id."""
    ordered = sorted(segmentation.objects, key=lambda tracked: tracked.object_id)
    return TrackedObjectArray(header=frame_header(segmentation.frame), objects=list(map(tracked_object, ordered)))
