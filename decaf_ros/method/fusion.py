"""From four attention rollouts to one heat map and its coarse masks (DecAF, sections 3.2 and 3.3).

Pure functions on ``(T, H', W')`` float32 maps over the grid of visual tokens.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from decaf_ros.datatypes import BoolArray

VIDEO_KERNEL = 3
FRAME_KERNEL = 7
NOT_FINITE = (
    "the language model's attention is not finite: it overflows in its number format; use bfloat16 or float32 (parameter dtype)"
)


def smooth(map_thw: torch.Tensor, kernel_size: int, sigma: float = 1.0) -> torch.Tensor:
    """Gaussian smoothing of every frame, with zeros around the map.

    Args:
        map_thw: ``(T, H', W')`` floating point.
        kernel_size: odd width of the square kernel; the paper's are :data:`VIDEO_KERNEL` and :data:`FRAME_KERNEL`.
        sigma: in grid cells.
    """
    offsets = torch.arange(kernel_size, dtype=map_thw.dtype, device=map_thw.device) - (kernel_size - 1) / 2
    profile = torch.exp(-0.5 * (offsets / sigma) ** 2)
    profile = profile / profile.sum()
    kernel = torch.outer(profile, profile)[None, None]
    return F.conv2d(map_thw[:, None], kernel, padding=kernel_size // 2)[:, 0]


def contrast(object_thw: torch.Tensor, background_thw: torch.Tensor) -> torch.Tensor:
    """Contrastive object-background fusion: what the object prompt attends to beyond the background prompt, on raw maps.

    Attention sinks are high under both prompts and cancel.
    """
    return (object_thw - background_thw).clamp(0.0, 1.0)


def normalise(map_thw: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
    """Min-max normalisation to [0, 1], over the clip or frame by frame. A constant map becomes 0."""
    dims = (1, 2) if per_frame else (0, 1, 2)
    low, high = map_thw.amin(dims, keepdim=True), map_thw.amax(dims, keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (map_thw - low) / torch.where(spread > 0, spread, 1.0), 0.0)


def video_map(
    object_thw: torch.Tensor, background_thw: torch.Tensor | None, temporal_stride: int, frame_count: int
) -> torch.Tensor:
    """The video path's map: smoothed, contrasted, normalised over the clip, one layer per frame.

    Args:
        object_thw: ``(T', H', W')`` rollout of the object prompt.
        background_thw: the same of the background prompt; ``None`` leaves the contrast out (ablation).
        temporal_stride: frames that one step of T' covers.
        frame_count: T; what the last step covers beyond it was padding, and is dropped.

    Returns:
        ``(T, H', W')`` in [0, 1].

    Raises:
        ValueError: a rollout is not finite.
    """
    return over_frames(_contrasted(object_thw, background_thw, VIDEO_KERNEL), temporal_stride, frame_count)


def over_frames(map_thw: torch.Tensor, temporal_stride: int, frame_count: int) -> torch.Tensor:
    """A map of the video path, normalised over the clip, one layer per frame; arguments and result as of :func:`video_map`."""
    return normalise(map_thw).repeat_interleave(temporal_stride, dim=0)[:frame_count]


def frame_map(object_thw: torch.Tensor, background_thw: torch.Tensor | None) -> torch.Tensor:
    """The frame path's map: smoothed, contrasted, normalised per frame: ``(T, H', W')`` in [0, 1].

    Raises:
        ValueError: a rollout is not finite.
    """
    return normalise(_contrasted(object_thw, background_thw, FRAME_KERNEL), per_frame=True)


def complement(video_thw: torch.Tensor, frame_thw: torch.Tensor) -> torch.Tensor:
    """Video-frame complementary fusion: the mean of both paths on the frame path's grid, normalised over the clip.

    Args:
        video_thw: ``(T, h, w)`` from :func:`video_map`.
        frame_thw: ``(T, H', W')`` from :func:`frame_map`.

    Raises:
        ValueError: the paths saw different numbers of frames.
    """
    if video_thw.shape[0] != frame_thw.shape[0]:
        raise ValueError(f"the paths disagree on the number of frames: {video_thw.shape[0]} and {frame_thw.shape[0]}")
    return normalise((resize(video_thw, (frame_thw.shape[1], frame_thw.shape[2])) + frame_thw) / 2)


def joined(video_thw: torch.Tensor | None, frame_thw: torch.Tensor | None) -> torch.Tensor:
    """The heat map: both paths' maps as :func:`complement` joins them, or the one that there is, normalised over the clip."""
    if video_thw is not None and frame_thw is not None:
        return complement(video_thw, frame_thw)
    alone = video_thw if video_thw is not None else frame_thw
    assert alone is not None, "at least one path"
    return normalise(alone)


def resize(map_thw: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """Bilinear interpolation (``align_corners=False``) of every frame to a grid or an image size."""
    return F.interpolate(map_thw[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]


def coarse_masks(heat_thw: torch.Tensor, size_hw: tuple[int, int]) -> BoolArray:
    """Masks straight from the heat map, by Otsu's threshold on each frame at image size.

    Args:
        heat_thw: ``(T, H', W')`` in [0, 1].
        size_hw: height and width of the image in pixels.

    Returns:
        ``(T, H, W)`` bool.
    """
    levels = (resize(heat_thw.float(), size_hw) * 255).round().to(torch.uint8).cpu().numpy()
    return np.stack([cv2.threshold(level, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1].astype(np.bool_) for level in levels])


def _contrasted(object_thw: torch.Tensor, background_thw: torch.Tensor | None, kernel_size: int) -> torch.Tensor:
    for map_thw in (object_thw, background_thw):
        if map_thw is not None and not map_thw.isfinite().all():
            raise ValueError(NOT_FINITE)
    smoothed = smooth(object_thw, kernel_size)
    return smoothed if background_thw is None else contrast(smoothed, smooth(background_thw, kernel_size))
