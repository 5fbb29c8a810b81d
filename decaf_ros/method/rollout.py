"""V-Max attention rollout (DecAF, section 3.3), exact, in memory linear in the number of tokens.

The paper multiplies one ``N x N`` matrix per layer, and reads one row of the product. That row alone obeys a recurrence from
the last layer down to the first, ``r <- r/2 + r A_bar/2``, and both ``A_bar``'s head weights and ``r A`` are sums over query
rows. So the attention is recomputed from queries and keys in blocks of rows, used, and forgotten.

Several prompts may stand behind one visual prefix. The prefix tokens never see them, so their rows are the same for all
prompts and are recomputed once per layer.

Shape suffixes: ``b`` conversations, ``h`` query heads, ``g`` key heads, ``j`` query heads that share a key head, ``u`` pairs
of conversation and key head, ``p`` prompts, ``q`` query rows, ``k`` keys, ``d`` channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch

Variant = Literal["v_max", "original", "max"]

# Score blocks fill a core's cache on a CPU; on an accelerator they must be large enough to keep it busy.
_BLOCK_ELEMENTS = {"cpu": 1 << 19}
_BLOCK_ELEMENTS_ACCELERATOR = 1 << 26
# More rows in a block than this would compute too many scores above the causal diagonal.
_MAX_BLOCK_ROWS = 256


class QueryKeys(NamedTuple):
    """What one layer's attention is made of, for consecutive tokens, after the rotary embedding; any float dtype.

    Attributes:
        queries_bhqd: ``(B, heads, tokens, channels)``.
        keys_bgkd: ``(B, key heads, tokens, channels)``; the heads are a multiple of the key heads (grouped-query attention).
    """

    queries_bhqd: torch.Tensor
    keys_bgkd: torch.Tensor


class _Block(NamedTuple):
    """Attention of some query rows before the softmax's division, in a buffer that the next block overwrites.

    Attributes:
        rows: which queries.
        units: which pairs of conversation and key head.
        weights_ujqk: ``exp(score - row maximum)``, up to the last key that the last row may see.
        sums_ujq: the softmax's denominators.
    """

    rows: slice
    units: slice
    weights_ujqk: torch.Tensor
    sums_ujq: torch.Tensor


def attention_rollout(
    prefix: Sequence[QueryKeys],
    prompts: Sequence[Sequence[QueryKeys]],
    visual: torch.Tensor,
    scaling: float,
    variant: Variant = "v_max",
    block_elements: int | None = None,
) -> torch.Tensor:
    """Roll the attention of each prompt's last token out to the visual tokens (DecAF, section 3.3).

    Per layer, with ``A`` the softmax attention in float32, ``A_hat = A_bar/2 + I/2``, and the result is the last row of
    ``A_hat[L-1] @ ... @ A_hat[l0]``, where ``A_bar`` is

    - ``v_max``: the mean over heads of ``w[h] A[h]``, ``w[h]`` the mean over all query rows of the largest weight that the row
      puts on a visual token, divided by the largest ``w``;
    - ``original``: the mean over heads of ``A[h]``;
    - ``max``: the largest of the heads, element by element.

    Args:
        prefix: layers ``l0 .. L-1`` of the ``P`` tokens that all prompts share.
        prompts: for each prompt, the same layers of its own tokens, which follow the prefix and attend to it and causally to
            themselves. All conversations of a batch have one layout: nothing is padded.
        visual: ``(P,)`` bool, the prefix tokens that show the images.
        scaling: factor on the scores before the softmax.
        variant: how heads are joined.
        block_elements: scores held at a time, the only working memory beyond vectors; by default chosen for the device.

    Returns:
        ``(prompts, B, visual tokens)`` float32 on the device of the queries.

    Raises:
        ValueError: an unknown variant, no prompt, layers that do not match, or a mask that does not fit or marks nothing.
    """
    _check(prefix, prompts, visual, variant)
    device = prefix[0].queries_bhqd.device
    if block_elements is None:
        block_elements = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS_ACCELERATOR)
    runs = _runs(visual)
    rows_bk = [_last_token(prefix[0], prompt[0]) for prompt in prompts]
    for index in reversed(range(len(prefix))):
        layer_prompts = [prompt[index] for prompt in prompts]
        if variant == "max":
            rows_bk = _step_back_max(prefix[index], layer_prompts, rows_bk, scaling, block_elements)
        else:
            v_max_runs = runs if variant == "v_max" else None
            rows_bk = _step_back_weighted(prefix[index], layer_prompts, rows_bk, v_max_runs, scaling, block_elements)
    visual = visual.to(device)
    return torch.stack([row_bk[:, : len(visual)][:, visual] for row_bk in rows_bk])


def _check(prefix: Sequence[QueryKeys], prompts: Sequence[Sequence[QueryKeys]], visual: torch.Tensor, variant: str) -> None:
    if variant not in get_args(Variant):
        raise ValueError(f"unknown rollout variant {variant!r}, choose one of {', '.join(get_args(Variant))}")
    if not prompts or not prefix or any(len(prompt) != len(prefix) for prompt in prompts):
        raise ValueError(
            f"rollout needs a prompt and one layer each: prefix {len(prefix)}, prompts {[len(p) for p in prompts]}"
        )
    prefix_tokens = prefix[0].keys_bgkd.shape[2]
    if visual.dtype != torch.bool or visual.shape != (prefix_tokens,) or not visual.any():
        raise ValueError(
            f"visual must mark tokens among the {prefix_tokens} of the prefix, got {visual.dtype} {tuple(visual.shape)}"
        )


def _runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Start and end of each run of true values: slices cost nothing where a mask would cost a copy."""
    padded = torch.nn.functional.pad(mask.int(), (1, 1))
    change = torch.diff(padded)
    starts, ends = (change == 1).nonzero().flatten(), (change == -1).nonzero().flatten()
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _last_token(prefix: QueryKeys, prompt: QueryKeys) -> torch.Tensor:
    """``(B, P + prompt tokens)``: all weight on the prompt's last token, where the recurrence begins."""
    batch, _, prompt_tokens, _ = prompt.queries_bhqd.shape
    row_bk = prompt.queries_bhqd.new_zeros(batch, prefix.keys_bgkd.shape[2] + prompt_tokens, dtype=torch.float32)
    row_bk[:, -1] = 1.0
    return row_bk


