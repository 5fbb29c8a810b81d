"""Attention of the embedded Qwen2.5-VL in training: windows in one call, and questions that share what is in front of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from decaf_ros.models.vision_tower import attend_in_segments

# "flash" in the name makes transformers' vision tower hand over all windows at once instead of looping over them.
_WINDOWED_ATTENTION = "flash_attention_windowed_sdpa"
_SHARED_PREFIX_ATTENTION = "shared_prefix_attention"
_BLOCK_ROWS = 192  # of causal attention that are multiplied with the keys up to their last one


def _windowed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention within windows, all windows of one length in one call.

    Args:
        module, attention_mask: unused; the signature is transformers'.
        query, key, value: ``(1, heads, N, channels)``.
        scaling: of the logits.
        cu_seq_lens_q: ``(windows + 1,)`` where windows begin.

    Returns:
        ``(1, N, heads, channels)``, and no weights.
    """
    return attend_in_segments(query, key, value, cu_seq_lens_q, partial(_attended, scaling=scaling)), None


def _attended(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Plain attention: with backward pass, in bfloat16 on a CPU, twice as fast as PyTorch's fused one."""
    return (query * scaling @ key.mT).softmax(dim=-1) @ value


@dataclass(eq=False)
class Layout:
    """How a sequence is made up, and the attention that its layers paid. It stands in the place of transformers' mask.

    A prefix of ``P`` tokens is followed by ``Q`` questions of ``S`` tokens; each sees the prefix and itself.

    Attributes:
        prefix: P.
        questions, width: Q and S.
        first_layer: from which on the weights are kept.
        kept: those of the layers from that one on.
    """

    prefix: int
    questions: int
    width: int
    first_layer: int
    kept: list[Weights] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Weights:
    """The attention of one layer, without what is zero in it.

    Attributes:
        prefix: ``(B, heads, rows, columns)`` of some rows of the prefix each, down to the last; over the columns to the last of
            these rows.
        questions: ``(B, heads, Q, S, P + S)``: on the prefix, and on the question itself.
    """

    prefix: tuple[Tensor, ...]
    questions: Tensor


def _shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Layout,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of the language model over a prefix and the questions behind it.

    Args:
        module: the attention module, which knows its layer.
        query: ``(B, heads, N, channels)``.
        key, value: ``(B, key heads, N, channels)``.
        attention_mask: the layout.
        scaling: of the logits.

    Returns:
        ``(B, N, heads, channels)``, and nothing: the weights are kept in the layout.
    """
    layout = attention_mask
    begin, shape = layout.prefix, (layout.questions, layout.width)
    groups = query.shape[1] // key.shape[1]
    query = query * scaling
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    attended, of_prefix = [], []
    for first in range(0, begin, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, begin)
        logits = query[:, :, first:last] @ key[:, :, :last].mT
        weights = (logits + _future(last - first, last, query)).softmax(dim=-1)
        of_prefix.append(weights)
        attended.append(weights @ value[:, :, :last])
    own_query, own_key, own_value = (states[:, :, begin:].unflatten(2, shape) for states in (query, key, value))
    own = own_query @ own_key.mT + _future(layout.width, layout.width, query)  # (B, heads, Q, S, S)
    shared = (query[:, :, begin:] @ key[:, :, :begin].mT).unflatten(2, shape)
    weights = torch.cat([shared, own], dim=-1).softmax(dim=-1)
    on_prefix = weights[..., :begin].flatten(2, 3) @ value[:, :, :begin]
    attended.append(on_prefix + (weights[..., begin:] @ own_value).flatten(2, 3))
    if module.layer_idx >= layout.first_layer:
        layout.kept.append(Weights(tuple(of_prefix), weights))
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _future(rows: int, columns: int, like: Tensor) -> Tensor:
    """``(rows, columns)``, -inf where the last of so many columns come after a row, else 0."""
    return torch.full((rows, columns), float("-inf"), dtype=like.dtype, device=like.device).triu(columns - rows + 1)


AttentionInterface.register(_WINDOWED_ATTENTION, _windowed_attention)
AttentionInterface.register(_SHARED_PREFIX_ATTENTION, _shared_prefix_attention)


def prepare(model: Model) -> None:
    """Choose these attention functions."""
    model.set_attn_implementation({"text_config": _SHARED_PREFIX_ATTENTION, "vision_config": "eager"})
    model.model.visual.config._attn_implementation = _WINDOWED_ATTENTION


def roll_out(layers: list[Weights], visual: slice, last: Tensor) -> Tensor:
    """``(B, Q, N_v)`` V-Max attention rollout of each question's last prompt token (DecAF, section 3.1).

    The recurrence over the last row alone: ``r <- r / 2 + sum over heads of w[h] * (r @ A[h]) / (2 * heads)``. The heads'
    weights are taken as constants.

    Args:
        layers: attention of each, the first of the rollout first.
        visual: the visual tokens in the prefix.
        last: ``(B, Q)`` index of the last prompt token in its question.
    """
    batch, heads, questions, width, columns = layers[0].questions.shape
    begin = columns - width
    own = torch.arange(width, device=last.device) <= last[..., None]  # (B, Q, S): tokens of the prompt, not of the answer
    of_prefix = torch.zeros(batch, questions, begin, device=last.device)
    of_question = F.one_hot(last, width).float()
    for layer in reversed(layers):
        weights = _head_weights(layer, visual, own) / (2 * heads)  # (B, Q, heads)
        from_question = (weights.mT[..., None] * of_question[:, None])[..., None, :]  # (B, heads, Q, 1, S)
        carried = _multiplied(from_question, layer.questions)[..., 0, :].sum(1)  # (B, Q, P + S)
        from_prefix = weights.mT[..., None] * of_prefix[:, None]  # (B, heads, Q, P)
        on_prefix = carried[..., :begin] + 0.5 * of_prefix
        first = 0
        for block in layer.prefix:
            rows, seen = block.shape[-2:]
            through = _multiplied(from_prefix[..., first : first + rows], block).sum(1)
            on_prefix = on_prefix + F.pad(through, (0, begin - seen))
            first += rows
        of_prefix, of_question = on_prefix, carried[..., begin:] + 0.5 * of_question
    return of_prefix[..., visual]


def _multiplied(rows: Tensor, attention: Tensor) -> Tensor:
    """Float32 product, in the precision of the attention."""
    return (rows.to(attention.dtype) @ attention).float()


@torch.no_grad()
def _head_weights(layer: Weights, visual: slice, own: Tensor) -> Tensor:
    """``(B, Q, heads)``: what the rows pay to the visual token that they look at most, over the largest of the heads."""
    of_prefix = sum(
        block[..., visual].amax(dim=-1).float().sum(-1) for block in layer.prefix if block.shape[-1] > visual.start
    )  # (B, heads)
    of_questions = layer.questions[..., visual].amax(dim=-1).float()  # (B, heads, Q, S)
    total = of_prefix[:, None] + (of_questions * own[:, None]).sum(-1).mT
    return total / total.amax(dim=-1, keepdim=True)  # the mean's denominator cancels
