"""Images and what comes with them, of arbitrary content: a frame, or a reason in one short line, at a bounded cost."""

from __future__ import annotations

import array
import math
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from decaf_ros.datatypes import Frame, ObjectMask, Segmentation, Visibility
from decaf_ros.geometry import locate_objects
from decaf_ros.imaging import frame_from_compressed, frame_from_image
from decaf_ros.ros.conversions import frame_header
from decaf_ros.ros.depth import depth_view

MAX_PIXELS = 1_000_000
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

uint32 = st.one_of(st.integers(0, 12), st.sampled_from([480, 65535, 2**31, 2**32 - 1]))
texts = st.one_of(st.text(max_size=20), st.just("x\x1b\n" * 100_000))


def peak_bytes() -> int:
    return 1024 * int(next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")).split()[1])


@contextmanager
def bounded() -> Iterator[None]:
    """Four times the largest image that is accepted, and 50 MB; a second, or five where others compute, too."""
    _CLEAR.write_text("5")  # the peak is what is taken now
    before, start = peak_bytes(), time.process_time()
    yield
    assert peak_bytes() - before < 4 * 3 * MAX_PIXELS + 50_000_000
    assert time.process_time() - start < 5


T = TypeVar("T")


def unless_refused(work: Callable[[], T]) -> T | None:
    """What it gives, or ``None`` after a line that log and diagnostics can bear."""
    try:
        return work()
    except ValueError as error:
        told = str(error)
    assert told.isprintable()
    assert len(told) < 1500
    return None


def frame_or_reason(decode: Callable[[], Frame]) -> None:
    """A frame whose header can be published, or a line."""
    frame = unless_refused(decode)
    if frame is None:
        return
    assert math.prod(frame.size_hw) <= MAX_PIXELS
    header = frame_header(frame)
    assert 0 <= header.stamp.sec < 2**31  # what the message holds; it is not checked before it is sent
    assert len(header.frame_id) <= 256


@st.composite
def headed(draw: st.DrawFn, message: Image | CompressedImage) -> Image | CompressedImage:
    stamp = message.header.stamp
    stamp.sec = draw(st.sampled_from([0, 1, 2**31 - 1, -1, -(2**31)]))
    stamp.nanosec = draw(st.sampled_from([0, 1, 999_999_999, 1_000_000_000, 2**32 - 1]))
    message.header.frame_id = draw(texts)
    return message


@st.composite
def raw_images(draw: st.DrawFn, encodings: tuple[str, ...]) -> Image:
    """Half of them with fields that fit each other."""
    if draw(st.booleans()):
        image = Image(encoding=draw(st.sampled_from(encodings)), width=draw(st.integers(1, 9)), height=draw(st.integers(1, 9)))
        image.step = 8 * image.width
        image.data = array.array("B", draw(st.randoms()).randbytes(image.height * image.step))
        return image
    encoding = draw(st.one_of(st.sampled_from(encodings), texts))
    image = Image(encoding=encoding, width=draw(uint32), height=draw(uint32), is_bigendian=draw(st.integers(0, 255)))
    image.step = draw(st.one_of(st.just(min(8 * image.width, 2**32 - 1)), uint32))
    fitting = image.height * image.step
    image.data = array.array("B", bytes(draw(st.sampled_from([0, 1, 100, fitting if fitting < 10_000 else 7]))))
    return image


@examples(300)
@given(st.data())
def test_raw_images(data: st.DataObject) -> None:
    encodings = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "bayer_rggb8", "8UC65535", "")
    image = data.draw(headed(data.draw(raw_images(encodings))))
    with bounded():
        frame_or_reason(lambda: frame_from_image(image, MAX_PIXELS))


NOISE = np.random.default_rng(0).integers(0, 256, (19, 23, 3), dtype=np.uint8)


def encoded(suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, NOISE, options)[1].tobytes()


def inserted(draw: st.DrawFn, parts: list[bytes], others: list[bytes]) -> bytes:
    """Parts of a file after surgery: some doubled, moved, left out, or from elsewhere."""
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, len(parts)))
        match draw(st.integers(0, 3)):
            case 0:
                parts.insert(position, draw(st.sampled_from([*others, *parts])))
            case 1:
                other = draw(st.sampled_from(others))
                parts[position:position] = [other] * min(draw(st.sampled_from([50, 60_000])), 1 + 2_000_000 // len(other))
            case 2:
                parts = [part for index, part in enumerate(parts) if index != position]
            case _:
                parts = [*parts[position:], *parts[:position]]
    return b"".join(parts)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """Two megabytes of two gigabytes."""
    squeeze = zlib.compressobj(9)
    start, zeros = squeeze.compress(b""), squeeze.compress(bytes(100_000_000)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return start + zeros * 20


BOMB = bomb()
CHUNKS = [
    chunk(b"IDAT", BOMB),
    chunk(b"IDAT", zlib.compress(NOISE.tobytes())),
    chunk(b"iCCP", b"a\0\0" + BOMB),
    chunk(b"zTXt", b"a\0\0" + BOMB),
    chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB),
    chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
    chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 23, 19, 0, 0, 1, 10, 0, 0)),
    chunk(b"fdAT", bytes(4) + BOMB),
    chunk(b"PLTE", bytes(range(256)) * 3),
    chunk(b"tRNS", bytes(256)),
    chunk(b"eXIf", b"MM\0*" + struct.pack(">IH", 8, 65535)),
    chunk(b"abCd"),
    struct.pack(">I", 2**31 - 1) + b"IDAT",
]


