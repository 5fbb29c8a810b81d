"""The rollout and its shared visual prefix against the method written down plainly: time, memory and error.

The model is transformers' Qwen2.5-VL with random weights and the attention of the 7B model. Each measurement runs in a process
of its own, with one thread: ``taskset -c 0 decaf bench --parts rollout`` keeps all of them on one core.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from matplotlib.figure import Figure
from transformers import Qwen2_5_VLForConditionalGeneration

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.measuring import HEADER, Measurement, MemoryRise, Time, apart, machine, timed
from decaf_ros.bench.part import Run
from decaf_ros.bench.reference.rollout import normalised, reference_rollout
from decaf_ros.bench.reference.tiny_qwen2_5_vl import CELL_PX, random_window, tiny_model, tiny_processor, whole_prompt
from decaf_ros.bench.reference.whole import randomise
from decaf_ros.datatypes import FrameWindow
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.method.rollout import QueryKeys, attention_rollout
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.prompts import background_prompt, object_prompt
from decaf_ros.models.qwen2_5_vl import Qwen25Vl

HEADS, KEY_HEADS, CHANNELS, HIDDEN, MLP, LAYERS = 28, 4, 128, 3584, 512, 4
FRAMES, BFLOAT16_FRAMES, GRID_HW, WARM_UP_HW = 16, 8, (20, 20), (4, 4)
PROMPTS = (object_prompt("the red mug on the left of the laptop"), background_prompt("mug"))
SCALING = CHANNELS**-0.5
SWEEP_TOKENS = (1024, 2048, 4096, 8192, 16384)
LARGEST_REFERENCE = 4096  # tokens; the matrices of twice as many take 40 GiB
SWEEP_PROMPT_TOKENS = 32
MIB = 2**20


@dataclass(frozen=True)
class Outcome:
    """A measurement, and the maps ``(prompts, cells)`` that came out."""

    measurement: Measurement
    maps: torch.Tensor

    def error(self, reference: Outcome) -> float:
        """Largest difference from another run's maps, both normalised to [0, 1]."""
        pairs = zip(self.maps, reference.maps, strict=True)
        return max(float((normalised(ours) - normalised(plain)).abs().max()) for ours, plain in pairs)


def measure(run: Run, repetitions: int) -> Measured:
    """Both sides, each measurement in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        recorded, half_recorded = Path(folder) / "float32.pt", Path(folder) / "bfloat16.pt"
        query, second_share = apart(query_ours, "float32", FRAMES, repetitions, recorded)
        plain_query = apart(query_reference, "float32", FRAMES, repetitions)
        tokens = len(torch.load(recorded, weights_only=False)[-1])
        rollouts, plain_rollouts = (apart(side, recorded, repetitions) for side in (rollouts_ours, rollouts_reference))
        half_query, _ = apart(query_ours, "bfloat16", BFLOAT16_FRAMES, 1, half_recorded)
        plain_half_query = apart(query_reference, "bfloat16", BFLOAT16_FRAMES, 1)
        exact_half_query = apart(rollouts_reference, half_recorded, 1)
    sweep, plain_sweep = apart(sweep_ours), apart(sweep_reference)
    reached = [
        ["rollouts, times faster", _times_faster(rollouts, plain_rollouts), ">= 4"],
        ["query, times faster", _times_faster(query, plain_query), ">= 3"],
        ["rollouts, times less memory", f"{_less_memory(rollouts, plain_rollouts):.1f}", ">= 10"],
        ["query, times less memory", f"{_less_memory(query, plain_query):.1f}", ">= 10"],
        ["second prompt, of the first", f"{100 * second_share:.1f} %", "<= 15 %"],
        ["error, rollouts of the same queries and keys", f"{rollouts.error(plain_rollouts):.1e}", "<= 1e-4"],
        ["error, query in float32", f"{query.error(plain_query):.1e}", "<= 1e-4"],
        ["error, query in bfloat16: decaf_ros", f"{half_query.error(exact_half_query):.1e}", "<= 2e-2"],
        ["error, query in bfloat16: whole bfloat16 matrices", f"{plain_half_query.error(exact_half_query):.1e}", ""],
        ["the one from the other", f"{half_query.error(plain_half_query):.1e}", "<= 2e-2"],
    ]
    sides = [
        ["rollouts, whole matrices", *plain_rollouts.measurement.cells(plain_rollouts.measurement)],
        ["rollouts, decaf_ros", *rollouts.measurement.cells(plain_rollouts.measurement)],
        ["query, whole matrices", *plain_query.measurement.cells(plain_query.measurement)],
        ["query, decaf_ros", *query.measurement.cells(plain_query.measurement)],
    ]
    growth = [
        [str(size), f"{sweep[size]:.0f}", f"{plain_sweep[size]:.0f}" if size in plain_sweep else "", f"{_held_mib(size):.0f}"]
        for size in SWEEP_TOKENS
    ]
    growth_header = ("tokens", "decaf_ros in MiB", "whole matrices in MiB", "held by the prefix in MiB")
    page = f"""# Rollout and shared prefix

