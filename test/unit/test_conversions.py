"""Image messages made byte by byte, against the pixels they stand for."""

import array
import importlib.util
import math
import struct
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from decaf_ros import imaging
from decaf_ros.datatypes import Frame, ObjectMask, Segmentation, Visibility
from decaf_ros.imaging import frame_from_compressed
from decaf_ros.msg import TrackedObject
from decaf_ros.ros import conversions


def camera_image(encoding: str, rows: list[list[int]], width: int, big_endian: bool = False) -> Image:
    """An image from the bytes of its rows, padding included."""
    image = Image(encoding=encoding, height=len(rows), width=width, step=len(rows[0]), is_bigendian=int(big_endian))
    image.header.stamp.sec, image.header.stamp.nanosec = 12, 34
    image.header.frame_id = "camera_link"
    image.data = array.array("B", [byte for row in rows for byte in row])
    return image


@pytest.mark.parametrize(
    ("encoding", "rows", "big_endian", "expected"),
    [
        ("rgb8", [[1, 2, 3, 4, 5, 6]], False, [[[1, 2, 3], [4, 5, 6]]]),
        ("bgr8", [[1, 2, 3, 4, 5, 6]], False, [[[3, 2, 1], [6, 5, 4]]]),
        ("rgba8", [[1, 2, 3, 99, 4, 5, 6, 99]], False, [[[1, 2, 3], [4, 5, 6]]]),
        ("bgra8", [[1, 2, 3, 99, 4, 5, 6, 99]], False, [[[3, 2, 1], [6, 5, 4]]]),
        ("mono8", [[7, 8]], False, [[[7, 7, 7], [8, 8, 8]]]),
        # 0x0101 = 257 is exactly 1 of 255, 0xFFFF is 255; as the other byte order 0x8000 would be 0x0080 = 128, which is 0.
        ("mono16", [[0x01, 0x01, 0xFF, 0xFF]], False, [[[1, 1, 1], [255, 255, 255]]]),
        ("mono16", [[0x00, 0x80, 0x00, 0x00]], False, [[[128, 128, 128], [0, 0, 0]]]),
        ("mono16", [[0x80, 0x00, 0x00, 0x80]], True, [[[128, 128, 128], [0, 0, 0]]]),
    ],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_every_encoding_and_padding(encoding, rows, big_endian, expected, padding):
    rows = [row + [222] * padding for row in rows * 2]
    frame = imaging.frame_from_image(camera_image(encoding, rows, 2, big_endian))
    assert frame.image_rgb.tolist() == expected * 2
    assert frame.image_rgb.flags.c_contiguous
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_034, "camera_link")


def test_packed_rgb8_shares_the_memory_of_the_message():
    image = camera_image("rgb8", [[1, 2, 3]], 1)
    frame = imaging.frame_from_image(image)
    image.data[0] = 200
    assert frame.image_rgb[0, 0, 0] == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": array.array("B", [0] * 17)}, "17 bytes of data, but height 3 x step 6 is 18"),
        ({"data": array.array("B")}, "0 bytes of data"),
        ({"step": 5}, "step is 5 bytes, but a row of 2 rgb8 pixels takes 6"),
        ({"height": 0}, "no pixels: width 2, height 0"),
        ({"width": 0}, "no pixels: width 0, height 3"),
        ({"height": 2**32 - 1}, "18 bytes of data"),
    ],
)
def test_broken_images_are_refused_with_the_cause(change, message):
    image = camera_image("rgb8", [[0] * 6] * 3, 2)
    for name, value in change.items():
        setattr(image, name, value)
    with pytest.raises(ValueError, match=message):
        imaging.frame_from_image(image)


