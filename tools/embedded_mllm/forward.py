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
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration as Model
from transformers import Qwen2_5_VLProcessor as Processor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    get_vision_attention_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from tools.embedded_mllm.attention import Layout, roll_out
from tools.embedded_mllm.data import Batch, sent
from tools.embedded_mllm.model import MERGE_SIZE
from tools.embedded_mllm.questions import Question

CHAT_BEGIN = "<|im_start|>user\n"


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
    layers = model.config.text_config.num_hidden_layers
    layout = Layout(len(prefix.token_ids), questions, width, first_layer=first_rollout_layer(layers))
    output = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=torch.cat([prefix.positions, suffix_positions], dim=2),
        attention_mask={"full_attention": layout},
        use_cache=False,
        output_hidden_states=True,
    )
    hidden = output.last_hidden_state[:, layout.prefix :].unflatten(1, (questions, width))
    logits = model.lm_head(hidden).float()
    with torch.autocast(device.type, enabled=False):
        rollouts = roll_out(layout.kept, prefix.visual, suffixes.last)
    middle = output.hidden_states[layout.first_layer][:, prefix.visual].float()
    return Pass(vision=vision.float(), middle=middle, logits=logits, rollouts=rollouts)


def first_rollout_layer(layers: int) -> int:
    """The upper half of the layers is rolled out (DecAF, section 3.1)."""
    return layers // 2


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
        # Each question is a sequence of its own; padding is on the right, nothing looks at it.
        attention_mask={"full_attention": Layout(0, 1, width, first_layer=model.config.text_config.num_hidden_layers)},
        use_cache=False,
    )
    nothing = torch.empty(0, device=device)
    return Pass(vision=nothing, middle=nothing, logits=model.lm_head(output.last_hidden_state).float()[None], rollouts=nothing)
