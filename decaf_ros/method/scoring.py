"""How well masks agree with the heat map: the attention consistency score ``s_ac`` (DecAF, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812


def filtered_map(heat_thw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split each frame into attended and unattended cells.

    Args:
        heat_thw: ``(T, H', W')`` in [0, 1].

    Returns:
        The attention mask ``V > mean(V)`` per frame, ``(T, H', W')`` bool, and the filtered map: ``V`` where attended and
        ``-max(V_t)`` elsewhere, so that a mask pays for every unattended cell it covers.
    """
    attended = heat_thw > heat_thw.mean(dim=(1, 2), keepdim=True)
    penalty = heat_thw.amax(dim=(1, 2), keepdim=True)
    return attended, torch.where(attended, heat_thw, -penalty)


def attention_consistency(masks_nthw: torch.Tensor, heat_thw: torch.Tensor) -> torch.Tensor:
    """``s_ac`` of masks over a clip, before any normalisation: 1 for masks that cover just the attended cells.

    Args:
        masks_nthw: ``(N, T, H, W)`` bool at image size.
        heat_thw: ``(T, H', W')`` in [0, 1].

    Returns:
        ``(N,)`` float32; 0 for all where the heat map is constant, since nothing is attended then.
    """
    attended, filtered = filtered_map(heat_thw)
    attended_sum = heat_thw[attended].sum()
    if attended_sum <= 0:
        return torch.zeros(masks_nthw.shape[0], device=heat_thw.device)
    # One after another: as floating point numbers the masks of a clip are large.
    pooled = (F.adaptive_avg_pool2d(masks.to(heat_thw), (heat_thw.shape[1], heat_thw.shape[2])) for masks in masks_nthw)
    return torch.stack([(cells * filtered).sum() for cells in pooled]) / attended_sum


def normalise_positive(scores: torch.Tensor) -> torch.Tensor:
    """Positive scores over the largest positive one; the others as they are."""
    largest = scores.max() if scores.numel() else torch.tensor(0.0)
    return torch.where(scores > 0, scores / largest.clamp(min=torch.finfo(scores.dtype).tiny), scores)


def tracklet_scores(attention: torch.Tensor, predicted_iou: torch.Tensor, consistency: torch.Tensor) -> torch.Tensor:
    """``s_trk = (V_p + IoU_p + s_ac) / 3`` for each tracklet, all ``(N,)``."""
    return (attention + predicted_iou + consistency) / 3
