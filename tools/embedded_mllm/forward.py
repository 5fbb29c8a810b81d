"""One pass of the embedded Qwen2.5-VL over a batch: the images once, several questions behind them, rollouts and losses.

The questions of a conversation share its visual prefix: each sees the prefix and itself, with the position ids that it would
have alone, so every question's logits and attention equal those of a prompt of its own, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers import Qwen2_5_VLForConditionalGeneration as Model
from transformers import Qwen2_5_VLProcessor as Processor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    get_vision_attention_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from tools.embedded_mllm.data import Batch, sent
from tools.embedded_mllm.model import MERGE_SIZE
from tools.embedded_mllm.questions import Question

CHAT_BEGIN = "<|im_start|>user\n"
# "flash" in the name makes transformers' vision tower hand over all windows at once instead of looping over them.
_WINDOWED_ATTENTION = "flash_attention_windowed_sdpa"
_ROLLOUT_ATTENTION = "rollout_attention"


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
    groups = _rows_of_windows(cu_seq_lens_q, query.device)
    if len(groups) == 1:  # all windows of one length, one behind another
        windows = groups[0].shape
        q, k, v = (states[0].unflatten(1, windows).transpose(0, 1) for states in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        return attended.transpose(0, 1).flatten(1, 2)[None].transpose(1, 2), None
    output = torch.empty_like(query)
    for rows in groups:
        q, k, v = (states[0][:, rows].transpose(0, 1) for states in (query, key, value))
        output[0, :, rows] = F.scaled_dot_product_attention(q, k, v, scale=scaling).transpose(0, 1).to(output.dtype)
    return output.transpose(1, 2), None


_KNOWN_WINDOWS: dict[tuple[int, ...], list[Tensor]] = {}


def _rows_of_windows(cu_seq_lens: Tensor, device: torch.device) -> list[Tensor]:
    """``(windows, length)`` rows of the windows of each length, computed once for each layout of windows."""
    bounds = tuple(cu_seq_lens.tolist())
    if bounds not in _KNOWN_WINDOWS:
        lengths = cu_seq_lens.diff()
        _KNOWN_WINDOWS[bounds] = [
            (cu_seq_lens[:-1][lengths == length, None] + torch.arange(length)).long().to(device)
            for length in lengths.unique().tolist()
        ]
    return _KNOWN_WINDOWS[bounds]


def _rollout_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **_: object,
) -> tuple[Tensor, Tensor | None]:
    """Attention of the language model, which hands out its weights in the layers of the rollout only.

    Args:
        module: the attention module, which knows its layer.
        query: ``(B, heads, N, channels)``.
        key, value: ``(B, key heads, N, channels)``.
        attention_mask: ``(1, 1, N, N)``, added to the logits.
        scaling: of the logits.

    Returns:
        ``(B, N, heads, channels)``, and ``(B, heads, N, N)`` weights or None.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if module.layer_idx < first_rollout_layer(module.config.num_hidden_layers):
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
        return attended.transpose(1, 2), None
    batch, heads, length, _channels = query.shape
    mask = attention_mask[0].expand(batch * heads, -1, -1)
    logits = torch.baddbmm(mask, (query * scaling).flatten(0, 1), key.flatten(0, 1).transpose(1, 2))
    weights = logits.softmax(dim=-1).view(batch, heads, length, length)
    return (weights @ value).transpose(1, 2), weights


def first_rollout_layer(layers: int) -> int:
    """The upper half of the layers is rolled out (DecAF, section 3.1)."""
    return layers // 2


AttentionInterface.register(_WINDOWED_ATTENTION, _windowed_attention)
AttentionInterface.register(_ROLLOUT_ATTENTION, _rollout_attention)


def prepare(model: Model) -> None:
    """Choose the attention functions that :func:`run` needs."""
    model.set_attn_implementation({"text_config": _ROLLOUT_ATTENTION, "vision_config": "eager"})
    model.model.visual.config._attn_implementation = _WINDOWED_ATTENTION


