"""Masks in COCO's run-length encoding, in which MeViS and ReVOS keep their ground truth and ``decaf segment`` its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decaf_ros.datatypes import BoolArray


def decode_rle(rle: Mapping[str, Any]) -> BoolArray:
    """``(H, W)`` bool from COCO's ``{"size": [H, W], "counts": ...}``.

    The runs alternate between background and foreground, background first, down the columns.

    Args:
        rle: ``counts`` holds the runs' lengths as a list, or compressed as text.

    Raises:
        ValueError: the runs do not add up to the size.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else counts
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
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs
