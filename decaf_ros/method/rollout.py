"""V-Max attention rollout (DecAF, section 3.3), exact, in memory linear in the number of tokens.

The paper multiplies one ``N x N`` matrix per layer, and reads one row of the product. That row alone obeys a recurrence from
the last layer down to the first, ``r <- r/2 + r A_bar/2``, and both ``A_bar``'s head weights and ``r A`` are sums over query
rows. So the attention is recomputed from queries and keys in blocks of rows, used, and forgotten.

Several prompts may stand behind one visual prefix. They are laid out as one sequence, a tree with the prefix as its trunk:
prefix tokens never see a prompt, so their attention is the same for all prompts and is recomputed once per layer.

Shape suffixes: ``b`` conversations, ``h`` query heads, ``g`` key heads, ``j`` query heads that share a key head, ``u`` pairs
of conversation and key head, ``p`` prompts, ``n`` tokens of the tree, ``q`` query rows, ``k`` keys, ``d`` channels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch

Variant = Literal["v_max", "original", "max"]

# Score blocks fill a core's cache on a CPU; on an accelerator they must be large enough to keep it busy.
_BLOCK_ELEMENTS = {"cpu": 1 << 19}
_BLOCK_ELEMENTS_ACCELERATOR = 1 << 25
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


class _Tree(NamedTuple):
    """A visual prefix and the prompts behind it as one sequence of tokens.

    Attributes:
        last_p: the last token of each prompt.
        path_pn: ``(prompts, tokens)`` float32, 1 for the tokens of the prefix and of the prompt.
        hidden_qk: minus infinity where a token of the prompts (rows) must not see one of them (columns), else 0.
    """

    last_p: list[int]
    path_pn: torch.Tensor
    hidden_qk: torch.Tensor


class _Block(NamedTuple):
    """Attention of some tokens, in a buffer that the next block overwrites.

    Attributes:
        tokens: which tokens of the tree look.
        units: which pairs of conversation and key head.
        attention_ujqk: up to the last key that one of them may see.
    """

    tokens: slice
    units: slice
    attention_ujqk: torch.Tensor


def attention_rollout(
    prefix: Sequence[QueryKeys],
    prompts: Sequence[Sequence[QueryKeys]],
    visual: torch.Tensor,
    scaling: float,
    variant: Variant = "v_max",
    block_elements: int | None = None,
    saliency: list[torch.Tensor] | None = None,
    check: Callable[[], None] = lambda: None,
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
        visual: ``(P,)`` bool, the prefix tokens that show the images; on the CPU, or a GPU is waited for.
        scaling: factor on the scores before the softmax.
        variant: how heads are joined.
        block_elements: scores held at a time, the only working memory beyond vectors; by default chosen for the device.
        saliency: the prefix's own part of ``w``, which no prompt changes: for each layer ``(B, heads)`` float32, the sum over
            its rows. If it is empty it is filled, and may be given to the next call with this prefix and these visual tokens.
            Of ``v_max`` alone.
        check: called before each block of scores; raises to abandon the work.

    Returns:
        ``(prompts, B, visual tokens)`` float32 on the device of the queries.

    Raises:
        ValueError: an unknown variant, no prompt, layers that do not match, or a mask that does not fit or marks nothing.
    """
    _check(prefix, prompts, visual, variant)
    device = prefix[0].queries_bhqd.device
    if block_elements is None:
        block_elements = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS_ACCELERATOR)
    tree = _tree(len(visual), [prompt[0].keys_bgkd.shape[2] for prompt in prompts], device)
    runs = _runs(visual)
    rows_bpn = _last_tokens(tree, len(prefix[0].queries_bhqd))
    known = dict(enumerate(saliency or ()))
    found: dict[int, torch.Tensor] = {}
    for layer in reversed(range(len(prefix))):
        layer_prompts = [prompt[layer] for prompt in prompts]
        blocks = _attention_blocks(prefix[layer], layer_prompts, tree.hidden_qk, scaling, block_elements, check)
        if variant == "max":
            mixed_bpn = _rows_times_largest_head(blocks, rows_bpn, prefix[layer])
        elif variant == "original":
            mixed_bpn = _rows_times_heads(blocks, rows_bpn, prefix[layer]).mean(dim=1)
        else:
            mixed_bpn, found[layer] = _rows_times_salient_heads(blocks, rows_bpn, prefix[layer], tree, runs, known.get(layer))
        rows_bpn = 0.5 * rows_bpn + 0.5 * mixed_bpn
    if saliency is not None:
        saliency[:] = [found[layer] for layer in sorted(found)]
    return torch.cat([rows_bpn[..., start:end] for start, end in runs], dim=-1).transpose(0, 1)


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