@dataclass(frozen=True, eq=False)
class Prefix:
    """What all questions of a batch share, on the model's device.

    Attributes:
        token_ids: ``(P,)`` int64, from the start of the chat to the end of the images.
        visual: slice of the visual tokens in it.
        grid_thw: visual tokens T', h, w.
        positions: ``(3, B, P)`` int64, M-RoPE.
        pixels: ``(B * patches, channels)`` float32.
    """

    token_ids: Tensor
    visual: slice
    grid_thw: tuple[int, int, int]
    positions: Tensor
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class Suffixes:
    """The questions behind the prefixes, padded to one length, on the model's device.

    Attributes:
        token_ids: ``(B, Q, S)`` int64, prompts followed by the answer and the end of the turn.
        last: ``(B, Q)`` int64, index of the prompt's last token, which predicts the first one of the answer.
        weights: ``(B, Q, S)`` float32, how much it counts that a token is followed by the next one rightly.
    """

    token_ids: Tensor
    last: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Pass:
    """What came out.

    Attributes:
        vision: ``(B, N_v, C)`` features of the visual tokens before the language model.
        middle: ``(B, N_v, C)`` the same at the first layer of the rollout.
        logits: ``(B, Q, S, vocabulary)`` after each token of the suffixes.
        rollouts: ``(B, Q, N_v)`` float32, raw, not normalised.
    """

    vision: Tensor
    middle: Tensor
    logits: Tensor
    rollouts: Tensor


def build_prefix(model: Model, processor: Processor, batch: Batch) -> Prefix:
    """Tokens and positions in front of the questions of a batch."""
    steps, rows, columns = batch.grid_thw
    visual_count = steps * rows * columns
    pad = "<|video_pad|>" if batch.is_video else "<|image_pad|>"
    text = f"{CHAT_BEGIN}<|vision_start|>{pad * visual_count}<|vision_end|>"
    token_ids = torch.tensor(processor.tokenizer(text)["input_ids"])
    start = int((token_ids == processor.tokenizer.convert_tokens_to_ids(pad)).int().argmax())
    visual = slice(start, start + visual_count)
    # Few batches differ in more than the order of their rates: each rate's positions are computed once.
    positions = {rate: _positions(model, token_ids, visual, batch, rate) for rate in set(batch.seconds_per_step)}
    stacked = torch.stack([positions[rate] for rate in batch.seconds_per_step], dim=1)
    device = batch.pixels.device
    return Prefix(sent(token_ids, device), visual, batch.grid_thw, sent(stacked, device), batch.pixels)


def _positions(model: Model, token_ids: Tensor, visual: slice, batch: Batch, seconds_per_step: float) -> Tensor:
    """``(3, P)`` int64 M-RoPE positions of a prefix."""
    types = torch.zeros(1, len(token_ids), dtype=torch.int32)
    types[:, visual] = 2 if batch.is_video else 1
    steps, rows, columns = batch.grid_thw
    patch_grid = torch.tensor([[steps, rows * MERGE_SIZE, columns * MERGE_SIZE]])
    positions, _ = model.model.get_rope_index(
        token_ids[None],
        mm_token_type_ids=types,
        second_per_grid_ts=torch.tensor([seconds_per_step]),
        **({"video_grid_thw": patch_grid} if batch.is_video else {"image_grid_thw": patch_grid}),
    )
    return positions[:, 0]


# Of JSON, digits are what has to be looked for; the rest of it is always the same.
_END_WEIGHT, _DIGIT_WEIGHT, _SYNTAX_WEIGHT = 0.1, 0.15, 0.02


