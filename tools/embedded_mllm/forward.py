"""One pass of the embedded Qwen2.5-VL over a batch: the images once, several questions behind them, rollouts and losses.

The questions of a conversation share its visual prefix: each sees the prefix and itself, with the position ids that it would
have alone, so every question's logits and attention equal those of a prompt of its own, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers import Qwen2_5_VLForConditionalGeneration as Model
from transformers import Qwen2_5_VLProcessor as Processor

from tools.embedded_mllm.data import Sample
from tools.embedded_mllm.model import MERGE_SIZE, TEMPORAL_PATCH_SIZE
from tools.embedded_mllm.questions import Question

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
    lengths = cu_seq_lens_q.diff()
    output = torch.empty_like(query)
    for length in lengths.unique().tolist():
        rows = (cu_seq_lens_q[:-1][lengths == length, None] + torch.arange(length)).long()  # (windows, length)
        q, k, v = (states[0][:, rows].transpose(0, 1) for states in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        output[0, :, rows] = attended.transpose(0, 1)
    return output.transpose(1, 2), None


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
    """What all questions of a batch share.

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
    """The questions behind the prefixes, padded to one length.

    Attributes:
        token_ids: ``(B, Q, S)`` int64, prompts followed by the answer.
        last: ``(B, Q)`` int64, index of the prompt's last token, which predicts the answer.
        answers: ``(B, Q)`` int64, token ids.
    """

    token_ids: Tensor
    last: Tensor
    answers: Tensor


@dataclass(frozen=True, eq=False)
class Pass:
    """What came out.

    Attributes:
        vision: ``(B, N_v, C)`` features of the visual tokens before the language model.
        middle: ``(B, N_v, C)`` the same at the first layer of the rollout.
        answer_logits: ``(B, Q, vocabulary)`` at the last token of each prompt.
        end_logits: ``(B, Q, vocabulary)`` after the answer.
        rollouts: ``(B, Q, N_v)`` float32, raw, not normalised.
    """

    vision: Tensor
    middle: Tensor
    answer_logits: Tensor
    end_logits: Tensor
    rollouts: Tensor


def build_prefix(model: Model, processor: Processor, samples: Sequence[Sample]) -> Prefix:
    """Stack the images of samples of one shape."""
    grid_thw = samples[0].coverage_thwb.shape[:3]
    visual_count = grid_thw[0] * grid_thw[1] * grid_thw[2]
    is_video = samples[0].is_video
    pad = "<|video_pad|>" if is_video else "<|image_pad|>"
    text = f"<|im_start|>user\n<|vision_start|>{pad * visual_count}<|vision_end|>"
    token_ids = torch.tensor(processor.tokenizer(text)["input_ids"])
    start = int((token_ids == processor.tokenizer.convert_tokens_to_ids(pad)).int().argmax())
    visual = slice(start, start + visual_count)
    types = torch.zeros(len(samples), len(token_ids), dtype=torch.int32)
    types[:, visual] = 2 if is_video else 1
    patch_grid = torch.tensor([[grid_thw[0], grid_thw[1] * MERGE_SIZE, grid_thw[2] * MERGE_SIZE]] * len(samples))
    positions, _ = model.model.get_rope_index(
        token_ids.expand(len(samples), -1),
        mm_token_type_ids=types,
        second_per_grid_ts=torch.tensor([sample.seconds_per_step for sample in samples]),
        **({"video_grid_thw": patch_grid} if is_video else {"image_grid_thw": patch_grid}),
    )
    return Prefix(token_ids, visual, grid_thw, positions, _patches(processor, samples))