@st.composite
def png_files(draw: st.DrawFn) -> bytes:
    sides = st.sampled_from([1, 3, 10, 40, 1000, 0, 60_000, 2**31 - 1, 2**32 - 1])
    depth, colour_type = draw(st.sampled_from([(8, 2), (8, 0), (1, 0), (4, 3), (16, 6), (8, 4), (3, 2), (8, 7)]))
    width, height = draw(sides), draw(sides)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, draw(st.integers(0, 1)))
    fitting = min(2_000_000, height * (1 + width * 8)) if draw(st.booleans()) else 100
    data = draw(st.sampled_from([zlib.compress(bytes(fitting)), BOMB]))
    made = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND")]
    whole = encoded(".png")
    written = [whole[:8], whole[8:33], whole[33:-12], whole[-12:]]
    return inserted(draw, draw(st.sampled_from([made, written])), CHUNKS)


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def frame_header_of(marker: int, width: int, height: int, components: int, bits: int = 8) -> bytes:
    each = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    return segment(marker, struct.pack(">BHHB", bits, height, width, components) + each)


SEGMENTS = [
    *(frame_header_of(marker, 23, 19, 3) for marker in (0xC0, 0xC2, 0xC3, 0xC9)),
    frame_header_of(0xC2, 1000, 1000, 4),
    frame_header_of(0xC0, 65535, 65535, 3),
    frame_header_of(0xC0, 23, 19, 200, 12),
    segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0"),
    segment(0xC4, b"\0\1" + bytes(16)),
    segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes(10),
    segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 0, 0])) + bytes(1000),
    segment(0xDD, b"\0\1"),
    segment(0xE1, b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 65535)),
    segment(0xEF),
    b"\xff\xda\xff\xff",
    b"\xff\xd0",
    b"\xff" * 1000,
    b"\xff\0" * 1000,
    b"\xff\xd9",
]


@st.composite
def jpeg_files(draw: st.DrawFn) -> bytes:
    whole = draw(st.sampled_from([encoded(".jpg"), encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)]))
    starts = [0, *(at for at in range(2, len(whole) - 1) if whole[at] == 0xFF and whole[at + 1] >= 0xC0)]
    parts = [whole[start:stop] for start, stop in zip(starts, [*starts[1:], len(whole)], strict=True)]
    return parts[0] + inserted(draw, parts[1:], SEGMENTS)


@st.composite
def damaged(draw: st.DrawFn, file: bytes) -> bytes:
    """Some bytes changed, and the end missing."""
    data = bytearray(file[: draw(st.one_of(st.none(), st.integers(0, len(file))))])
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, min(len(data), 2000) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@pytest.mark.parametrize("files", [png_files(), jpeg_files(), st.binary(max_size=100)], ids=["png", "jpeg", "neither"])
@examples(200)
@given(st.data())
def test_image_files(files: st.SearchStrategy[bytes], data: st.DataObject) -> None:
    file = data.draw(files)
    if data.draw(st.booleans()):
        file = data.draw(damaged(file))
    formats = st.one_of(st.sampled_from(["jpeg", "png", "rgb8; png compressed ", "bayer_rggb8; jpeg compressed"]), texts)
    image = CompressedImage(format=data.draw(formats), data=array.array("B", file))
    if data.draw(st.integers(0, 3)) == 0:
        image = data.draw(headed(image))
    with bounded():
        frame_or_reason(lambda: frame_from_compressed(image, MAX_PIXELS))


number = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 500.0, 1e308, 5e-324, math.nan, math.inf]))


@st.composite
def camera_infos(draw: st.DrawFn) -> CameraInfo:
    info = CameraInfo(width=draw(uint32), height=draw(uint32))
    info.k = np.array(draw(st.lists(number, min_size=9, max_size=9)))
    info.p = np.array(draw(st.one_of(st.just([0.0] * 12), st.lists(number, min_size=12, max_size=12))))
    info.binning_x, info.binning_y = draw(uint32), draw(uint32)
    if draw(st.booleans()):
        info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = (draw(uint32) for _ in range(4))
    if draw(st.booleans()):  # one that can be used, but for a number
        info.width, info.height, info.binning_x, info.binning_y = 8, 8, 0, 0
        info.k = np.array([500.0, 0, 4, 0, 500, 4, 0, 0, 1])
        info.k[draw(st.sampled_from([0, 2, 4, 5]))] = draw(number)
    return info


depths = st.sampled_from([1.0, 2.0, 1e-45, 1e-39, 1e-7, 3e38, -1.0, 0.0, math.nan, math.inf, 12.5])


@examples(250)
@given(st.data())
def test_depth_and_calibration(data: st.DataObject) -> None:
    """Whatever they hold: numbers that are published are numbers."""
    depth = data.draw(raw_images(("32FC1", "16UC1", "mono16")))
    if data.draw(st.booleans()):
        metres = np.array(data.draw(st.lists(depths, min_size=64, max_size=64)), np.float32)
        depth.encoding, depth.width, depth.height, depth.step, depth.is_bigendian = "32FC1", 8, 8, 32, 0
        depth.data = array.array("B", metres.tobytes())
    mask = ObjectMask(1, 1, "box", np.ones((8, 8), np.bool_), 0.5, 0.5, Visibility.VISIBLE)
    frame = Frame(0, "camera", np.zeros((8, 8, 3), np.uint8))
    with bounded():
        info = data.draw(camera_infos())
        view = unless_refused(lambda: depth_view(depth, info, (8, 8), MAX_PIXELS))
        for found in [] if view is None else locate_objects(Segmentation(frame, (mask,)), view):
            placement = found.placement
            values = (placement.centroid_xyz, placement.covariance, placement.box_center_xyz, placement.box_size_xyz)
            assert all(np.isfinite(each).all() for each in (*values, found.points.xyz))