def _tree(prefix_tokens: int, prompt_tokens: Sequence[int], device: torch.device) -> _Tree:
    own_pk = torch.block_diag(*[torch.ones(1, count) for count in prompt_tokens])
    seen_qk = torch.block_diag(*[torch.ones(count, count).tril() for count in prompt_tokens])
    return _Tree(
        [prefix_tokens + end - 1 for end in itertools.accumulate(prompt_tokens)],
        torch.nn.functional.pad(own_pk, (prefix_tokens, 0), value=1.0).to(device, non_blocking=True),
        seen_qk.log().to(device, non_blocking=True),
    )


def _last_tokens(tree: _Tree, batch: int) -> torch.Tensor:
    """``(B, prompts, tokens)``: all weight on each prompt's last token, where the recurrence begins."""
    rows_pn = torch.zeros_like(tree.path_pn)
    for row_n, last in zip(rows_pn, tree.last_p, strict=True):
        row_n[last].fill_(1.0)  # an assignment would copy the number from the CPU
    return rows_pn.expand(batch, -1, -1)


def _rows_times_heads(
    blocks: Iterable[_Block], rows_bpn: torch.Tensor, layer: QueryKeys, look: Callable[[_Block], None] = lambda block: None
) -> torch.Tensor:
    """``rows @ A`` of each head, ``(B, heads, p, n)``; ``look`` sees every block."""
    heads, key_heads = layer.queries_bhqd.shape[1], layer.keys_bgkd.shape[1]
    (batch, prompts, tokens), sharing = rows_bpn.shape, heads // key_heads
    rows_upn = rows_bpn.repeat_interleave(key_heads, dim=0)
    product_ujpn = rows_bpn.new_zeros(batch * key_heads, sharing, prompts, tokens)
    for block in blocks:
        seen = block.attention_ujqk.shape[-1]
        product_ujpn[block.units, ..., :seen] += rows_upn[block.units, None, :, block.tokens] @ block.attention_ujqk
        look(block)
    return product_ujpn.view(batch, heads, prompts, tokens)


