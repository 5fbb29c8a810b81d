"""Loc-Head: the few attention heads that look at what a sentence means (Kang et al., CVPR 2025, arXiv 2503.06287).

A head is judged by where the prompt's last token looks through it: how much of its attention goes to the image, and how well
that part keeps together. The heads that do best over a sample of sentences are kept, and their maps are added up.

Shape suffixes: ``s`` sentences of the sample, ``l`` layers, ``h`` heads.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

from decaf_ros.method.fusion import smooth

HEADS = 3
LOWEST = 10
SKIPPED_LAYERS = 2
KERNEL = 7

Head = tuple[int, int]
"""A layer of the model and a head of it, both counted from 0."""


def last_token_attention(queries_bhd: torch.Tensor, keys_bgkd: torch.Tensor, scaling: float) -> torch.Tensor:
    """``(B, heads, tokens)`` float32: how much the last token attends to each token, itself included.

    Args:
        queries_bhd: ``(B, heads, channels)``, the last token's, after the rotary embedding.
        keys_bgkd: ``(B, key heads, tokens, channels)`` of all tokens; the heads are a multiple of the key heads.
        scaling: factor on the scores before the softmax.
    """
    (batch, heads, channels), key_heads = queries_bhd.shape, keys_bgkd.shape[1]
    grouped_bgjd = queries_bhd.float().view(batch, key_heads, heads // key_heads, channels)
    scores_bgjk = grouped_bgjd @ keys_bgkd.float().transpose(2, 3) * scaling
    return scores_bgjk.softmax(dim=-1).flatten(1, 2)


def spatial_entropy(map_hw: torch.Tensor) -> float:
    """How scattered a map is: the entropy, in nats, of how its cells above the mean are shared out among connected regions.

    Regions count by their cells, and cells that touch at a corner are of one region.

    Args:
        map_hw: ``(H', W')``.

    Returns:
        0 for one region; infinity for a constant map, in which there is none.
    """
    above = (map_hw > map_hw.mean()).cpu().numpy().astype(np.uint8)
    _, regions = cv2.connectedComponents(above, connectivity=8)
    cells = np.bincount(regions[above == 1].ravel())[1:]
    if cells.size == 0:
        return math.inf
    shares = cells / cells.sum()
    return float(-(shares * np.log(shares)).sum())


def knee(values: torch.Tensor) -> float:
    """The value at which a sorted curve bends most: that which lies farthest from the line between its ends.

    Args:
        values: ``(n,)``, in any order; at least one.
    """
    rising = values.flatten().sort().values.double()
    chord = torch.linspace(float(rising[0]), float(rising[-1]), len(rising), dtype=torch.float64)
    return float(rising[(rising - chord).abs().argmax()])


def select_heads(shares_slh: torch.Tensor, entropies_slh: torch.Tensor, count: int = HEADS) -> tuple[Head, ...]:
    """The heads that most often are among the least scattered, of those that look at images.

    A head looks at images where its mean share over the sample reaches the :func:`knee` of all heads'. The first layers are
    left out, for they do not know yet what is meant. Of heads that are chosen as often, the less scattered one comes first.

    Args:
        shares_slh: ``(S, L, H)``, how much of the last token's attention goes to visual tokens.
        entropies_slh: ``(S, L, H)``, of :func:`spatial_entropy`.
        count: heads that are kept.

    Returns:
        The best one first; fewer where fewer look at images.

    Raises:
        ValueError: no sentence, or arrays that are not alike.
    """
    if shares_slh.shape != entropies_slh.shape or shares_slh.ndim != 3 or len(shares_slh) == 0:
        shapes = f"shares {tuple(shares_slh.shape)} and entropies {tuple(entropies_slh.shape)}"
        raise ValueError(f"{shapes} must be alike, and of one sentence at least")
    skipped = min(SKIPPED_LAYERS, shares_slh.shape[1] - 1)
    mean_lh = shares_slh[:, skipped:].double().mean(dim=0)
    looks_lh = mean_lh >= knee(mean_lh)
    heads = [(layer + skipped, head) for layer, head in looks_lh.nonzero().tolist()]
    wins, scattered = dict.fromkeys(heads, 0), dict.fromkeys(heads, 0.0)
    for entropies_lh in entropies_slh.double():
        of_heads = {head: float(entropies_lh[head]) for head in heads}
        for head in sorted(heads, key=of_heads.__getitem__)[:LOWEST]:
            wins[head] += 1
        for head in heads:
            scattered[head] += of_heads[head]
    return tuple(sorted(heads, key=lambda head: (-wins[head], scattered[head], head))[:count])


def head_map(rows_lhthw: torch.Tensor, heads: tuple[Head, ...]) -> torch.Tensor:
    """The heads' maps of a clip, smoothed and added up: ``(T, H', W')``.

    Args:
        rows_lhthw: ``(L, H, T, H', W')``, how much the last token attends to each visual token.
        heads: which of them.
    """
    added_thw = torch.stack([rows_lhthw[head] for head in heads]).sum(dim=0)
    return smooth(added_thw, KERNEL)
