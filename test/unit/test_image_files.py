"""Image files: legitimate ones decode as OpenCV and PIL decode them whole, and hostile ones cost no more than their image."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from decaf_ros.image_files import MOST_PIXELS, read_image, read_numbers, walk

# Of the standard's interlacing: first column and row, and the steps between those of a pass.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour_type: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace))


def png(header_chunk: bytes, compressed: bytes, *others: bytes) -> bytes:
    return SIGNATURE + header_chunk + b"".join(others) + chunk(b"IDAT", compressed) + chunk(b"IEND")


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


NOISE = np.random.default_rng(0).integers(0, 256, (37, 61, 4), dtype=np.uint8)
SMOOTH = cv2.GaussianBlur(NOISE, (0, 0), 3)


def by_pil(kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(NOISE).convert("RGB")
    (image.quantize(16) if mode == "P" else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def by_opencv(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def seven_passes(depth: int, colour_type: int, channels: int) -> bytes:
    """An interlaced PNG of 13 x 11 pixels, of noise: neither OpenCV nor PIL writes any."""
    rng, rows = np.random.default_rng(depth), []
    for x, y, across, down in PASSES:
        columns = len(range(x, 13, across))
        rows += [b"\0" + rng.bytes((columns * channels * depth + 7) // 8) for _ in range(y, 11, down)]
    return png(header(13, 11, depth, colour_type, 1), zlib.compress(b"".join(rows)))


def split(whole: bytes) -> bytes:
    """A PNG whose data stand in chunks of 7 bytes."""
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, start)
    data, rest = whole[start + 8 : start + 8 + length], whole[start + 12 + length :]
    return whole[:start] + b"".join(chunk(b"IDAT", data[at : at + 7]) for at in range(0, len(data), 7)) + rest


TEXT = chunk(b"tEXt", b"Comment\0hello")
ICC = chunk(b"iCCP", b"a\0\0" + zlib.compress(b"no profile"))
GAMMA = (
    chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sRGB", b"\0") + chunk(b"bKGD", bytes(6)) + chunk(b"sBIT", b"\5\5\5")
)
RAW = b"".join(b"\0" + bytes(range(30)) for _ in range(10))
SMALL = header(10, 10), zlib.compress(RAW)
JPEG = by_opencv(".jpg", SMOOTH[..., :3])
PNG_FILES = {
    "8 bits": by_opencv(".png", NOISE[..., :3]),
    "grey": by_opencv(".png", NOISE[..., 0]),
    "with alpha": by_opencv(".png", NOISE),
    "16 bits": by_opencv(".png", NOISE[..., :3].astype(np.uint16) * 257 + 3),
    "16 bits, grey": by_opencv(".png", NOISE[..., 0].astype(np.uint16) * 251),
    "16 bits with alpha": by_opencv(".png", NOISE.astype(np.uint16) * 251),
    "one bit": by_pil("PNG", "1"),
    "grey with alpha": by_pil("PNG", "LA"),
    "palette": by_pil("PNG", "P"),
    "palette with transparency": by_pil("PNG", "P", transparency=b"\0\x80\xff"),
    "one transparent colour": by_pil("PNG", transparency=(1, 2, 3)),
    "text, profile and gamma": png(*SMALL, TEXT, ICC, GAMMA),
    "interlaced": seven_passes(8, 2, 3),
    "interlaced, 16 bits with alpha": seven_passes(16, 6, 4),
    "interlaced, one bit": seven_passes(1, 0, 1),
    "in many chunks": split(by_opencv(".png", NOISE[..., :3])),
    "turned": png(*SMALL, chunk(b"eXIf", exif(6))),
}
JPEG_FILES = {
    "baseline": JPEG,
    "grey": by_opencv(".jpg", SMOOTH[..., 0]),
    "progressive": by_opencv(".jpg", SMOOTH[..., :3], cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "with restarts": by_opencv(".jpg", SMOOTH[..., :3], cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "not subsampled": by_pil("JPEG", subsampling=0),
    "CMYK": by_pil("JPEG", "CMYK"),
    "RGB": by_pil("JPEG", keep_rgb=True),
    "RGB, as Adobe says": JPEG[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + JPEG[20:],  # in place of JFIF
    "with a profile": by_pil("JPEG", icc_profile=bytes(100_000)),
    "followed by another": JPEG + by_opencv(".jpg", NOISE[..., :3]),
    "turned": JPEG[:2] + segment(0xE1, b"Exif\0\0" + exif(6)) + JPEG[2:],
    "turned twice": JPEG[:2] + b"".join(segment(0xE1, b"Exif\0\0" + exif(each)) for each in (6, 1)) + JPEG[2:],
}
OTHER_FILES = {
    "bmp": by_opencv(".bmp", NOISE[..., :3]),
    "tiff": by_opencv(".tiff", NOISE[..., :3]),
    "webp": by_opencv(".webp", SMOOTH[..., :3]),
    "webp without loss": by_opencv(".webp", NOISE[..., :3], cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp with alpha": by_opencv(".webp", NOISE),
}


def whole(data: bytes, flags: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


@pytest.mark.parametrize("data", [*PNG_FILES.values(), *JPEG_FILES.values()], ids=[*PNG_FILES, *JPEG_FILES])
def test_pixels_are_those_of_the_whole_file(data):
    file = walk(data)
    assert file is not None
    np.testing.assert_array_equal(file.decode(), whole(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION))


@pytest.mark.parametrize(
    "data",
    [*PNG_FILES.values(), *JPEG_FILES.values(), *OTHER_FILES.values()],
    ids=[*PNG_FILES, *JPEG_FILES, *OTHER_FILES],
)
def test_files_are_turned_as_they_say(tmp_path, data):
    (tmp_path / "image").write_bytes(data)
    np.testing.assert_array_equal(read_image(tmp_path / "image"), whole(data, cv2.IMREAD_COLOR))


@pytest.mark.parametrize("data", PNG_FILES.values(), ids=PNG_FILES)
def test_numbers_are_those_of_the_whole_file(tmp_path, data):
    (tmp_path / "image").write_bytes(data)
    np.testing.assert_array_equal(read_numbers(tmp_path / "image"), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"GIF89a" + bytes(99), "no JPEG, PNG, BMP, TIFF or WebP file"),
        (b"", "no JPEG, PNG, BMP, TIFF or WebP file"),
        (OTHER_FILES["tiff"][:9], "header cannot be used|no JPEG, PNG"),
        (b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 16383 | 16383 << 14), "16384 x 16384.*at most 67108864"),
        (png(header(9000, 9000), b""), f"81000000 pixels; at most {MOST_PIXELS} are accepted$"),
        (png(header(10, 10, depth=3), SMALL[1]), "depth 3"),
    ],
)
def test_what_is_no_image_is_refused_with_the_cause(tmp_path, data, cause):
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(ValueError, match=cause):
        read_image(tmp_path / "image")


def test_only_files_are_read(tmp_path):
    with pytest.raises(ValueError, match="it is no file"):
        read_image(Path("/dev/zero"))
    with pytest.raises(ValueError, match="it does not exist"):
        read_image(tmp_path / "nothing")
    (tmp_path / "image").write_bytes(JPEG)
    with pytest.raises(ValueError, match="no PNG file"):
        read_numbers(tmp_path / "image")


@cache
def zeros(count: int) -> bytes:
    """A gigabyte of zeros is a megabyte; each MiB is the same, and compressed once."""
    squeeze = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    piece = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">I", count % 65521 << 16 | 1)
    return b"\x78\xda" + piece * (count >> 20) + b"\3\0" + checksum


def thousands_of_scans() -> bytes:
    """A progressive JPEG of 12 megapixels; each scan takes 20 bytes and the decoder a walk over all blocks."""
    large = by_opencv(".jpg", np.zeros((3072, 4096, 3), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    first = large.index(b"\xff\xda")
    table = segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")  # one code, for an empty band of 16384 blocks
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes(10)
    return large[: large.index(b"\xff\xc4", first)] + table + scan * 10_000 + b"\xff\xd9"


BILLION = 1 << 30
ATTACKS: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "a chunk of 2 GB": (lambda: SIGNATURE + SMALL[0] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT", "breaks off"),
    "10 x 10 pixels of a gigabyte": (lambda: png(SMALL[0], zeros(BILLION)), "inflates to more than its 10 x 10 pixels"),
    "interlaced": (lambda: png(header(10, 10, interlace=1), zeros(BILLION)), "inflates to more than its 10 x 10 pixels"),
    "nothing, for 5 MB": (lambda: png(SMALL[0], b"\x78\1" + b"\0\0\0\xff\xff" * 1_000_000), "breaks off"),
    "a profile": (lambda: png(*SMALL, chunk(b"iCCP", b"a\0\0" + zeros(BILLION))), None),
    "texts": (lambda: png(*SMALL, *[chunk(b"zTXt", b"a\0\0" + zeros(BILLION >> 2))] * 9), None),
    "tiny chunks": (lambda: png(*SMALL, chunk(b"prVt") * 700_000), "more than 50000 chunks"),
    "an animation": (
        lambda: png(*SMALL, chunk(b"acTL", struct.pack(">II", 40_000, 0)), chunk(b"fcTL", bytes(26)) * 40_000),
        None,
    ),
    "a promise": (lambda: png(header(4096, 3072), zlib.compress(b"")), "breaks off"),
    "scans": (thousands_of_scans, "more than 40 scans"),
    "segments": (lambda: JPEG[:2] + segment(0xEF, b"") * 2_000_000 + JPEG[2:], "more than 2000 segments"),
    "orientations": (lambda: JPEG[:2] + segment(0xE1, b"Exif\0\0" + exif(6) + bytes(60_000)) * 150 + JPEG[2:], None),
    "filling": (lambda: JPEG[:2] + b"\xff" * 9_000_000 + JPEG[2:], None),
    "stuffing": (lambda: JPEG[:-2] + b"\xff\0" * 4_000_000 + JPEG[-2:], None),
    "a JPEG of 100 bytes for 36 megapixels": (
        lambda: b"\xff\xd8" + segment(0xC0, struct.pack(">BHHB", 8, 6000, 6000, 1) + b"\1\x11\0") + b"\xff\xd9",
        "too short for 6000 x 6000 pixels",
    ),
    "arithmetic": (lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc9"), "SOF9"),
    "12 bits": (lambda: JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "3 components of 12 bits"),
}

MEASURED = """
import cv2, resource, sys, time
import numpy as np
from decaf_ros.image_files import check_size, walk
small = walk(open(sys.argv[2], "rb").read()).decode()  # what a decoder takes once
def peak_kb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
data = open(sys.argv[1], "rb").read()
before, start = peak_kb(), time.process_time()
size, cause = 0, ""
try:
    file = walk(data, oriented=True)
    check_size(file.width, file.height, 4096 * 3072)
    size = file.decode().nbytes
except ValueError as error:
    cause = str(error)
print(peak_kb() - before, time.process_time() - start, size, cause)
"""


@pytest.mark.parametrize("name", ATTACKS)
def test_no_file_costs_more_than_its_image(tmp_path, name):
    """At most 10 MB of file: 4 times the image and 50 MB in memory, a second (here 5, for machines that are busy)."""
    make, cause = ATTACKS[name]
    (tmp_path / "attack").write_bytes(make())
    (tmp_path / "small").write_bytes(PNG_FILES["8 bits"])
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "attack"), str(tmp_path / "small")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    kilobytes, seconds, image_bytes, told = answer.split(" ", 3)
    assert int(kilobytes) * 1024 <= 4 * int(image_bytes) + 50_000_000
    assert float(seconds) < 5
    assert (cause in told) if cause else not told.strip()