def build_suffixes(processor: Processor, questions: Sequence[Sequence[Question]]) -> Suffixes:
    """Tokenize the questions of each sample, which all have the same number of them."""
    flat = [question for row in questions for question in row]
    texts = [f"{q.prompt}<|im_end|>\n<|im_start|>assistant\n{q.answer}" for q in flat]
    rows = processor.tokenizer(texts)["input_ids"]
    width = max(map(len, rows))
    padded = torch.tensor([row + [processor.tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    shape = (len(questions), len(questions[0]))
    last = torch.tensor([len(row) - 2 for row in rows])
    answers = torch.tensor([row[-1] for row in rows])
    return Suffixes(padded.view(*shape, width), last.view(shape), answers.view(shape))


def run_vision(model: Model, prefix: Prefix) -> Tensor:
    """``(B, N_v, C)`` features of the visual tokens."""
    steps, rows, columns = prefix.grid_thw
    batch = prefix.positions.shape[1]
    patch_grid = torch.tensor([[steps, rows * MERGE_SIZE, columns * MERGE_SIZE]] * batch)
    features = model.model.visual(prefix.pixels, grid_thw=patch_grid).pooler_output
    return features.view(batch, steps * rows * columns, -1)


def run(model: Model, prefix: Prefix, suffixes: Suffixes) -> Pass:
    """Run vision tower and language model, and roll the attention out for every question."""
    batch, questions, width = suffixes.token_ids.shape
    vision = run_vision(model, prefix)
    embed = model.get_input_embeddings()
    head = embed(prefix.token_ids).expand(batch, -1, -1)
    embeddings = torch.cat(
        [head[:, : prefix.visual.start], vision, head[:, prefix.visual.stop :], embed(suffixes.token_ids.flatten(1))], dim=1
    )
    start = prefix.positions[:, :, -1:] + 1
    suffix_positions = (start[..., None] + torch.arange(width)).expand(-1, -1, questions, -1).flatten(2)
    output = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=torch.cat([prefix.positions, suffix_positions], dim=2),
        attention_mask={"full_attention": _block_mask(len(prefix.token_ids), questions, width)},
        use_cache=False,
        output_attentions=True,
        output_hidden_states=True,
    )
    attentions = [weights for weights in output.attentions if weights is not None]
    first_layer = first_rollout_layer(model.config.text_config.num_hidden_layers)
    last_rows = len(prefix.token_ids) + torch.arange(questions) * width + suffixes.last  # (B, Q)
    rows = torch.arange(batch)[:, None]
    hidden = output.last_hidden_state
    return Pass(
        vision=vision,
        middle=output.hidden_states[first_layer][:, prefix.visual],
        answer_logits=model.lm_head(hidden[rows, last_rows]),
        end_logits=model.lm_head(hidden[rows, last_rows + 1]),
        rollouts=roll_out(attentions, prefix, suffixes.last, width)[..., prefix.visual],
    )


def run_text(model: Model, processor: Processor, questions: Sequence[Question]) -> Tensor:
    """Cross-entropy of the answers to questions without images."""
    texts = [f"<|im_start|>user\n{q.prompt}<|im_end|>\n<|im_start|>assistant\n{q.answer}<|im_end|>" for q in questions]
    tokens = processor.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    positions = torch.arange(tokens["input_ids"].shape[1]).expand(3, len(questions), -1)
    embeddings = model.get_input_embeddings()(tokens["input_ids"])
    width = embeddings.shape[1]
    output = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=positions,
        attention_mask={"full_attention": _block_mask(0, 1, width)},  # padding is on the right, nothing looks at it
        use_cache=False,
    )
    rows, ends = torch.arange(len(questions)), tokens["attention_mask"].sum(dim=1) - 1
    loss = torch.zeros(())
    for back in (2, 1):  # the answer, then the end of the turn
        logits = model.lm_head(output.last_hidden_state[rows, ends - back])
        loss = loss + F.cross_entropy(logits, tokens["input_ids"][rows, ends - back + 1])
    return loss


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
    begin = len(prefix.token_ids)
    own = torch.arange(width) <= last[..., None]  # (B, Q, S): tokens of the prompt; the answer and padding are not
    rollout = torch.zeros(batch, questions, attentions[0].shape[-1])
    rollout.scatter_(2, (begin + torch.arange(questions) * width + last)[..., None], 1.0)
    for attention in reversed(attentions):
        peaks = attention.detach()[..., prefix.visual].amax(dim=-1)  # (B, heads, N)
        suffix_peaks = peaks[..., begin:].unflatten(2, (questions, width)).transpose(1, 2)  # (B, Q, heads, S)
        total = peaks[:, None, :, :begin].sum(-1) + (suffix_peaks * own[:, :, None]).sum(-1)
        weights = total / total.amax(dim=-1, keepdim=True)  # the mean's denominator cancels
        carried = torch.einsum("bqh,bqn,bhnm->bqm", weights, rollout, attention)
        rollout = 0.5 * rollout + 0.5 / attention.shape[1] * carried
    return rollout


def _patches(processor: Processor, samples: Sequence[Sample]) -> Tensor:
    """``(B * patches, channels)`` float32, normalised and in the processor's order."""
    videos = torch.stack([torch.from_numpy(sample.images_thwc) for sample in samples]).permute(0, 1, 4, 2, 3).contiguous()
    processing = processor.video_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processing.image_mean, processing.image_std))
    pixels, *_ = processing.patchify(
        (videos / 255 - mean) / std,
        patch_size=processing.patch_size,
        merge_size=MERGE_SIZE,
        temporal_patch_size=TEMPORAL_PATCH_SIZE,
    )
    return pixels.flatten(0, 1)


def _block_mask(prefix_length: int, questions: int, width: int) -> Tensor:
    """``(1, 1, N, N)`` float32, 0 or -inf: causal, and no question sees another."""
    block = torch.cat([torch.zeros(prefix_length), 1 + torch.arange(questions).repeat_interleave(width)])
    seen = (block[None, :] == 0) | (block[None, :] == block[:, None])
    return torch.zeros(seen.shape).masked_fill(~seen.tril(), float("-inf"))[None, None]
