"""Scores of masks against ground truth, as DAVIS defines them (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017).

J is the region similarity, F the boundary accuracy, J&F their mean. Every frame counts, while DAVIS's semi-supervised task
leaves out the first and the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from decaf_ros.datatypes import BoolArray, UInt8Array

BOUNDARY_TOLERANCE = 0.008


@dataclass(frozen=True)
class MaskScores:
    """Means over the frames of a clip, in [0, 1].

    Attributes:
        j: region similarity.
        f: boundary accuracy.
    """

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """The mean of both: the benchmarks' headline figure."""
        return (self.j + self.f) / 2


def score_clip(masks_thw: BoolArray, truth_thw: BoolArray) -> MaskScores:
    """Mean J and F over all frames of a clip.

    Args:
        masks_thw: ``(T, H, W)`` bool.
        truth_thw: ``(T, H, W)`` bool.

    Raises:
        ValueError: shapes that differ, or no frame.
    """
    if masks_thw.shape != truth_thw.shape or len(masks_thw) == 0:
        raise ValueError(f"masks {masks_thw.shape} and ground truth {truth_thw.shape} must be alike and hold a frame")
    pairs = list(zip(masks_thw, truth_thw, strict=True))
    return MaskScores(
        j=float(np.mean([region_similarity(mask, truth) for mask, truth in pairs])),
        f=float(np.mean([boundary_accuracy(mask, truth) for mask, truth in pairs])),
    )


def robustness(mask_hw: BoolArray, truth_hw: BoolArray, foreground_pixels: int) -> float:
    """R of one frame, as in ReVOS's released evaluation: 1 less the pixels wrongly claimed, over those of all objects.

    Args:
        mask_hw: ``(H, W)`` bool.
        truth_hw: ``(H, W)`` bool.
        foreground_pixels: of all objects that are annotated on the frame, whichever the sentence means.

    Returns:
        In [0, 1]; where there is no object at all, 1 for an empty mask and 0 for any other.
    """
    wrong = np.count_nonzero(mask_hw & ~truth_hw)
    return max(0.0, 1 - wrong / foreground_pixels) if foreground_pixels else float(wrong == 0)


def region_similarity(mask_hw: BoolArray, truth_hw: BoolArray) -> float:
    """J of one frame: intersection over union; 1 when both masks are empty."""
    union = np.count_nonzero(mask_hw | truth_hw)
    return np.count_nonzero(mask_hw & truth_hw) / union if union else 1.0


def boundary_accuracy(mask_hw: BoolArray, truth_hw: BoolArray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F of one frame: the harmonic mean of the boundaries' precision and recall; 1 when neither mask has a boundary.

    Args:
        mask_hw: ``(H, W)`` bool.
        truth_hw: ``(H, W)`` bool.
        tolerance: how far off a boundary pixel may lie, as a fraction of the image diagonal, rounded up to pixels.
    """
    boundary, true_boundary = boundary_pixels(mask_hw), boundary_pixels(truth_hw)
    if not boundary.any() or not true_boundary.any():
        return float(boundary.any() == true_boundary.any())
    disc = _disc(math.ceil(tolerance * math.hypot(*mask_hw.shape)))
    precision = _share_near(boundary, true_boundary, disc)
    recall = _share_near(true_boundary, boundary, disc)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_pixels(mask_hw: BoolArray) -> BoolArray:
    """``(H, W)`` bool: pixels that differ from their neighbour to the right, below or right below.

    A boundary thus lies on one side of each edge only and is one pixel wide; the image's own border is none.
    """
    padded = np.pad(mask_hw, ((0, 1), (0, 1)), mode="edge")
    return (mask_hw != padded[:-1, 1:]) | (mask_hw != padded[1:, :-1]) | (mask_hw != padded[1:, 1:])


def _share_near(boundary_hw: BoolArray, other_hw: BoolArray, disc: UInt8Array) -> float:
    """Share of the first boundary's pixels that the other, grown by the disc, covers."""
    reach = cv2.dilate(other_hw.astype(np.uint8), disc)
    return float(np.count_nonzero(boundary_hw & (reach > 0)) / np.count_nonzero(boundary_hw))


def _disc(radius: int) -> UInt8Array:
    """``(2 r + 1, 2 r + 1)`` uint8: pixels no further than ``radius`` from the centre."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None] ** 2 <= radius**2).astype(np.uint8)
