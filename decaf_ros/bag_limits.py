"""Limits to what a bag may make of a few bytes, where rosbags has none and no option for them.

A chunk, message or file of some kilobytes can stand for gigabytes when it is decompressed, and so can a column of SQLite.
"""

from __future__ import annotations

import os
from types import SimpleNamespace, TracebackType
from typing import Any, BinaryIO

import apsw
import lz4.frame  # type: ignore[import-untyped]
from rosbags.rosbag2 import reader, storage_mcap

from decaf_ros.image_files import MOST_PIXELS

# Of a message or a chunk, decompressed: a colour image of the most pixels, and its neighbours.
MOST_BYTES = 4 * MOST_PIXELS
# Of a whole file, over its compressed size: images of cameras have noise.
_MOST_FOLD = 200

_zstd = storage_mcap.zstd


def apply() -> None:
    """Set the limits, for this process, by replacing what rosbags decompresses with."""
    storage_mcap.DECOMPRESSORS["lz4"] = lambda data, size: _chunk(lz4.frame.LZ4FrameDecompressor(), data, size)
    storage_mcap.DECOMPRESSORS["zstd"] = lambda data, size: _chunk(_zstd.ZstdDecompressor(), data, size)
    reader.zstd = SimpleNamespace(decompress=_message, open=_BoundedFile)  # type: ignore[assignment]
    if _limit_length not in apsw.connection_hooks:
        apsw.connection_hooks.append(_limit_length)


def _limit_length(connection: apsw.Connection) -> None:
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, MOST_BYTES)


def _chunk(decompressor: Any, data: bytes, size: int) -> bytes:
    """What a chunk holds, or one byte more than it says: rosbags compares."""
    if size > MOST_BYTES:
        raise ValueError(f"a chunk of {size} bytes; at most {MOST_BYTES} are read")
    raw: bytes = decompressor.decompress(data, size + 1)
    return raw


def _message(data: bytes) -> bytes:
    raw = _zstd.ZstdDecompressor().decompress(data, MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"a compressed message of more than {MOST_BYTES} bytes")
    return raw


class _BoundedFile:
    """A compressed file that is read to its end, or to the limit."""

    def __init__(self, file: BinaryIO, _mode: str) -> None:
        self._file = _zstd.open(file, "rb")
        self._left = max(MOST_BYTES, _MOST_FOLD * os.fstat(file.fileno()).st_size)

    def __enter__(self) -> _BoundedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Up to so many bytes more."""
        data: bytes = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"a compressed file of more than {_MOST_FOLD} times its size")
        return data