def _step_back_weighted(
    prefix: QueryKeys,
    prompts: Sequence[QueryKeys],
    rows_bk: Sequence[torch.Tensor],
    runs: list[tuple[int, int]] | None,
    scaling: float,
    block_elements: int,
) -> list[torch.Tensor]:
    """Carry each prompt's row through one layer, heads weighted by their visual saliency, or alike where ``runs`` is None."""
    count = prefix.keys_bgkd.shape[2]
    shared_rows_bpq = torch.stack([row_bk[:, :count] for row_bk in rows_bk], dim=1)
    shared_bhpk, shared_saliency_bh = _rows_times_attention(prefix, 0, shared_rows_bpq, runs, scaling, block_elements)
    stepped = []
    for index, (prompt, row_bk) in enumerate(zip(prompts, rows_bk, strict=True)):
        own_rows_bpq = row_bk[:, None, count:]
        own_bhpk, own_saliency_bh = _rows_times_attention(
            _behind(prefix, prompt), count, own_rows_bpq, runs, scaling, block_elements
        )
        product_bhk = own_bhpk[:, :, 0]
        product_bhk[..., :count] += shared_bhpk[:, :, index]
        saliency_bh = shared_saliency_bh + own_saliency_bh
        # Sums over rows serve as well as means, since only ratios of heads are left after the division.
        head_weights_bh = saliency_bh / saliency_bh.amax(dim=1, keepdim=True) if runs else torch.ones_like(saliency_bh)
        mixed_bk = torch.einsum("bh,bhk->bk", head_weights_bh, product_bhk) / product_bhk.shape[1]
        stepped.append(0.5 * row_bk + 0.5 * mixed_bk)
    return stepped


def _step_back_max(
    prefix: QueryKeys, prompts: Sequence[QueryKeys], rows_bk: Sequence[torch.Tensor], scaling: float, block_elements: int
) -> list[torch.Tensor]:
    """Carry each prompt's row through one layer, the largest head taken for each element."""
    count = prefix.keys_bgkd.shape[2]
    shared_rows_bpq = torch.stack([row_bk[:, :count] for row_bk in rows_bk], dim=1)
    shared_bpk = _rows_times_largest_head(prefix, 0, shared_rows_bpq, scaling, block_elements)
    stepped = []
    for index, (prompt, row_bk) in enumerate(zip(prompts, rows_bk, strict=True)):
        own_rows_bpq = row_bk[:, None, count:]
        mixed_bk = _rows_times_largest_head(_behind(prefix, prompt), count, own_rows_bpq, scaling, block_elements)[:, 0]
        mixed_bk[:, :count] += shared_bpk[:, index]
        stepped.append(0.5 * row_bk + 0.5 * mixed_bk)
    return stepped


def _behind(prefix: QueryKeys, prompt: QueryKeys) -> QueryKeys:
    """The prompt's queries with all the keys they may see."""
    return QueryKeys(prompt.queries_bhqd, torch.cat([prefix.keys_bgkd, prompt.keys_bgkd], dim=2))