{markdown_table(("figure", "measured", "target"), reached)}
transformers' Qwen2.5-VL with random weights in float32: {LAYERS} layers of {HEADS} heads over {KEY_HEADS} key heads of
{CHANNELS} channels, hidden size {HIDDEN}, as in the 7B model; {FRAMES} frames, {tokens} tokens before the prompt, two prompts,
rollout over the upper half of the layers. So that this takes minutes on one core, the MLP is {MLP} wide (7B: 18944), and vision
tower, vocabulary and depth are small. What is left out costs both sides the same in each pass, and it is two passes against
one: the wider and deeper they are, the nearer the query's advantage in time comes to 2.

- *Rollouts*: from recorded queries and keys to both prompts' maps. With whole matrices: the softmax attention of all tokens and
  the product of the matrices, for each prompt.
- *Query*: from images to both prompts' maps. With whole matrices: for each prompt a forward pass with eager attention and
  `output_attentions`, and the product (`decaf_ros/bench/reference/rollout.py`). decaf_ros: images read once, as far as the last
  layer's queries and keys, both prompts asked, their rollouts computed together. No answer is decoded.
- *Times faster*: by the CPU time of the process, which other load on the machine leaves alone, and by the clock. With whole
  matrices a repetition is one prompt's share, the prompts in turn, and counts twice.
- *Second prompt*: CPU time that two prompts take more than the first alone (read, ask, rollout), over that of the first alone.
- *Error*: largest difference of the maps, each normalised to [0, 1]. In bfloat16 ({BFLOAT16_FRAMES} frames) from whole float32
  matrices of the queries and keys that decaf_ros had: decaf_ros computes its attention from them in float32, while eager
  attention rounds its matrices, and with them what the next layer sees, to bfloat16.

{markdown_table(HEADER, sides)}
Extra memory is the highest resident memory above what was there before.

## Memory and length

![memory of the rollout by tokens](rollout-memory.png)

{markdown_table(growth_header, growth)}
The rollout of two prompts through one layer, random queries and keys, float32: extra memory while it runs. It is the same for
any number of layers; with whole matrices each layer adds its own. Beside it what a prefix holds for each layer that is rolled
out, computed from shapes: queries, keys and values (keys and values alone for the other layers; half of it in bfloat16).

