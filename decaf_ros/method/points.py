"""Point prompts from the heat map, and which of the masks that they give survive (DecAF, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from decaf_ros.datatypes import BoolArray, PointPrompt


def select_points(heat_thw: torch.Tensor, threshold: float, size_hw: tuple[int, int]) -> list[PointPrompt]:
    """A point at the centre of every grid cell whose heat reaches the threshold.

    Args:
        heat_thw: ``(T, H', W')`` in [0, 1].
        threshold: ``tau_pq``.
        size_hw: height and width of the image in pixels.

    Returns:
        Points in order of time, then rows, then columns.
    """
    cell_h, cell_w = size_hw[0] / heat_thw.shape[1], size_hw[1] / heat_thw.shape[2]
    heat = heat_thw.detach().cpu()
    return [
        PointPrompt(t, ((x + 0.5) * cell_w, (y + 0.5) * cell_h), float(heat[t, y, x]))
        for t, y, x in torch.nonzero(heat >= threshold).tolist()
    ]


def mask_iou(a_hw: BoolArray, b_hw: BoolArray) -> float:
    """Intersection over union of two ``(H, W)`` masks; 0 for two empty ones."""
    union = np.count_nonzero(a_hw | b_hw)
    return float(np.count_nonzero(a_hw & b_hw) / union) if union else 0.0


def suppress(
    masks_nhw: BoolArray, scores: Sequence[float], iou_threshold: float, check: Callable[[], None] = lambda: None
) -> list[int]:
    """Greedy non-maximum suppression on mask IoU.

    Masks are compared with those that stay only: there are few of these, while a large object gives hundreds of points.

    Args:
        masks_nhw: ``(N, H, W)`` bool.
        scores: ``s_obj`` of each.
        iou_threshold: a mask that overlaps a better one by more than this goes.
        check: called before each mask; raises to abandon the work.

    Returns:
        Indices that stay, best first; of equal scores the earlier one stays. Empty masks never stay.
    """
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda index: -scores[index]):
        check()
        mask_hw = masks_nhw[index]
        if mask_hw.any() and all(mask_iou(mask_hw, masks_nhw[better]) <= iou_threshold for better in kept):
            kept.append(index)
    return kept