def _rows_times_attention(
    layer: QueryKeys,
    first: int,
    rows_bpq: torch.Tensor,
    runs: list[tuple[int, int]] | None,
    scaling: float,
    block_elements: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``rows @ A`` by head, ``(B, heads, p, k)``, and each head's sum over query rows of the largest visual weight."""
    (batch, heads), (key_heads, keys) = layer.queries_bhqd.shape[:2], layer.keys_bgkd.shape[1:3]
    rows_upq = rows_bpq.repeat_interleave(key_heads, dim=0)
    product_ujpk = rows_bpq.new_zeros(batch * key_heads, heads // key_heads, rows_bpq.shape[1], keys)
    saliency_uj = rows_bpq.new_zeros(batch * key_heads, heads // key_heads)
    for block in _attention_blocks(layer, first, scaling, block_elements):
        seen = block.weights_ujqk.shape[-1]
        # The softmax's denominator goes to the few row weights, not to the block.
        rows_ujpq = rows_upq[block.units, None, :, block.rows] / block.sums_ujq[:, :, None]
        product_ujpk[block.units, ..., :seen] += rows_ujpq @ block.weights_ujqk
        if runs is not None and runs[0][0] < seen:
            peaks = [block.weights_ujqk[..., start:end].amax(dim=-1) for start, end in runs if start < seen]
            largest_ujq = peaks[0] if len(peaks) == 1 else torch.stack(peaks).amax(dim=0)
            saliency_uj[block.units] += (largest_ujq / block.sums_ujq).sum(dim=-1)
    return product_ujpk.view(batch, heads, -1, keys), saliency_uj.view(batch, heads)


def _rows_times_largest_head(
    layer: QueryKeys, first: int, rows_bpq: torch.Tensor, scaling: float, block_elements: int
) -> torch.Tensor:
    """``rows @ max over heads of A``, ``(B, p, k)``."""
    batch, (key_heads, keys) = rows_bpq.shape[0], layer.keys_bgkd.shape[1:3]
    product_bpk = rows_bpq.new_zeros(batch, rows_bpq.shape[1], keys)
    largest_bqk = rows_bpq.new_zeros(0)
    for block in _attention_blocks(layer, first, scaling, block_elements):
        weights_ujqk = block.weights_ujqk.div_(block.sums_ujq[..., None])
        rows, seen = weights_ujqk.shape[-2:]
        if block.units.start == 0:
            largest_bqk = rows_bpq.new_zeros(batch, rows, seen)
        for unit, weights_jqk in enumerate(weights_ujqk, start=block.units.start):
            largest_qk = largest_bqk[unit // key_heads]
            torch.maximum(largest_qk, weights_jqk.amax(dim=0), out=largest_qk)
        if block.units.stop == batch * key_heads:
            product_bpk[..., :seen] += rows_bpq[..., block.rows] @ largest_bqk
    return product_bpk


def _attention_blocks(layer: QueryKeys, first: int, scaling: float, block_elements: int) -> Iterator[_Block]:
    """Recompute the causal attention in float32, block by block; query row ``q`` stands at key position ``first + q``.

    All units of some rows come before the next rows.
    """
    batch, heads, queries, channels = layer.queries_bhqd.shape
    key_heads, keys = layer.keys_bgkd.shape[1:3]
    sharing, units = heads // key_heads, batch * key_heads
    queries_ujqd = layer.queries_bhqd.reshape(units, sharing, queries, channels)
    keys_udk = layer.keys_bgkd.reshape(units, keys, channels).float().transpose(1, 2)
    block_rows = min(queries, _MAX_BLOCK_ROWS, max(1, block_elements // (sharing * keys)))
    block_units = min(units, max(1, block_elements // (sharing * keys * block_rows)))
    buffer = keys_udk.new_empty(block_units * sharing * block_rows * keys)
    future = torch.full((block_rows, block_rows), float("-inf"), device=buffer.device).triu(1)
    for row in range(0, queries, block_rows):
        rows = slice(row, min(row + block_rows, queries))
        count, seen = rows.stop - row, first + rows.stop
        for unit in range(0, units, block_units):
            chunk = slice(unit, min(unit + block_units, units))
            queries_uqd = queries_ujqd[chunk, :, rows].reshape(chunk.stop - unit, sharing * count, channels).float() * scaling
            scores_uqk = buffer[: queries_uqd.shape[0] * queries_uqd.shape[1] * seen].view(*queries_uqd.shape[:2], seen)
            torch.bmm(queries_uqd, keys_udk[chunk, :, :seen], out=scores_uqk)
            weights_ujqk = scores_uqk.view(-1, sharing, count, seen)
            weights_ujqk[..., seen - count :] += future[:count, :count]
            weights_ujqk.sub_(weights_ujqk.amax(dim=-1, keepdim=True)).exp_()
            yield _Block(rows, chunk, weights_ujqk, weights_ujqk.sum(dim=-1))