{machine()}, transformers {transformers.__version__}.
`{_pinned()}{run.command}`: {repetitions} repetitions after a warm-up.
"""
    figures = {
        "rollouts": _figures(rollouts, plain_rollouts),
        "query": _figures(query, plain_query) | {"second_prompt_share": second_share},
        "query_bfloat16": {
            "error": half_query.error(exact_half_query),
            "whole_matrices_error": plain_half_query.error(exact_half_query),
            "difference": half_query.error(plain_half_query),
        },
        "memory_mib": {str(size): mib for size, mib in sweep.items()},
        "whole_matrices_memory_mib": {str(size): mib for size, mib in plain_sweep.items()},
    }
    return Measured(page, named(figures), {"rollout-memory.png": plot(sweep, plain_sweep)})


def _pinned() -> str:
    """What goes before a command that runs on one core alone, as this one."""
    cores = os.sched_getaffinity(0)
    return f"taskset -c {min(cores)} " if len(cores) == 1 else ""


def _figures(ours: Outcome, reference: Outcome) -> dict[str, float]:
    faster = _ratios(ours, reference)
    return {
        **ours.measurement.p50._asdict(),
        "extra_mib": ours.measurement.extra_mib,
        "times_faster": faster.cpu_ms,
        "times_faster_by_the_clock": faster.wall_ms,
        "times_less_memory": _less_memory(ours, reference),
        "error": ours.error(reference),
    }


def _ratios(ours: Outcome, reference: Outcome) -> Time:
    return Time(*(plain / own for plain, own in zip(reference.measurement.p50, ours.measurement.p50, strict=True)))


def _times_faster(ours: Outcome, reference: Outcome) -> str:
    ratio = _ratios(ours, reference)
    return f"{ratio.cpu_ms:.1f} (by the clock {ratio.wall_ms:.1f})"


def _less_memory(ours: Outcome, reference: Outcome) -> float:
    return reference.measurement.extra_mib / max(ours.measurement.extra_mib, 1.0)


@torch.inference_mode()
def query_ours(dtype: str, frames: int, repetitions: int, recorded: Path) -> tuple[Outcome, float]:
    """Images read once, both prompts asked; also the second prompt's cost as a share of the first's.

    Args:
        dtype: of the model.
        frames: of the video.
        repetitions: timed ones, after a warm-up on small images.
        recorded: where to leave the queries and keys of prefix and prompts, and which tokens are visual.
    """
    adapter = Qwen25Vl(_model(dtype), tiny_processor(4096), MllmOptions(video_tokens=GRID_HW[0] * GRID_HW[1]))

    def ask(window: FrameWindow) -> tuple[torch.Tensor, list[Time]]:
        prefix, read = timed(lambda: adapter.read_video(window))
        (first, first_asked), (second, second_asked) = (timed(partial(prefix.ask, prompt, answer=False)) for prompt in PROMPTS)
        maps, rolled_out = timed(lambda: prefix.rollout([first, second]))
        _, first_rolled_out = timed(lambda: prefix.rollout([first]))
        (reading,) = prefix._read
        visual = torch.isin(torch.arange(reading.tokens), reading.grid_tokens)
        torch.save((reading.layers, [reply.state.layers for reply in (first, second)], visual), recorded)
        return maps.flatten(1), [read, first_asked, second_asked, rolled_out, first_rolled_out]

    ask(_window(2, WARM_UP_HW))
    memory = MemoryRise()
    runs = [ask(_window(frames)) for _ in range(repetitions)]
    extra = memory.mib()
    steps_rst = np.array([steps for _, steps in runs])
    read, first, second, both, one = np.median(steps_rst, axis=0)[:, 1]
    measurement = Measurement(tuple(Time(*whole) for whole in steps_rst[:, :4].sum(axis=1).tolist()), extra)
    return Outcome(measurement, runs[0][0]), float((second + both - one) / (read + first + one))


@torch.inference_mode()
def query_reference(dtype: str, frames: int, repetitions: int) -> Outcome:
    """A whole forward pass with all attention matrices, and their product, for each prompt."""
    model, processor = _model(dtype), tiny_processor(4096)
    # The vision tower is not what is compared.
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})

    def one_map(prompt: str, window: FrameWindow, grid_hw: tuple[int, int]) -> torch.Tensor:
        inputs, grid_tokens = whole_prompt(processor, "video", window, grid_hw, prompt)
        attentions = model(**inputs, output_attentions=True, use_cache=False, logits_to_keep=1).attentions
        visual = torch.isin(torch.arange(inputs["input_ids"].shape[1]), grid_tokens)
        return reference_rollout([layer[0].float() for layer in attentions[LAYERS // 2 :]], visual, "v_max")

    one_map(PROMPTS[0], _window(2, WARM_UP_HW), WARM_UP_HW)
    return _prompts_in_turn(lambda index: one_map(PROMPTS[index], _window(frames), GRID_HW), repetitions)


@torch.inference_mode()
def rollouts_ours(recorded: Path, repetitions: int) -> Outcome:
    """Both prompts' recurrences over one recomputation of the attention."""
    prefix, prompts, visual = _loaded(recorded)
    memory = MemoryRise()
    runs = [timed(lambda: attention_rollout(prefix, prompts, visual, SCALING)[:, 0]) for _ in range(repetitions)]
    return Outcome(Measurement(tuple(time for _, time in runs), memory.mib()), runs[0][0])


@torch.inference_mode()
def rollouts_reference(recorded: Path, repetitions: int) -> Outcome:
    """Whole matrices and their product, one prompt after the other, in float32."""
    prefix, prompts, visual = _loaded(recorded)
    return _prompts_in_turn(lambda index: _plain_rollout(prefix, prompts[index], visual), repetitions)


@torch.inference_mode()
def sweep_ours() -> dict[int, float]:
    """MiB of working memory by number of tokens."""
    extra = {}
    attention_rollout(*_random_layer(256), SCALING)  # what is loaded on the first call is not working memory
    for tokens in SWEEP_TOKENS:
        prefix, prompts, visual = _random_layer(tokens)
        memory = MemoryRise()
        attention_rollout(prefix, prompts, visual, SCALING)
        extra[tokens] = memory.mib()
    return extra


@torch.inference_mode()
def sweep_reference() -> dict[int, float]:
    """The same with whole matrices, as far as they fit."""
    extra = {}
    for tokens in (each for each in SWEEP_TOKENS if each <= LARGEST_REFERENCE):
        prefix, prompts, visual = _random_layer(tokens)
        memory = MemoryRise()
        _plain_rollout(prefix, prompts[0], visual)  # that of another prompt would take the same memory again
        extra[tokens] = memory.mib()
    return extra


