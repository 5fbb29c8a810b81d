"""The attention rollout as the paper writes it, with whole matrices: slow, and nothing to go wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from decaf_ros.method.rollout import QueryKeys


def reference_rollout(attentions: Sequence[torch.Tensor], visual: torch.Tensor, variant: str) -> torch.Tensor:
    """Last row of the rollout at the visual tokens.

    Args:
        attentions: softmax attention ``(heads, N, N)`` of the layers ``l0 .. L-1``, first layer first.
        visual: ``(N,)`` bool.
        variant: v_max, original or max.
    """
    eye = torch.eye(len(visual)).to(attentions[0])
    product = eye
    for attention in attentions:
        if variant == "max":
            mixed = attention.max(dim=0).values
        else:
            weights = attention.new_ones(len(attention))
            if variant == "v_max":
                weights = attention[:, :, visual].max(dim=2).values.mean(dim=1)
                weights = weights / weights.max()
            mixed = (weights[:, None, None] * attention).mean(dim=0)
        product = (0.5 * mixed + 0.5 * eye) @ product
    return product[-1, visual]


def plain_rollout(
    prefix: Sequence[QueryKeys], prompt: Sequence[QueryKeys], visual: torch.Tensor, scaling: float
) -> torch.Tensor:
    """One prompt's map, from whole matrices as transformers' eager attention computes them.

    Args:
        prefix, prompt: queries and keys of one conversation by layer, first layer first, float32.
        visual: ``(prefix tokens,)`` bool.
        scaling: factor on the attention scores.
    """
    attentions = []
    for layer, tail in zip(prefix, prompt, strict=True):
        queries, keys = (torch.cat(parts, dim=2) for parts in zip(layer, tail, strict=True))
        heads_a_key_head = queries.shape[1] // keys.shape[1]
        scores = queries @ keys.repeat_interleave(heads_a_key_head, dim=1).transpose(2, 3) * scaling
        future = torch.full_like(scores[0, 0], float("-inf")).triu(1)
        attentions.append((scores + future).softmax(dim=-1)[0])
    whole = torch.nn.functional.pad(visual, (0, prompt[0].queries_bhqd.shape[2]))
    return reference_rollout(attentions, whole, "v_max")


def normalised(rows: torch.Tensor) -> torch.Tensor:
    """The same, from 0 to 1."""
    return (rows - rows.min()) / (rows.max() - rows.min())
