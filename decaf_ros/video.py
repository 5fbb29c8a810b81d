"""Videos and folders of images as frames, and frames as a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from decaf_ros.datatypes import Frame, UInt8Array
from decaf_ros.image_files import PNG_SIGNATURE, check_size, read_image
from decaf_ros.text import brief

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
FOLDER_FRAMES_PER_SECOND = 10.0
# Rates that are taken at their word; others are of broken files, and would make stamps that are equal or overflow.
_LEAST_RATE, _MOST_RATE = 1e-3, 1e6
# FFmpeg would open the files that it names.
_PLAYLIST = b"ffconcat"
# Rates of videos that are written: two decimals above the precise ones, of which OpenCV takes three.
_LEAST_HZ, _PRECISE_HZ, _MOST_HZ = 0.1, 65.0, 600.0


class FrameSource(Protocol):
    """Frames that can be read in any order, so that a long video need not be held in memory."""

    @property
    def frames_per_second(self) -> float:
        """Rate of the frames; their stamps follow from it."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames ``start`` to ``stop - 1``."""


class VideoError(Exception):
    """A file or folder that cannot be read as frames, or written as a video; the message names the cause."""


def open_frames(path: Path) -> FrameSource:
    """Open a video file, an image, or a folder whose images are frames in the order of their names.

    Raises:
        VideoError: nothing there, no image in the folder, or no video that OpenCV can decode.
    """
    if not path.exists():
        raise VideoError(f"{path} does not exist")
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise VideoError(f"{path} is neither a file nor a folder")
    if path.suffix.lower() in IMAGE_SUFFIXES or _starts_with(path, PNG_SIGNATURE):
        return FramesInMemory([_frame(_read_image(path), 0, FOLDER_FRAMES_PER_SECOND)], FOLDER_FRAMES_PER_SECOND)
    return VideoFile(path)