def plot(ours: dict[int, float], reference: dict[int, float]) -> bytes:
    """A PNG file of memory by tokens, both axes logarithmic: a slope of one is linear."""
    held = {tokens: _held_mib(tokens) for tokens in SWEEP_TOKENS}
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for label, values in (("whole matrices", reference), ("decaf_ros", ours), ("held by the prefix, a layer", held)):
        axes.plot(list(values), list(values.values()), marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(SWEEP_TOKENS, [f"{tokens:,}" for tokens in SWEEP_TOKENS])
    axes.set(xlabel="tokens", ylabel="MiB", title="Memory of the rollout of two prompts through one layer")
    axes.grid(alpha=0.3)
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _model(dtype: str) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights, the same on each call."""
    config: Any = tiny_model(tiny_processor()).config
    text = config.text_config
    text.hidden_size, text.intermediate_size = HIDDEN, MLP
    text.num_attention_heads, text.num_key_value_heads = HEADS, KEY_HEADS
    text.num_hidden_layers, text.layer_types = LAYERS, text.layer_types[:1] * LAYERS
    text.rope_parameters["mrope_section"] = [16, 24, 24]
    config.vision_config.out_hidden_size = HIDDEN
    model = Qwen2_5_VLForConditionalGeneration(config).eval().requires_grad_(False)
    randomise(model)
    return model.to(getattr(torch, dtype))


def _window(frames: int, grid_hw: tuple[int, int] = GRID_HW) -> FrameWindow:
    return random_window(frames, (grid_hw[0] * CELL_PX, grid_hw[1] * CELL_PX))


def _prompts_in_turn(one_map: Callable[[int], torch.Tensor], repetitions: int) -> Outcome:
    """The prompts' maps, one computed in each repetition and counted for all: they differ by a few words alone."""
    memory = MemoryRise()
    runs = [timed(partial(one_map, index % len(PROMPTS))) for index in range(max(repetitions, len(PROMPTS)))]
    times = tuple(Time(*(len(PROMPTS) * part for part in time)) for _, time in runs)
    return Outcome(Measurement(times, memory.mib()), torch.stack([values for values, _ in runs[: len(PROMPTS)]]))


def _loaded(recorded: Path) -> tuple[list[QueryKeys], list[list[QueryKeys]], torch.Tensor]:
    """A prefix, the prompts behind it, and the visual tokens; ran once on a few tokens, as a warm-up."""
    prefix, prompts, visual = torch.load(recorded, weights_only=False)
    prefix, *prompts = ([QueryKeys(*(tensor.float() for tensor in layer)) for layer in layers] for layers in (prefix, *prompts))
    few = [QueryKeys(*(tensor[:, :, :64] for tensor in layer)) for layer in prefix]
    attention_rollout(few, prompts, visual[:64], SCALING)
    _plain_rollout(few, prompts[0], visual[:64])
    return prefix, prompts, visual


def _plain_rollout(prefix: list[QueryKeys], prompt: list[QueryKeys], visual: torch.Tensor) -> torch.Tensor:
    """One prompt's map, from whole matrices as transformers' eager attention computes them."""
    attentions = []
    for layer, tail in zip(prefix, prompt, strict=True):
        queries, keys = (torch.cat(parts, dim=2) for parts in zip(layer, tail, strict=True))
        scores = queries @ keys.repeat_interleave(HEADS // KEY_HEADS, dim=1).transpose(2, 3) * SCALING
        future = torch.full(scores.shape[2:], float("-inf")).triu(1)
        attentions.append((scores + future).softmax(dim=-1)[0])
    whole = torch.nn.functional.pad(visual, (0, prompt[0].queries_bhqd.shape[2]))
    return reference_rollout(attentions, whole, "v_max")


def _random_layer(tokens: int) -> tuple[list[QueryKeys], list[list[QueryKeys]], torch.Tensor]:
    """One layer of a prefix and of two prompts behind it, the prompt's tokens included in the count, and the visual tokens."""
    prefix_tokens = tokens - SWEEP_PROMPT_TOKENS
    generator = torch.Generator().manual_seed(0)

    def layer(count: int) -> list[QueryKeys]:
        shapes = (1, HEADS, count, CHANNELS), (1, KEY_HEADS, count, CHANNELS)
        return [QueryKeys(*(torch.randn(shape, generator=generator) for shape in shapes))]

    return layer(prefix_tokens), [layer(SWEEP_PROMPT_TOKENS) for _ in PROMPTS], torch.arange(prefix_tokens) >= 8


def _held_mib(tokens: int) -> float:
    return (HEADS + 2 * KEY_HEADS) * CHANNELS * tokens * 4 / MIB