class Tokens:
    """Tokenizes questions, each one once.

    Args:
        processor: of the model.
    """

    def __init__(self, processor: Processor) -> None:
        self._tokenizer = processor.tokenizer
        self._known: dict[tuple[str, str], tuple[list[int], int, list[float]]] = {}

    def suffixes(self, questions: Sequence[Sequence[Question]], device: torch.device, begin: str = "") -> Suffixes:
        """The questions of each sample, which all have the same number of them; ``begin`` comes before each."""
        rows = [self._row(begin + question.prompt, question.answer) for row in questions for question in row]
        width = max(len(ids) for ids, _, _ in rows)
        pad = self._tokenizer.pad_token_id
        shape = (len(questions), len(questions[0]))
        token_ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids, _, _ in rows]).view(*shape, width)
        last = torch.tensor([last for _, last, _ in rows]).view(shape)
        weights = torch.tensor([[*told, *[0.0] * (width - len(told))] for _, _, told in rows]).view(*shape, width)
        return Suffixes(sent(token_ids, device), sent(last, device), sent(weights, device))

    def _row(self, prompt: str, answer: str) -> tuple[list[int], int, list[float]]:
        """Tokens, the prompt's last one, and the weights of what follows each."""
        if (prompt, answer) not in self._known:
            before: list[int] = self._tokenizer(f"{prompt}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
            words: list[int] = self._tokenizer(answer)["input_ids"]
            weights = [1.0]
            if len(words) > 1:
                names = self._tokenizer.convert_ids_to_tokens(words)
                weights = [_DIGIT_WEIGHT if name.isdigit() else _SYNTAX_WEIGHT for name in names]
            told = [*[0.0] * (len(before) - 1), *weights, _END_WEIGHT, 0.0]
            self._known[prompt, answer] = ([*before, *words, self._tokenizer.eos_token_id], len(before) - 1, told)
        return self._known[prompt, answer]


def run_vision(model: Model, prefix: Prefix) -> Tensor:
    """``(B, N_v, C)`` features of the visual tokens; the steps of all samples go through as those of one long video."""
    steps, rows, columns = prefix.grid_thw
    batch = prefix.positions.shape[1]
    patch_grid = torch.tensor([[batch * steps, rows * MERGE_SIZE, columns * MERGE_SIZE]])
    features = model.model.visual(prefix.pixels, grid_thw=patch_grid, **_layout(model, patch_grid, prefix.pixels.device))
    features = features.pooler_output
    return features.view(batch, steps * rows * columns, -1)


_KNOWN_LAYOUTS: dict[tuple[int, ...], dict[str, Any]] = {}


def _layout(model: Model, patch_grid: Tensor, device: torch.device) -> dict[str, Any]:
    """What transformers derives from the grid at each call, once for each grid; bounds of windows stay on the CPU.

    Derived on a GPU, each call would wait until the queue is empty.
    """
    key = tuple(patch_grid[0].tolist())
    if key not in _KNOWN_LAYOUTS:
        visual = model.model.visual
        sizes = {name: getattr(visual, name) for name in ("spatial_merge_size", "window_size", "patch_size")}
        index, window_bounds = get_vision_window_index(patch_grid, **sizes)
        bounds, longest = get_vision_attention_seqlens(patch_grid, visual.config)
        _KNOWN_LAYOUTS[key] = {
            "position_ids": get_vision_position_ids(patch_grid, visual.spatial_merge_size).to(device),
            "cu_seqlens": bounds,
            "max_seqlen": longest,
            "window_index": index.to(device),
            "cu_window_seqlens": window_bounds,
            "max_window_seqlen": int(window_bounds.diff().max()),
        }
    return dict(_KNOWN_LAYOUTS[key])


def run(model: Model, prefix: Prefix, suffixes: Suffixes) -> Pass:
    """Run vision tower and language model, and roll the attention out for every question."""
    batch, questions, width = suffixes.token_ids.shape
    device = prefix.pixels.device
    vision = run_vision(model, prefix)
    embed = model.get_input_embeddings()
    head = embed(prefix.token_ids).expand(batch, -1, -1)
    embeddings = torch.cat(
        [head[:, : prefix.visual.start], vision, head[:, prefix.visual.stop :], embed(suffixes.token_ids.flatten(1))], dim=1
    )
    start = prefix.positions[:, :, -1:] + 1
    suffix_positions = (start[..., None] + torch.arange(width, device=device)).expand(-1, -1, questions, -1).flatten(2)
    output = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=torch.cat([prefix.positions, suffix_positions], dim=2),
        attention_mask={"full_attention": _block_mask(len(prefix.token_ids), questions, width, device)},
        use_cache=False,
        output_attentions=True,
        output_hidden_states=True,
    )
    attentions = [weights for weights in output.attentions if weights is not None]
    first_layer = first_rollout_layer(model.config.text_config.num_hidden_layers)
    hidden = output.last_hidden_state[:, len(prefix.token_ids) :].unflatten(1, (questions, width))
    logits = model.lm_head(hidden).float()
    with torch.autocast(device.type, enabled=False):
        rollouts = roll_out(attentions, prefix, suffixes.last, width)[..., prefix.visual]
    middle = output.hidden_states[first_layer][:, prefix.visual].float()
    return Pass(vision=vision.float(), middle=middle, logits=logits, rollouts=rollouts)