class ImageFolder:
    """A folder of images of one size, numbered or named in order (as in DAVIS and MeViS)."""

    def __init__(self, folder: Path, frames_per_second: float = FOLDER_FRAMES_PER_SECOND) -> None:
        self.frames_per_second = frames_per_second
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not self._paths:
            raise VideoError(f"{folder} holds no image; known endings are {', '.join(IMAGE_SUFFIXES)}")
        self._shape = _read_image(self._paths[0]).shape

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames ``start`` to ``stop - 1``.

        Raises:
            VideoError: an image that cannot be decoded, or of another size than the first.
        """
        images = [_read_image(path) for path in self._paths[start:stop]]
        for path, image in zip(self._paths[start:stop], images, strict=True):
            if image.shape != self._shape:
                raise VideoError(f"{path} has {image.shape[1::-1]} pixels, the first image {self._shape[1::-1]}")
        return [_frame(image, index, self.frames_per_second) for index, image in enumerate(images, start)]


class VideoFile:
    """A video that OpenCV can decode."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if _starts_with(path, _PLAYLIST):
            raise VideoError(f"{path} is a playlist: name one of its videos")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError(f"{path} cannot be opened as a video")
        self._check_size()
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = rate if _LEAST_RATE <= rate <= _MOST_RATE else FOLDER_FRAMES_PER_SECOND
        # The container's own count is an estimate for many formats.
        self._count = 0
        while self._capture.grab():
            self._count += 1
        if not self._count:
            raise VideoError(f"{path} holds no frame that can be decoded")
        self._next = self._count

    def __len__(self) -> int:
        return self._count

    def _check_size(self) -> None:
        """Before anything is decoded: a file of a kilobyte can announce any size."""
        width, height = (int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        try:
            check_size(width, height)
        except ValueError as error:
            raise VideoError(f"{self._path} cannot be opened as a video: {error}") from error

    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames ``start`` to ``stop - 1``.

        Raises:
            VideoError: a frame that was there on opening cannot be decoded now.
        """
        self._seek(start)
        return [_frame(self._decode(index), index, self.frames_per_second) for index in range(start, stop)]

    def _seek(self, index: int) -> None:
        if index < self._next:  # opened anew rather than set back: not every format seeks to the exact frame
            self._capture = cv2.VideoCapture(str(self._path))
            self._next = 0
        while self._next < index:
            self._capture.grab()
            self._next += 1

    def _decode(self, index: int) -> np.ndarray:
        decoded, image_bgr = self._capture.read()
        if not decoded:
            raise VideoError(f"{self._path}: frame {index} of {self._count} cannot be decoded")
        self._next += 1
        return image_bgr


def _starts_with(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def _read_image(path: Path) -> UInt8Array:
    """``(H, W, 3)`` BGR."""
    try:
        return read_image(path)
    except (OSError, ValueError) as error:
        raise VideoError(f"{path} cannot be decoded as an image: {brief(error)}") from error


def _frame(image_bgr: np.ndarray, index: int, frames_per_second: float) -> Frame:
    return Frame(round(index * 1e9 / frames_per_second), "camera", np.ascontiguousarray(image_bgr[..., ::-1], dtype=np.uint8))


class VideoWriter:
    """Writes RGB images of one size to an mp4 file. The ``with`` block finishes it; without images none is left.

    Sides of odd length, which the format does not have, are made longer by one pixel.

    Args:
        path: of the file.
        frames_per_second: taken as near as the format has it.
        shown: name of the file in messages, where it is not ``path``.

    Raises:
        VideoError: at the end of the ``with`` block, if images are missing from the file.
    """

    def __init__(self, path: Path, frames_per_second: float, shown: Path | None = None) -> None:
        self._path = path
        self._shown = shown or path
        self._frames_per_second = _rate_for_mpeg4(frames_per_second)
        self._writer: cv2.VideoWriter | None = None
        self._written = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if not self._written:
            self._path.unlink(missing_ok=True)
        elif error is None and (found := _count_frames(cv2.VideoCapture(str(self._path)))) != self._written:
            # OpenCV does not tell when images do not get to the disk.
            whole = f"it holds {found} of {self._written} images. Is the disk full?"
            raise VideoError(f"{self._shown} cannot be written whole: {whole}")

    def open(self, size_hw: tuple[int, int]) -> None:
        """Begin the file, which the first image does otherwise: to see early whether it can be written.

        Raises:
            VideoError: it cannot.
        """
        height, width = (side + side % 2 for side in size_hw)
        writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._frames_per_second, (width, height))
        if not writer.isOpened():
            why = f"the disk may be full, or MPEG-4 not have {width} x {height} pixels"
            raise VideoError(f"{self._shown} cannot be written as a video: {why}")
        self._writer = writer

    def write(self, image_rgb: UInt8Array) -> None:
        """Append an image, ``(H, W, 3)`` uint8 RGB; the first one sets the size.

        Raises:
            VideoError: the file cannot be written.
        """
        if self._writer is None:
            self.open((image_rgb.shape[0], image_rgb.shape[1]))
        assert self._writer is not None
        below, beside = (side % 2 for side in image_rgb.shape[:2])
        even_rgb = cv2.copyMakeBorder(image_rgb, 0, below, 0, beside, cv2.BORDER_REPLICATE)
        self._writer.write(np.ascontiguousarray(even_rgb[..., ::-1]))
        self._written += 1


def _count_frames(capture: cv2.VideoCapture) -> int:
    count = 0
    while capture.grab():
        count += 1
    return count


def _rate_for_mpeg4(frames_per_second: float) -> float:
    """OpenCV takes a rate for a fraction over a power of ten, and MPEG-4 has 16 bits for its numerator."""
    if frames_per_second <= _PRECISE_HZ:
        return max(frames_per_second, _LEAST_HZ)
    return min(round(frames_per_second, 2), _MOST_HZ)


class FramesInMemory:
    """Frames that are at hand already."""

    def __init__(self, frames: Sequence[Frame], frames_per_second: float) -> None:
        self.frames_per_second = frames_per_second
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames ``start`` to ``stop - 1``."""
        return self._frames[start:stop]
