"""Boxes in place of attention: where a language model says that something is, as a heat map and as prompts.

Not part of DecAF, beside which this stands as the obvious other way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from decaf_ros.datatypes import BoxPrompt

BoxOn = tuple[int, tuple[float, float, float, float]]
"""Index of a key frame, and ``(x_min, y_min, x_max, y_max)`` in pixels of it."""


def heat_of_boxes(boxes: Sequence[BoxOn], grid_thw: tuple[int, int, int], size_hw: tuple[int, int]) -> torch.Tensor:
    """A map that is as hot as boxes cover a cell, each box 1 where it covers most, and 0 on frames without any.

    Where nobody looked at attention it stands for the heat map, so that masks are scored by how they agree with the boxes.

    Args:
        boxes: inside the image.
        grid_thw: of the map: key frames, rows and columns.
        size_hw: height and width of the image in pixels.

    Returns:
        ``(T, H', W')`` float32 in [0, 1].
    """
    heat = torch.zeros(grid_thw)
    (_, rows, columns), (height, width) = grid_thw, size_hw
    for key_index, (x_min, y_min, x_max, y_max) in boxes:
        down, across = _covered(y_min, y_max, height, rows), _covered(x_min, x_max, width, columns)
        cells = down[:, None] * across
        heat[key_index] = torch.maximum(heat[key_index], cells / cells.max())
    return heat


def select_boxes(boxes: Sequence[BoxOn], heat_thw: torch.Tensor, size_hw: tuple[int, int]) -> list[BoxPrompt]:
    """Boxes as prompts, in their order. The ``V_p`` of a box is the greatest heat of the cells that it covers, if only in part.

    Args:
        boxes: inside the image, of at least a pixel.
        heat_thw: ``(T, H', W')`` in [0, 1].
        size_hw: height and width of the image in pixels.
    """
    (_, rows, columns), (height, width) = heat_thw.shape, size_hw
    prompts = []
    for key_index, (x_min, y_min, x_max, y_max) in boxes:
        down, across = _covered(y_min, y_max, height, rows) > 0, _covered(x_min, x_max, width, columns) > 0
        attention = float(heat_thw[key_index][down][:, across].max())
        prompts.append(BoxPrompt(key_index, (x_min, y_min, x_max, y_max), attention))
    return prompts


def _covered(start: float, stop: float, size: int, cells: int) -> torch.Tensor:
    """``(cells,)`` float32: the share of each cell along one side of an image that lies from ``start`` to ``stop`` pixels."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * (size / cells)
    return ((edges[1:].clamp(max=stop) - edges[:-1].clamp(min=start)).clamp(min=0) * (cells / size)).float()