@pytest.mark.parametrize(
    ("sec", "nanosec", "frame_id", "message"),
    [
        (-1, 0, "camera", "stamp is no time: -1 s and 0 ns"),
        (2**31 - 1, 1_000_000_000, "camera", "stamp is no time: 2147483647 s and 1000000000 ns"),
        (1, 0, "x" * 257, r"frame_id has 257 characters, at most 256 are accepted: 'x+'\.\.\. \(257"),
        (1, 0, "\x1b[2J" * 100, r"'\\x1b\[2J"),
    ],
)
def test_headers_that_no_answer_could_bear_are_refused(sec, nanosec, frame_id, message):
    raw, file = camera_image("rgb8", [[0] * 6] * 3, 2), compressed_image(encoded(".png", RED_BGR), "png")
    for image, decode in ((raw, imaging.frame_from_image), (file, frame_from_compressed)):
        image.header.stamp.sec, image.header.stamp.nanosec, image.header.frame_id = sec, nanosec, frame_id
        with pytest.raises(ValueError, match=message):
            decode(image)


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is not None, reason="cv_bridge is installed")
@pytest.mark.parametrize("encoding", ["bayer_rggb8", "yuv422_yuy2", "nv12", "", "8UC65535"])
def test_without_cv_bridge_other_encodings_are_refused_with_the_way_out(encoding):
    with pytest.raises(ValueError, match=f"'{encoding}' are not supported: use one of rgb8, .*cv_bridge.*-cv-bridge"):
        imaging.frame_from_image(camera_image(encoding, [[0] * 4] * 2, 2))


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is not None, reason="cv_bridge is installed")
def test_an_encoding_of_a_megabyte_is_told_in_a_line():
    with pytest.raises(ValueError, match=r"encoding '\\n\\x1b") as refused:
        imaging.frame_from_image(camera_image("\n\x1b" + "x" * 1_000_000, [[0] * 4] * 2, 2))
    assert len(str(refused.value)) < 1000
    assert str(refused.value).isprintable()


def test_cv_bridge_converts_other_encodings():
    pytest.importorskip("cv_bridge")
    # U, Y, V, Y: without colour all three channels are the same.
    grey = imaging.frame_from_image(camera_image("yuv422", [[128, 100] * 4] * 2, 4)).image_rgb
    assert (grey == grey[0, 0, 0]).all()
    # In a red mosaic every second sample of every second row is lit.
    red = imaging.frame_from_image(camera_image("bayer_rggb8", [[200, 0] * 4, [0] * 8] * 4, 8)).image_rgb
    assert red[4, 4].tolist() == [200, 0, 0]
    for encoding in ("no_such_encoding", "yuv422"):
        with pytest.raises(ValueError, match=f"cv_bridge cannot convert an image with encoding '{encoding}'"):
            imaging.frame_from_image(camera_image(encoding, [[0] * 4] * 2, 200))


def test_an_image_above_the_limit_is_refused_and_one_at_the_limit_is_not():
    image = camera_image("rgb8", [[0] * 6] * 3, 2)
    assert imaging.frame_from_image(image, max_pixels=6).size_hw == (3, 2)
    with pytest.raises(ValueError, match=r"2 x 3, that is 6 pixels; at most 5 are accepted \(parameter max_image_pixels\)"):
        imaging.frame_from_image(image, max_pixels=5)


