"""The attention rollout as the paper writes it, with whole matrices: slow, and nothing to go wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def reference_rollout(attentions: Sequence[torch.Tensor], visual: torch.Tensor, variant: str) -> torch.Tensor:
    """Last row of the rollout at the visual tokens.

    Args:
        attentions: softmax attention ``(heads, N, N)`` of the layers ``l0 .. L-1``, first layer first.
        visual: ``(N,)`` bool.
        variant: v_max, original or max.
    """
    product = torch.eye(len(visual), dtype=attentions[0].dtype)
    for attention in attentions:
        if variant == "max":
            mixed = attention.max(dim=0).values
        else:
            weights = torch.ones(len(attention), dtype=attention.dtype)
            if variant == "v_max":
                weights = attention[:, :, visual].max(dim=2).values.mean(dim=1)
                weights = weights / weights.max()
            mixed = (weights[:, None, None] * attention).mean(dim=0)
        product = (0.5 * mixed + 0.5 * torch.eye(len(visual), dtype=attention.dtype)) @ product
    return product[-1, visual]


def normalised(rows: torch.Tensor) -> torch.Tensor:
    """The same, from 0 to 1."""
    return (rows - rows.min()) / (rows.max() - rows.min())