def _rows_times_salient_heads(
    blocks: Iterable[_Block],
    rows_bpn: torch.Tensor,
    layer: QueryKeys,
    tree: _Tree,
    runs: list[tuple[int, int]],
    known_bh: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``rows @ A_bar``, ``(B, p, n)``, heads weighted by visual saliency; and the prefix's part of it, ``(B, heads)``."""
    (batch, heads, trunk), key_heads = layer.queries_bhqd.shape[:3], layer.keys_bgkd.shape[1]
    units, sharing = batch * key_heads, heads // key_heads
    prefix_uj = rows_bpn.new_zeros(units, sharing) if known_bh is None else known_bh.reshape(units, sharing)
    tails_ujp = rows_bpn.new_zeros(units, sharing, rows_bpn.shape[1])

    def look(block: _Block) -> None:
        in_prefix, seen = block.tokens.start < trunk, block.attention_ujqk.shape[-1]
        if runs[0][0] >= seen or (in_prefix and known_bh is not None):
            return
        peaks = [block.attention_ujqk[..., start:end].amax(dim=-1) for start, end in runs if start < seen]
        largest_ujq = peaks[0] if len(peaks) == 1 else torch.stack(peaks).amax(dim=0)
        if in_prefix:
            prefix_uj[block.units] += largest_ujq.sum(dim=-1)
        else:
            tails_ujp[block.units] += largest_ujq @ tree.path_pn[:, block.tokens].T

    product_bhpn = _rows_times_heads(blocks, rows_bpn, layer, look)
    # Sums over rows serve as well as means, since only ratios of heads are left after the division.
    saliency_bhp = (prefix_uj[..., None] + tails_ujp).view(batch, heads, -1)
    head_weights_bhp = saliency_bhp / saliency_bhp.amax(dim=1, keepdim=True)
    return torch.einsum("bhp,bhpn->bpn", head_weights_bhp, product_bhpn) / heads, prefix_uj.view(batch, heads)


def _rows_times_largest_head(blocks: Iterable[_Block], rows_bpn: torch.Tensor, layer: QueryKeys) -> torch.Tensor:
    """``rows @ max over heads of A``, ``(B, p, n)``."""
    batch, key_heads = layer.keys_bgkd.shape[:2]
    product_bpn = torch.zeros_like(rows_bpn, memory_format=torch.contiguous_format)
    largest_bqk = rows_bpn.new_zeros(0)
    for block in blocks:
        rows, seen = block.attention_ujqk.shape[-2:]
        if block.units.start == 0:
            largest_bqk = rows_bpn.new_zeros(batch, rows, seen)
        for unit, attention_jqk in enumerate(block.attention_ujqk, start=block.units.start):
            largest_qk = largest_bqk[unit // key_heads]
            torch.maximum(largest_qk, attention_jqk.amax(dim=0), out=largest_qk)
        if block.units.stop == batch * key_heads:
            product_bpn[..., :seen] += rows_bpn[..., block.tokens] @ largest_bqk
    return product_bpn


def _attention_blocks(
    prefix: QueryKeys,
    prompts: Sequence[QueryKeys],
    hidden_qk: torch.Tensor,
    scaling: float,
    block_elements: int,
    check: Callable[[], None],
) -> Iterator[_Block]:
    """Recompute the attention of the tree's tokens in float32, block by block.

    All units of some tokens come before the next tokens.
    """
    keys_ukd = torch.cat([layer.keys_bgkd for layer in (prefix, *prompts)], dim=2).flatten(0, 1).float()
    (units, keys, channels), heads = keys_ukd.shape, prefix.queries_bhqd[:, :, 0, 0].numel()
    sharing = heads // units
    size = min(keys, _MAX_BLOCK_ROWS, max(1, block_elements // (sharing * keys)))
    block_units = min(units, max(1, block_elements // (sharing * keys * size)))
    buffers = keys_ukd.new_empty(2, block_units * sharing * size * keys)
    for tokens, seen, queries_bhqd, hidden in _row_chunks(prefix, prompts, hidden_qk, size):
        count = tokens.stop - tokens.start
        queries_uqd = (queries_bhqd.float() * scaling).reshape(units, sharing * count, channels)
        for unit in range(0, units, block_units):
            check()
            chunk = slice(unit, min(unit + block_units, units))
            shape = chunk.stop - unit, sharing, count, seen
            scores_ujqk, attention_ujqk = (buffer[: math.prod(shape)].view(shape) for buffer in buffers)
            torch.bmm(queries_uqd[chunk], keys_ukd[chunk, :seen].transpose(1, 2), out=scores_ujqk.flatten(1, 2))
            scores_ujqk[..., seen - hidden.shape[1] :] += hidden
            torch.softmax(scores_ujqk, dim=-1, out=attention_ujqk)
            yield _Block(tokens, chunk, attention_ujqk)


def _row_chunks(
    prefix: QueryKeys, prompts: Sequence[QueryKeys], hidden_qk: torch.Tensor, size: int
) -> Iterator[tuple[slice, int, torch.Tensor, torch.Tensor]]:
    """The tree, up to ``size`` tokens at a time: which, the keys before the last that they may see, queries, and a mask.

    The mask is added to the scores of the last keys seen, as many as it has columns.
    """
    trunk, branches = prefix.queries_bhqd.shape[2], len(hidden_qk)
    future_qk = torch.full((size, size), float("-inf"), device=hidden_qk.device).triu(1)
    for start in range(0, trunk, size):
        end = min(start + size, trunk)
        yield slice(start, end), end, prefix.queries_bhqd[:, :, start:end], future_qk[: end - start, : end - start]
    tails_bhqd = torch.cat([prompt.queries_bhqd for prompt in prompts], dim=2)
    for start in range(0, branches, size):
        end = min(start + size, branches)
        yield slice(trunk + start, trunk + end), trunk + branches, tails_bhqd[:, :, start:end], hidden_qk[start:end]