def compressed_image(data: bytes, image_format: str) -> CompressedImage:
    image = CompressedImage(format=image_format, data=array.array("B", data))
    image.header.stamp.sec, image.header.frame_id = 12, "camera_link"
    return image


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    """A file from pixels in OpenCV's order, BGR."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


RED_BGR = np.full((16, 24, 3), (0, 0, 200), np.uint8)


@pytest.mark.parametrize(
    ("image_format", "suffix", "pixels", "expected"),
    [
        ("jpeg", ".jpg", RED_BGR, [200, 0, 0]),
        ("rgb8; jpeg compressed bgr8", ".jpg", RED_BGR, [200, 0, 0]),
        ("bgr8; png compressed bgr8", ".png", RED_BGR, [200, 0, 0]),
        ("bayer_rggb8; jpeg compressed bgr8", ".jpg", RED_BGR, [200, 0, 0]),
        # By image_transport's rule the file holds RGB that was encoded as if it were BGR.
        ("rgb8; jpeg compressed ", ".jpg", RED_BGR, [0, 0, 200]),
        ("png", ".png", np.full((16, 24, 4), (0, 0, 200, 7), np.uint8), [200, 0, 0]),
        ("mono8; jpeg compressed mono8", ".jpg", np.full((16, 24), 90, np.uint8), [90, 90, 90]),
        ("mono16; png compressed ", ".png", np.full((16, 24), 90 * 256, np.uint16), [90, 90, 90]),
        ("rgb16; png compressed bgr16", ".png", RED_BGR.astype(np.uint16) * 256, [200, 0, 0]),
    ],
)
def test_every_compressed_format(image_format, suffix, pixels, expected):
    frame = frame_from_compressed(compressed_image(encoded(suffix, pixels), image_format))
    assert frame.size_hw == (16, 24)
    assert np.abs(frame.image_rgb.astype(int) - expected).max() <= (2 if suffix == ".jpg" else 0)
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_000, "camera_link")


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "image_format", "message"),
    [
        (b"", "jpeg", "0 bytes of the format 'jpeg' are neither a JPEG nor a PNG image"),
        (b"\x00" * 99, "16UC1; compressedDepth png", "neither a JPEG nor a PNG image .*compressedDepth"),
        (encoded(".bmp", RED_BGR), "bmp", "neither a JPEG nor a PNG"),
        (
            encoded(".jpg", RED_BGR)[:-2],
            "jpeg",
            "bytes of the format 'jpeg' cannot be decoded: it breaks off; check the camera",
        ),
        (encoded(".png", RED_BGR)[:-30], "png", "cannot be decoded: it breaks off"),
        (encoded(".jpg", RED_BGR)[:20], "jpeg", "20 bytes of the format 'jpeg'"),
        (
            encoded(".jpg", RED_BGR),
            "bayer_\x1b" + "x" * 1_000_000,
            r"format 'bayer_\\x1bx+'\.\.\. \(1000007 characters\)\) has no",
        ),
        (encoded(".png", RED_BGR[..., 0]), "bayer_rggb8; png compressed ", "compressed Bayer mosaic .* has no colours"),
        (png_that_claims(5000, 5000), "png", "5000 x 5000, that is 25000000 pixels; at most 1000000"),
        (png_that_claims(60000, 60000), "png", "3600000000 pixels; at most 1000000 .*max_image_pixels"),
        (png_that_claims(100, 100), "png", "it breaks off"),
        (png_that_claims(0, 100), "png", "no pixels: width 0, height 100"),
    ],
)
def test_broken_compressed_images_are_refused_with_the_cause(data, image_format, message):
    with pytest.raises(ValueError, match=message):
        frame_from_compressed(compressed_image(data, image_format), max_pixels=1_000_000)


def test_an_orientation_in_the_file_is_ignored():
    data = encoded(".jpg", RED_BGR)
    # Application segment 1 with one entry: orientation 6, to be turned by 90 degrees.
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (24, 16, 3)
    assert frame_from_compressed(compressed_image(turned, "jpeg")).size_hw == (16, 24)


def test_compressed_outputs_are_what_image_transport_reads():
    header = conversions.make_header(5_000_000_006, "camera_link")
    jpeg = conversions.jpeg_from_rgb(np.full((16, 24, 3), (200, 30, 0), np.uint8), header, 90)
    assert (jpeg.format, jpeg.header) == ("rgb8; jpeg compressed bgr8", header)
    assert np.abs(frame_from_compressed(jpeg).image_rgb.astype(int) - [200, 30, 0]).max() <= 3
    for values in (np.array([[0, 255]], np.uint8), np.array([[0, 1], [256, 65535]], np.uint16)):
        png = conversions.png_from_array(values, header)
        assert png.format == f"mono{8 * values.itemsize}; png compressed "
        restored = cv2.imdecode(np.frombuffer(png.data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert (restored.dtype, restored.tolist()) == (values.dtype, values.tolist())


@pytest.mark.parametrize(
    ("values", "encoding", "step", "data"),
    [
        (np.array([[1, 2]], np.uint8), "mono8", 2, b"\x01\x02"),
        (np.array([[1, 256]], np.uint16), "mono16", 4, b"\x01\x00\x00\x01"),
        (np.array([[[1, 2, 3]]], np.uint8), "rgb8", 3, b"\x01\x02\x03"),
        (np.array([[1.0, -2.0]], np.float32), "32FC1", 8, b"\x00\x00\x80\x3f\x00\x00\x00\xc0"),
        # Not contiguous: what is written are the values, not the memory behind them.
        (np.arange(6, dtype=np.uint8).reshape(2, 3).T, "mono8", 2, bytes([0, 3, 1, 4, 2, 5])),
    ],
)
def test_arrays_become_little_endian_images(values, encoding, step, data):
    header = conversions.make_header(5_000_000_006, "camera_link")
    image = conversions.image_from_array(values, encoding, header)
    assert (image.height, image.width, image.encoding, image.step) == (*values.shape[:2], encoding, step)
    assert (image.is_bigendian, bytes(image.data)) == (0, data)
    assert (image.header.stamp.sec, image.header.stamp.nanosec, image.header.frame_id) == (5, 6, "camera_link")


@pytest.mark.parametrize(
    ("values", "encoding", "message"),
    [
        (np.zeros((2, 2), np.int64), "mono16", "mono16 needs uint16"),
        (np.zeros((2, 2), np.uint8), "rgb8", r"rgb8 needs uint8 of shape \(H, W, 3\)"),
        (np.zeros((2, 2, 1), np.uint8), "mono8", r"of shape \(H, W\)"),
        (np.zeros((2, 2), np.uint8), "jpeg", "use one of mono8, mono16, rgb8, 32FC1"),
    ],
)
def test_arrays_that_do_not_fit_the_encoding_are_refused(values, encoding, message):
    with pytest.raises(ValueError, match=message):
        conversions.image_from_array(values, encoding, conversions.make_header(0, ""))


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_790_000_000_123_456_789])
def test_stamps_round_trip_exactly(stamp_ns):
    assert imaging.stamp_to_ns(conversions.stamp_from_ns(stamp_ns)) == stamp_ns


def test_objects_of_a_frame():
    mask = np.zeros((4, 6), np.bool_)
    mask[1:3, 2:6] = True
    seen = ObjectMask(7, 2, "mug", mask, 0.5, 0.75, Visibility.VISIBLE, 0.25)
    lost = ObjectMask(3, 1, "ball", np.zeros((4, 6), np.bool_), 0.5, 0.0, Visibility.LOST)
    frame = Frame(9_000_000_001, "camera_link", np.zeros((4, 6, 3), np.uint8))
    message = conversions.tracked_objects(Segmentation(frame, (seen, lost)))
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (9, 1, "camera_link")
    first, second = message.objects
    assert (first.id, first.query_id, first.label, first.state, first.pixel_count) == (3, 1, "ball", TrackedObject.LOST, 0)
    assert math.isnan(first.attention_consistency)
    assert first.box.width == first.box.height == 0
    assert (second.id, second.state, second.score, second.presence) == (7, TrackedObject.VISIBLE, 0.5, 0.75)
    assert (second.attention_consistency, second.pixel_count) == (0.25, 8)
    assert (second.box.x_offset, second.box.y_offset, second.box.width, second.box.height) == (2, 1, 4, 2)


def test_a_mask_is_0_and_255():
    image = conversions.mask_image(np.array([[True, False]]), conversions.make_header(0, ""))
    assert (image.encoding, bytes(image.data)) == ("mono8", b"\xff\x00")
