"""Masks in COCO's run-length encoding, in which MeViS and ReVOS keep their ground truth and ``decaf segment`` its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decaf_ros.datatypes import BoolArray
from decaf_ros.image_files import MOST_PIXELS
from decaf_ros.text import brief

_MOST_BITS = 40  # of a run's length


def decode_rle(rle: Any, size_hw: tuple[int, int] | None = None) -> BoolArray:
    """``(H, W)`` bool from COCO's ``{"size": [H, W], "counts": ...}``.

    The runs alternate between background and foreground, background first, down the columns.

    Args:
        rle: ``counts`` holds the runs' lengths as a list, or compressed as text.
        size_hw: of the mask, if it is known: memory is taken for no other one.

    Raises:
        ValueError: it is no mask of COCO, or another one than was expected, or the runs do not add up to the size.
    """
    height, width = _size(rle, size_hw)
    runs = _runs(rle.get("counts"))
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"the run lengths of a mask of {height} x {width} pixels do not add up to its size")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(values.reshape(width, height).T)


def encode_rle(mask_hw: BoolArray) -> dict[str, Any]:
    """COCO's ``{"size": [H, W], "counts": "..."}``, compressed, from ``(H, W)`` bool."""
    columns = mask_hw.T.reshape(-1)
    changes = np.flatnonzero(np.diff(columns, prepend=False))
    runs = np.diff(changes, prepend=0, append=columns.size)
    return {"size": list(mask_hw.shape), "counts": _compress(runs.tolist())}


def _size(rle: Any, size_hw: tuple[int, int] | None) -> tuple[int, int]:
    size = rle.get("size") if isinstance(rle, dict) else None
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and all(type(side) is int and side >= 0 for side in size)):
        raise ValueError('a mask needs "size", [height, width], and "counts"')
    height, width = size
    if size_hw is not None and (height, width) != size_hw:
        raise ValueError(f"it has size {brief(size)}, the image {list(size_hw)} (height, width)")
    if height * width > MOST_PIXELS:
        raise ValueError(f"a mask of {brief(height)} x {brief(width)} pixels is larger than any image that is read")
    return height, width


def _runs(counts: Any) -> Sequence[int]:
    if isinstance(counts, str):
        return _decompress(counts)
    if not (isinstance(counts, (list, tuple)) and all(type(run) is int for run in counts)):
        raise ValueError('"counts" of a mask are whole numbers, as a list or compressed as text')
    return counts


def _compress(runs: Sequence[int]) -> str:
    """The inverse of :func:`_decompress`."""
    text = ""
    for index, run in enumerate(runs):
        value, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def _decompress(text: str) -> Sequence[int]:
    """Run lengths from their text: five bits a character, low bits first, as differences to the run before the last.

    Of a character's code less 48, bit 5 says that more bits follow, and bit 4 of a number's last character is its sign. The
    first three numbers are no differences.
    """
    runs: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or shift > _MOST_BITS:
            raise ValueError('"counts" of a mask are no run lengths of COCO')
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError('"counts" of a mask break off')
    return runs
