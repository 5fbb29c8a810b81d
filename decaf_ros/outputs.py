"""What commands write: below the folder that they were told, under checked names, through no link, and whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import unicodedata
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import cv2
import numpy as np

from decaf_ros.text import quoted
from decaf_ros.video import VideoWriter

_LONGEST_NAME = 255  # bytes, on all common file systems
_PART_PREFIX = ".decaf-"
_VIDEO = "video.mp4"  # OpenCV goes by the ending
_WITHOUT_WAITING = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # for the other end of a pipe, for one


class OutputError(OSError):
    """A file that cannot be written where it belongs; the message names it and the cause."""


def file_name(name: str) -> str:
    """A name from elsewhere that is to be a file's, unchanged.

    Raises:
        ValueError: it would lead somewhere else, cannot be shown, or is too long.
    """
    if not name or name in (".", ".."):
        raise ValueError(f"{quoted(name)} is no name of a file")
    if "/" in name or "\\" in name:
        raise ValueError(f"{quoted(name)} holds a separator of folders")
    if not name.isprintable():  # NUL, line breaks, halves of surrogate pairs, signs that turn the direction of text
        raise ValueError(f"{quoted(name)} holds characters that cannot be printed")
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"{quoted(name)} is longer than the {_LONGEST_NAME} bytes that file systems take")
    return name


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two different names that are one file where capitals or the composition of accents do not count; ``None`` without."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()), name)
        if other != name:
            return other, name
    return None


class OutputFolder:
    """A folder for results, held open, so that it stays the same one whatever is renamed meanwhile.

    The folder itself may be a link, for the user named it; nothing in it may. A file takes the place of an earlier one when it
    is whole; what is no regular file is left alone, and refused.

    Args:
        path: of the folder, which is made if needed.

    Raises:
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(f"{path} is no folder, nor a link to one, nor can it be made: choose another folder") from error
        self._hold(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def _hold(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def folder(self, *names: str) -> OutputFolder:
        """A folder in this one, or in a folder in it, made if needed.

        Raises:
            OutputError: a name is none, or one of them is something else than a folder.
        """
        found = self
        for name in names:
            path = found._path(name)
            with naming(path):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=found._descriptor)
                if not stat.S_ISDIR(found._mode(name) or 0):
                    raise OutputError(f"{path} is no folder, or a link to one: move it away, or choose another folder")
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=found._descriptor)
            found = OutputFolder.__new__(OutputFolder)
            found._hold(path, descriptor)
        return found

    def names(self) -> list[str]:
        """Of all that is in it."""
        return os.listdir(self._descriptor)

    def holds_folder(self, name: str) -> bool:
        """Whether a folder has this name; a link to one does not count."""
        return stat.S_ISDIR(self._mode(name) or 0)

    def holds_file(self, name: str) -> bool:
        """Whether a file has this name.

        Raises:
            OutputError: something else has: a link, even one to nothing, a folder, a pipe or a device.
        """
        mode, path = self._mode(name), self._path(name)
        if mode is not None and not stat.S_ISREG(mode):
            raise OutputError(f"{path} is {_kind(mode)}, and results are files: move it away, or choose another folder")
        return mode is not None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OutputError: it is no file.
        """
        if self.holds_file(name):
            with naming(self._path(name)):
                os.unlink(name, dir_fd=self._descriptor)

    def remove_folder(self, name: str) -> None:
        """Remove a folder, unless something is in it."""
        with naming(self._path(name)), contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=self._descriptor)

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """A file to write, which has its name once the block has ended without an error. Otherwise nothing is left of it.

        Raises:
            OutputError: it cannot be written, or something that is no file has its name.
        """
        self.holds_file(name)
        part = _part_name()
        with naming(self._path(name), part):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _WITHOUT_WAITING
            descriptor = os.open(part, flags, 0o666, dir_fd=self._descriptor)
            try:
                with open(descriptor, "wb") as file:
                    yield file
                self._rename(part, self._descriptor, name)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=self._descriptor)
                raise

    @contextlib.contextmanager
    def text(self, name: str) -> Iterator[TextIO]:
        """As :meth:`file`, for text in UTF-8, whose line ends are written as they are."""
        with self.file(name) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
            yield text
            text.detach()  # which flushes

    def write_text(self, name: str, content: str) -> None:
        """A file of text in UTF-8; raises as :meth:`file`."""
        with self.text(name) as file:
            file.write(content)

    def write_png(self, name: str, image: np.ndarray) -> None:
        """An image, ``(H, W)`` uint8 or uint16, or ``(H, W, 3)`` uint8 BGR; raises as :meth:`file`."""
        encoded, data = cv2.imencode(".png", image)
        if not encoded:
            raise OutputError(f"{self._path(name)} cannot be written: OpenCV cannot encode the image")
        with self.file(name) as file:
            file.write(data.tobytes())

    @contextlib.contextmanager
    def video(self, name: str, frames_per_second: float) -> Iterator[VideoWriter]:
        """A video to write, as :meth:`file`; without images none is left.

        Raises:
            OutputError: something that is no file has its name.
            VideoError: it cannot be written.
        """
        self.holds_file(name)
        path, part = self._path(name), _part_name()
        # OpenCV follows links. It writes to a folder that nobody else may enter, reached by what is held open.
        with naming(path, part):
            os.mkdir(part, 0o700, dir_fd=self._descriptor)
            inside = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            with VideoWriter(Path(f"/proc/self/fd/{inside}") / _VIDEO, frames_per_second, shown=path) as video:
                yield video
            if _VIDEO in os.listdir(inside):
                with naming(path, _VIDEO):
                    self._rename(_VIDEO, inside, name)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(_VIDEO, dir_fd=inside)
            os.close(inside)
            with contextlib.suppress(OSError):
                os.rmdir(part, dir_fd=self._descriptor)

    def log(self, name: str) -> BinaryIO:
        """A new file that grows under its name, in place of an earlier one, to write and to read; without a buffer.

        Raises:
            OutputError: it cannot be made, or something that is no file has its name.
        """
        self.remove(name)
        return self._open(name, os.O_CREAT | os.O_EXCL)

    def journal(self, name: str) -> BinaryIO:
        """A file to read from its start and to add to, made if needed; without a buffer.

        Raises:
            OutputError: it cannot be opened, is no regular file, or has another name somewhere, where it would change, too.
        """
        self.holds_file(name)
        file = self._open(name, os.O_CREAT | os.O_APPEND)
        about = os.fstat(file.fileno())
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
            return file
        file.close()
        raise OutputError(f"{self._path(name)} is a file of several names (hard links): copy it, or choose another folder")

    def _open(self, name: str, flags: int) -> BinaryIO:
        with naming(self._path(name)):
            descriptor = os.open(name, flags | os.O_RDWR | _WITHOUT_WAITING, 0o666, dir_fd=self._descriptor)
        return open(descriptor, "r+b", buffering=0)

    def _rename(self, part: str, part_folder: int, name: str) -> None:
        self.holds_file(name)
        os.rename(part, name, src_dir_fd=part_folder, dst_dir_fd=self._descriptor)

    def _path(self, name: str) -> Path:
        try:
            return self.path / file_name(name)
        except ValueError as error:
            raise OutputError(f"nothing can be written to {self.path} under this name: {error}") from error

    def _mode(self, name: str) -> int | None:
        """Of what has this name, links not followed; ``None`` where nothing has."""
        with naming(self._path(name)):
            try:
                return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return None


def _part_name() -> str:
    """Of what is not whole yet."""
    return f"{_PART_PREFIX}{secrets.token_hex(8)}"


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for is_kind, kind in kinds if is_kind(mode)), "a device")


@contextlib.contextmanager
def naming(path: Path, part: str = "") -> Iterator[None]:
    """The system's errors about a file, or about the part of it that there is, with its name and a way out."""
    try:
        yield
    except OSError as error:
        # Those of writing name no file; those of other files, and those that are none of the system's, go on as they are.
        if isinstance(error, OutputError) or error.errno is None or error.filename not in (None, path.name, part):
            raise
        hint = ": make room, or choose another folder" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        raise OutputError(f"{path} cannot be written: {error.strerror}{hint}") from error
