"""TAM: what a token of an answer lights up in the image (Li et al., ICCV 2025, arXiv 2506.23270).

A token's activation at a place is its logit there, cut off at 0. What a token of the answer lights up is in part what tokens
before it do already; that part is estimated and taken away, and a filter takes away what single cells light up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

KERNEL = 3


def answer_map(
    token_ids: Sequence[int], prompt_tokens: int, visual_kthw: torch.Tensor, textual_kk: torch.Tensor
) -> torch.Tensor:
    """What an answer lights up: the mean of its tokens' filtered maps, ``(T, H', W')``; zeros for an empty answer.

    Args:
        token_ids: of the prompt's tokens, then of the answer's.
        prompt_tokens: how many of them are the prompt's.
        visual_kthw: ``(K, T, H', W')``, what each token lights up in the images.
        textual_kk: ``(K, K)``, what the row's token lights up at the column's.
    """
    maps = [
        rank_gaussian(token_map(target, token_ids, visual_kthw, textual_kk)) for target in range(prompt_tokens, len(token_ids))
    ]
    return torch.stack(maps).mean(dim=0) if maps else torch.zeros_like(visual_kthw[0])


def token_map(target: int, token_ids: Sequence[int], visual_kthw: torch.Tensor, textual_kk: torch.Tensor) -> torch.Tensor:
    """What one token lights up beyond what other tokens before it do: ``(T, H', W')``. Arguments as of :func:`answer_map`."""
    before = [index for index in range(target) if token_ids[index] != token_ids[target]]
    own = visual_kthw[target]
    if not before:
        return own
    return beyond(own, interference(visual_kthw[before], textual_kk[target, before]))


def interference(maps_kthw: torch.Tensor, relevance_k: torch.Tensor) -> torch.Tensor:
    """The mean of maps, weighted by how relevant their tokens are; zeros where none is."""
    total = relevance_k.sum()
    weights = relevance_k / total if total > 0 else torch.zeros_like(relevance_k)
    return torch.einsum("k,kthw->thw", weights, maps_kthw)


def beyond(map_thw: torch.Tensor, context_thw: torch.Tensor) -> torch.Tensor:
    """A map less as much of another one as explains most of it, by least squares; cut off at 0."""
    power = (context_thw * context_thw).sum()
    scale = (map_thw * context_thw).sum() / power if power > 0 else 0.0
    return (map_thw - scale * context_thw).clamp(min=0.0)


def rank_gaussian(map_thw: torch.Tensor, kernel_size: int = KERNEL) -> torch.Tensor:
    """A filter between a median and a mean: a Gaussian over the *ranks* of each cell's neighbourhood, in space.

    Its width is the neighbourhood's coefficient of variation, so that even ground stays as it is, and a cell that stands out
    alone counts for little. Beyond the border the map is mirrored.

    Args:
        map_thw: ``(T, H', W')``, not negative.
        kernel_size: odd width of the neighbourhood.
    """
    reach = kernel_size // 2
    rows, columns = (_mirrored(size, reach).to(map_thw.device) for size in map_thw.shape[1:])
    padded = map_thw.index_select(1, rows).index_select(2, columns)
    around = padded.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1).flatten(3).sort(dim=-1).values
    mean = around.mean(dim=-1, keepdim=True)
    width = around.std(dim=-1, keepdim=True, correction=0) / mean.clamp(min=torch.finfo(around.dtype).tiny)
    ranks = torch.arange(kernel_size**2, dtype=around.dtype, device=around.device) - kernel_size**2 // 2
    weights = torch.exp(-(ranks**2) / (2 * width**2).clamp(min=torch.finfo(around.dtype).eps))
    return (around * weights).sum(dim=-1) / weights.sum(dim=-1)


def _mirrored(size: int, reach: int) -> torch.Tensor:
    """Indices of a row and of ``reach`` cells beyond both of its ends, mirrored at the last ones."""
    if size == 1:
        return torch.zeros(1 + 2 * reach, dtype=torch.int64)
    period = 2 * (size - 1)
    return (size - 1) - ((torch.arange(-reach, size + reach) % period) - (size - 1)).abs()
