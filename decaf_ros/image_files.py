"""Image files of foreign origin, decoded at a cost that is bounded by the size of their image.

A few bytes can make decoders allocate gigabytes or work for minutes: lengths that lie, data that inflate a thousandfold, scans
and segments by the thousand. So the structure of a file is walked first, without decoding anything, and a decoder sees only
what the pixels need: text, profiles, thumbnails, animations and what follows the image are left out.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from decaf_ros.datatypes import UInt8Array
from decaf_ros.text import brief

# Of images that no parameter limits: those of files and bags. A frame of 8K video has half as many.
MOST_PIXELS = 8192 * 8192
# More than any sample format makes of an image of that size.
_MOST_BYTES = 16 * MOST_PIXELS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Start and step of the columns, and of the rows, of each pass.
_ONE_PASS = ((0, 1, 0, 1),)
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
# Encoders write chunks of 8 kB and more.
_MOST_CHUNKS = 50_000
# Inflated at once; a thousand times as much may come of it.
_PIECE_BYTES = 1 << 14

_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# Baseline, extended and progressive DCT with Huffman codes. The others are lossless, hierarchical or arithmetic.
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
_JPEG_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
# The tables for Huffman codes and quantisation, the restart interval, and what tells the colour space: JFIF and Adobe.
_JPEG_KEPT = (*_JPEG_FRAMES, _SOS, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE)
_JPEG_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
_JPEG_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# An ICC profile takes up to 255, the tables of each scan a few.
_MOST_SEGMENTS = 2000
# A decoder goes over the whole image for each. Usual are 1 and 10; encoders that search for the best take up to 30.
_MOST_SCANS = 40
# Each bit codes for at least one of the image's units, which are 32 x 32 pixels at most.
_JPEG_PIXELS_PER_BYTE = 8 * 32 * 32

_BROKEN_OFF = "it breaks off"

_EXIF = b"Exif\0\0"
_EXIF_BYTES = 1 << 16

_TIFF_TILE_SIDES = (322, 323)  # width and height, by tag
_USUAL_TILE_PIXELS = 1024 * 1024
_WEBP_SIGNATURE = re.compile(rb"RIFF....WEBP", re.DOTALL)


def check_size(width: int, height: int, max_pixels: int | None = None) -> None:
    """See that an image has pixels, and not too many.

    Args:
        width, height: of it.
        max_pixels: as the parameter ``max_image_pixels`` says; ``None`` for an image that no parameter limits.

    Raises:
        ValueError: it has none, or more than ``max_pixels``, or than :data:`MOST_PIXELS`.
    """
    if height <= 0 or width <= 0:
        raise ValueError(f"the image has no pixels: width {width}, height {height}; check the camera driver")
    limit = MOST_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        raise ValueError(
            f"the image is {width} x {height}, that is {width * height} pixels; at most {limit} are accepted"
            + ("" if max_pixels is None else " (parameter max_image_pixels)")
        )


@dataclass(frozen=True, eq=False)
class ImageFile:
    """A JPEG or PNG file that was walked, but neither inflated nor decoded.

    Attributes:
        kind: "JPEG" or "PNG".
        width, height: in pixels, as the file says.
        parts: it consists of, without what the pixels do not need.
        compressed: of a PNG file, what is inflated.
        inflated_bytes: what that must give.
    """

    kind: str
    width: int
    height: int
    parts: list[memoryview] = field(repr=False)
    compressed: list[memoryview] = field(default_factory=list, repr=False)
    inflated_bytes: int = 0

    def checked(self) -> bytes:
        """The file as a decoder may have it, once its size is accepted.

        Raises:
            ValueError: its data make more than the image that its header announces, or less.
        """
        inflated = 0
        for piece in _inflate(self.compressed):
            inflated += len(piece)
            if inflated > self.inflated_bytes:
                raise ValueError(f"it inflates to more than its {self.width} x {self.height} pixels")
        if inflated < self.inflated_bytes:
            raise ValueError(_BROKEN_OFF)
        return b"".join(self.parts)

    def decode(self) -> UInt8Array:
        """``(H, W, 3)`` uint8 BGR, once its size is accepted; turned if it says so and :func:`walk` was to see it.

        Raises:
            ValueError: it is damaged.
        """
        return _decode(self.checked())


def walk(data: Any, oriented: bool = False) -> ImageFile | None:
    """Walk a file; ``None`` when it is neither JPEG nor PNG.

    Args:
        data: of the file, anything with the buffer interface.
        oriented: whether an orientation in the file holds; else pixels stay where they are.

    Raises:
        ValueError: it breaks off, is of a kind that cannot be decoded, or is more than its pixels need by far.
    """
    view = memoryview(data).cast("B")
    if view[:8] == PNG_SIGNATURE:
        return _walk_png(view, oriented)
    if view[:3] == _JPEG_SIGNATURE:
        return _walk_jpeg(view, oriented)
    return None


def read_image(path: Path, oriented: bool = True) -> UInt8Array:
    """An image file as ``(H, W, 3)`` uint8 BGR: JPEG, PNG, BMP, TIFF or WebP.

    Args:
        path: of the file.
        oriented: whether an orientation in the file holds; else pixels stay where they are.

    Raises:
        ValueError: it cannot be decoded, or is larger than :data:`MOST_PIXELS`.
        OSError: it cannot be read.
    """
    data = _read(path)
    file = walk(data, oriented)
    if file is None:
        check_size(*_size_of_other(data))
        return _decode(data, oriented)
    check_size(file.width, file.height)
    return file.decode()


def read_numbers(path: Path) -> np.ndarray:
    """The samples of a PNG file as they are, a palette's numbers and not its colours: ``(H, W)`` or ``(H, W, channels)``.

    Raises:
        ValueError: it is no PNG file, cannot be decoded, or is larger than :data:`MOST_PIXELS`.
        OSError: it cannot be read.
    """
    file = walk(_read(path))
    if file is None or file.kind != "PNG":
        raise ValueError("it is no PNG file")
    check_size(file.width, file.height)
    try:
        with PIL.Image.open(io.BytesIO(file.checked()), formats=("PNG",)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"it is damaged: {brief(error)}") from error


def _read(path: Path) -> bytes:
    if not path.is_file():  # a pipe never ends
        raise ValueError("it is no file" if path.exists() else "it does not exist")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes, at most {_MOST_BYTES} are read")
    return path.read_bytes()


def _decode(data: bytes, oriented: bool = True) -> UInt8Array:
    flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image_bgr = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        image_bgr = None
    if image_bgr is None:
        raise ValueError("it breaks off or is damaged")
    return np.asarray(image_bgr, dtype=np.uint8)


def _walk_png(data: memoryview, oriented: bool) -> ImageFile:
    parts, compressed = [data[:8]], []
    header, has_exif, position = b"", False, 8
    for _ in range(_MOST_CHUNKS):
        length, kind = _unpack(">I4s", data, position)
        content, end = data[position + 8 : position + 8 + length], position + 12 + length
        if end > len(data):
            raise ValueError(_BROKEN_OFF)
        if not header and (kind, length) != (b"IHDR", 13):
            raise ValueError("it has no header")
        is_exif = kind == b"eXIf" and oriented and not has_exif and length <= _EXIF_BYTES
        if kind in _PNG_KEPT or is_exif:
            parts.append(data[position:end])
        has_exif |= is_exif
        if kind == b"IHDR":
            header = bytes(content)
        elif kind == b"IDAT":
            compressed.append(content)
        elif kind == b"IEND":
            width, height, bits, interlaced = _png_header(header)
            inflated_bytes = _inflated_bytes(width, height, bits, interlaced)
            return ImageFile("PNG", width, height, parts, compressed, inflated_bytes)
        position = end
    raise ValueError(f"it has more than {_MOST_CHUNKS} chunks")


def _png_header(header: bytes) -> tuple[int, int, int, bool]:
    """Width, height, bits of a pixel, and whether it comes in seven passes."""
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if depth not in (1, 2, 4, 8, 16) or colour_type not in _PNG_CHANNELS or interlace > 1:
        raise ValueError(f"its header is damaged: depth {depth}, colour type {colour_type}, interlace {interlace}")
    return width, height, depth * _PNG_CHANNELS[colour_type], interlace == 1


def _inflated_bytes(width: int, height: int, bits: int, interlaced: bool) -> int:
    """Of all rows, each of which follows a byte for its filter."""
    total = 0
    for first_column, column_step, first_row, row_step in _ADAM7 if interlaced else _ONE_PASS:
        columns = max(0, -((first_column - width) // column_step))
        rows = max(0, -((first_row - height) // row_step))
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total


def _inflate(pieces: list[memoryview]) -> Iterator[bytes]:
    inflater = zlib.decompressobj()
    for piece in pieces:
        for start in range(0, len(piece), _PIECE_BYTES):
            try:
                yield inflater.decompress(piece[start : start + _PIECE_BYTES])
            except zlib.error as error:
                raise ValueError(f"it is damaged: {error}") from error
            if inflater.eof:  # decoders ignore what follows
                return


def _walk_jpeg(data: memoryview, oriented: bool) -> ImageFile:
    parts, size = [data[:2]], None
    scans, has_exif, position = 0, False, 2
    for _ in range(_MOST_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise ValueError(_BROKEN_OFF)
        marker, position = data[found.end() - 1], found.end()
        if marker == _EOI:
            parts.append(data[position - 2 : position])
            if size is None:
                raise ValueError("it has no header")
            if size[0] * size[1] > _JPEG_PIXELS_PER_BYTE * sum(map(len, parts)):
                raise ValueError(f"{_BROKEN_OFF}: it is too short for {size[0]} x {size[1]} pixels")
            return ImageFile("JPEG", *size, parts)
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        if marker < 0xC0 or marker == _SOI:
            raise ValueError(f"it is damaged: marker {marker:02X} where none can be")
        (length,) = _unpack(">H", data, position)
        content, position = data[position + 2 : position + length], position + length
        if length < 2 or position > len(data):
            raise ValueError(_BROKEN_OFF)
        if marker in _JPEG_OTHER_FRAMES:
            raise ValueError(
                f"it is lossless, hierarchical or arithmetic JPEG (SOF{marker - 0xC0}): use baseline or progressive"
            )
        if marker in _JPEG_FRAMES:
            if size is not None:
                raise ValueError("it is damaged: two headers")
            size = _jpeg_size(content)
        is_exif = marker == _APP1 and oriented and not has_exif and content[:6] == _EXIF
        if marker in _JPEG_KEPT or is_exif:
            parts.append(data[found.start() : position])
        has_exif |= is_exif
        if marker == _SOS:
            scans += 1
            if scans > _MOST_SCANS:
                raise ValueError(f"it has more than {_MOST_SCANS} scans")
            found = _JPEG_SCAN_END.search(data, position)
            if found is None:
                raise ValueError(_BROKEN_OFF)
            parts.append(data[position : found.start()])
            position = found.start()
    raise ValueError(f"it has more than {_MOST_SEGMENTS} segments")


def _jpeg_size(frame: memoryview) -> tuple[int, int]:
    """Width and height."""
    bits, height, width, components = _unpack(">BHHB", frame, 0)
    if bits != 8 or components not in (1, 3, 4):
        raise ValueError(f"it has {components} components of {bits} bits: use 1, 3 or 4 components of 8 bits")
    return width, height


def _unpack(layout: str, data: memoryview, position: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(layout, data, position)
    except struct.error:
        raise ValueError(_BROKEN_OFF) from None


def _size_of_other(data: bytes) -> tuple[int, int]:
    """Width and height of a BMP, TIFF or WebP file."""
    if _WEBP_SIGNATURE.match(data):
        return _size_of_webp(data)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("BMP", "TIFF")) as image:
            tags = getattr(image, "tag_v2", {})
            tile = math.prod(tags.get(tag, 1) for tag in _TIFF_TILE_SIDES)
            if tile > max(_USUAL_TILE_PIXELS, image.width * image.height):
                raise ValueError(f"a tile of {tile} pixels")
            return image.size
    except PIL.UnidentifiedImageError:
        raise ValueError("it is no JPEG, PNG, BMP, TIFF or WebP file") from None
    except Exception as error:  # PIL lets through whatever its parsers stumble over
        raise ValueError(f"its header cannot be used: {brief(error)}") from error


def _size_of_webp(data: bytes) -> tuple[int, int]:
    """As the first chunk says: here, for PIL decodes to know it."""
    view, kind = memoryview(data), data[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = _unpack("<HBHB", view, 24)
        return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    if kind == b"VP8L":
        (sides,) = _unpack("<I", view, 21)
        return (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = _unpack("<HH", view, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("it is a WebP file without an image")