def answer_losses(output: Pass, suffixes: Suffixes) -> Tensor:
    """``(B, Q)`` weighted cross-entropy of answers and ends."""
    following = suffixes.token_ids.roll(-1, dims=-1)
    entropy = F.cross_entropy(output.logits.flatten(0, 2), following.flatten(), reduction="none").view_as(following)
    return (entropy * suffixes.weights).sum(-1)


@torch.no_grad()
def are_right(output: Pass, suffixes: Suffixes) -> Tensor:
    """``(B, Q)`` bool: whether every token of the answer is the likeliest one."""
    following = suffixes.token_ids.roll(-1, dims=-1)
    return ((output.logits.argmax(-1) == following) | (suffixes.weights == 0)).all(-1)


def run_text(model: Model, suffixes: Suffixes) -> Pass:
    """Run the language model over questions without images, ``(1, Q)``, which begin with the chat itself."""
    _, questions, width = suffixes.token_ids.shape
    device = suffixes.token_ids.device
    output = model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(suffixes.token_ids[0]),
        position_ids=torch.arange(width, device=device).expand(3, questions, -1),
        attention_mask={"full_attention": _block_mask(0, 1, width, device)},  # padding is on the right, nothing looks at it
        use_cache=False,
    )
    nothing = torch.empty(0, device=device)
    return Pass(vision=nothing, middle=nothing, logits=model.lm_head(output.last_hidden_state).float()[None], rollouts=nothing)


def roll_out(attentions: Sequence[Tensor], prefix: Prefix, last: Tensor, width: int) -> Tensor:
    """``(B, Q, N)`` V-Max attention rollout of each question's last prompt token (DecAF, section 3.1).

    The recurrence over the last row alone: ``r <- r / 2 + sum over heads of w[h] * (r @ A[h]) / (2 * heads)``. The heads'
    weights are taken as constants.

    Args:
        attentions: ``(B, heads, N, N)`` of each layer, the first of the rollout first.
        prefix: which columns are visual, and where the suffixes begin.
        last: ``(B, Q)`` index of the last prompt token in its suffix.
        width: tokens a suffix, padding included.
    """
    batch, questions = last.shape
    begin, device = len(prefix.token_ids), last.device
    own = torch.arange(width, device=device) <= last[..., None]  # (B, Q, S): tokens of the prompt, not of the answer
    rollout = torch.zeros(batch, questions, attentions[0].shape[-1], device=device)
    rollout.scatter_(2, (begin + torch.arange(questions, device=device) * width + last)[..., None], 1.0)
    for attention in (layer.float() for layer in reversed(attentions)):
        peaks = attention.detach()[..., prefix.visual].amax(dim=-1)  # (B, heads, N)
        suffix_peaks = peaks[..., begin:].unflatten(2, (questions, width)).transpose(1, 2)  # (B, Q, heads, S)
        total = peaks[:, None, :, :begin].sum(-1) + (suffix_peaks * own[:, :, None]).sum(-1)
        weights = total / total.amax(dim=-1, keepdim=True)  # the mean's denominator cancels
        shared = (weights[..., None] * rollout[:, :, None]).flatten(2)  # (B, Q, heads * N)
        carried = shared @ attention.flatten(1, 2)
        rollout = 0.5 * rollout + 0.5 / attention.shape[1] * carried
    return rollout


def _block_mask(prefix_length: int, questions: int, width: int, device: torch.device | str) -> Tensor:
    """``(1, 1, N, N)`` float32, 0 or -inf: causal, and no question sees another."""
    behind = torch.arange(questions, device=device).repeat_interleave(width, output_size=questions * width)
    block = torch.cat([torch.zeros(prefix_length, device=device), 1 + behind])
    seen = (block[None, :] == 0) | (block[None, :] == block[:, None])
    return torch.zeros(seen.shape, device=device).masked_fill(~seen.tril(), float("-inf"))[None, None]
