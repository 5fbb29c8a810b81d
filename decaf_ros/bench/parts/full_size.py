"""Published models at their full size: the time of a query by stage and of a tracked frame, and memory.

Architectures are those of the published models, and weights are random: time and memory do not depend on them, and nothing is
downloaded. It runs in bfloat16 on a GPU (``--device auto`` takes it if there is one), or on the CPU, where it takes its time:
choose with ``--mllms`` and ``--trackers``, read fewer images with ``--key-frames``, or cut the language models to a few layers
with ``--layers``: their working memory does not depend on how many layers come in turn. Each row is told as it comes.
"""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from transformers import AutoModelForImageTextToText

from decaf_ros.bench.figures import Measured, by_place, named
from decaf_ros.bench.measuring import MemoryRise, apart, machine, resident_mib, timed
from decaf_ros.bench.model_sizes import MLLMS, Dimensions, config_of, token_bytes
from decaf_ros.bench.part import Run
from decaf_ros.bench.parts.tracker import CAMERA_HZ, SCENE_SEED, WARM_UP_FRAMES, in_turn
from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window, tiny_processor
from decaf_ros.bench.report import told
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.qwen2_5_vl import Qwen25Vl, fit_grid
from decaf_ros.models.qwen2_vl import Qwen2Vl
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.stages import StageClock
from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.text import quoted

ADAPTERS: dict[str, type[Qwen25Vl]] = {"qwen2_vl": Qwen2Vl, "qwen2_5_vl": Qwen25Vl}
MLLM_IDS = [name for name, model in MLLMS.items() if model.model_type in ADAPTERS]
TRACKER_IDS = [f"facebook/sam2.1-hiera-{size}" for size in ("tiny", "small", "base-plus", "large")]
# What the configuration calls them, and the tokenizer.
IMAGE_TOKENS = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
CELL_PX, VIDEO_TOKENS, SIZE_HW = 28, 400, (480, 640)
OBJECTS = (1, 4, 8)
STAGES = ("prefill", "rollout", "fusion")
GB, MIB = 1e9, 2**20


@dataclass(frozen=True)
class Query:
    """What a language model is given.

    Attributes:
        key_frames: that a query reads.
        queries: timed after one of warm-up.
        layers: that the model and its vision tower are cut to; ``None`` for all.
        batch_tokens: as of the node.
    """

    key_frames: int
    queries: int
    layers: int | None
    batch_tokens: int


def measure(
    run: Run,
    mllms: Sequence[str] | None,
    trackers: Sequence[str] | None,
    key_frames: int,
    full_size_queries: int,
    layers: int | None,
    batch_tokens: int | None,
    image_size: int,
    full_size_frames: int,
) -> Measured:
    """On the run's device, each model in a process of its own.

    Raises:
        ValueError: a model is none of those whose sizes are known.
    """
    mllms, trackers = _known("language model", mllms, MLLM_IDS), _known("mask model", trackers, TRACKER_IDS)
    query = Query(key_frames, full_size_queries, layers, batch_tokens or MllmOptions.batch_tokens)
    device, sections, figures = run.setup.device, [], {}
    if mllms:
        section, figures["query"] = _query_section(mllms, query, device)
        sections.append(section)
    if trackers:
        section, figures["frame"] = _tracking_section(trackers, image_size, full_size_frames, device)
        sections.append(section)
    head = f"# Published models at full size\n\n{_device(device)}. Random weights. `{_command(run)}`\n"
    return Measured("\n".join([head, *sections]), named(figures))


def _known(kind: str, names: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    """Those that are asked for, or all."""
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"{quoted(unknown[0])} is no {kind} whose sizes are known: those are {', '.join(known)}")
    return known if names is None else names


def _command(run: Run) -> str:
    return run.command if run.setup.device == "cpu" else f"{run.command} --device {run.setup.device}"


def _query_section(mllms: Sequence[str], query: Query, device: str) -> tuple[str, dict[str, dict[str, float]]]:
    """The section, and figures by model."""
    figures: dict[str, dict[str, float]] = {}

    def rows() -> Iterator[list[str]]:
        for name in mllms:
            measured = apart(query_figures, name, query, device, threads=None)
            seconds = np.array([[latency[stage] / 1e3 for stage in STAGES] for latency in measured["latencies"]])
            medians, total = np.median(seconds, axis=0).tolist(), seconds.sum(axis=1)
            p50, p95 = np.percentile(total, [50, 95]).tolist()
            rise, kept = measured["query"], measured["kept"]
            memory = {"weights": measured["weights"], "query": rise, "kept": kept, "working": rise - kept}
            figures[name] = by_place((f"{stage}_s" for stage in STAGES), medians)
            figures[name] |= {"p50_s": p50, "p95_s": p95} | {f"{what}_gb": held / GB for what, held in memory.items()}
            times = (f"{value:.2f}" for value in (*medians, p50, p95))
            yield [f"`{name}`", *times, *(f"{held / GB:.1f}" for held in memory.values())]

    stages = (f"{stage}, s" for stage in STAGES)
    header = ("model", *stages, "query p50, s", "p95, s", "weights, GB", "query, GB", "kept, GB", "working, GB")
    section = f"""## A query

{markdown_table(header, told(rows()))}
{query.key_frames} key frames of {SIZE_HW[1]} x {SIZE_HW[0]} pixels on both paths, in bfloat16, in batches of at most
{query.batch_tokens} tokens, up to the fused heat map; masks are apart.{_cut(query.layers)}
*Query* is the memory that comes on top of the weights, at its highest. *Kept* is how much of it is computed to be keys, values
and queries of the visual tokens, as in [hardware.md](../hardware.md); the rest is *working* memory.
"""
    return section, figures


def _cut(layers: int | None) -> str:
    return f" Models are cut to {layers} layers, and their vision towers as well." if layers else ""


def query_figures(name: str, query: Query, device: str) -> dict[str, Any]:
    """Latencies by stage of each query after the first, and bytes: of the weights, of a query at most, and kept of it."""
    attention, config, weights = _loaded(name, query, device)
    memory, latencies = _Memory(device), []
    window = random_window(query.key_frames, SIZE_HW)
    for _ in range(1 + query.queries):
        clock = StageClock()
        timed(partial(attention.attend, window, "find the cup", clock))
        latencies.append(clock.latency_ms)
    cells = math.prod(fit_grid(SIZE_HW, VIDEO_TOKENS))
    tokens = math.ceil(query.key_frames / 2) * cells + query.key_frames * 4 * cells
    return {
        "latencies": latencies[1:] or latencies,
        "weights": weights,
        "query": memory.rise(),
        "kept": token_bytes(config) * tokens,
    }


def _loaded(name: str, query: Query, device: str) -> tuple[MllmAttention, Any, float]:
    """A published architecture with random weights, its configuration, and the bytes that the weights take."""
    dimensions = _cut_to(query.layers, MLLMS[name])
    processor = tiny_processor(frame_tokens=4 * VIDEO_TOKENS, cell_px=CELL_PX)
    convert = processor.tokenizer.convert_tokens_to_ids
    token_ids = {f"{kind}_token_id": convert(f"<|{token}|>") for kind, token in IMAGE_TOKENS.items()}
    config = config_of(dimensions, **token_ids)
    memory = _Memory(device)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    options = MllmOptions(batch_tokens=query.batch_tokens)
    adapter = ADAPTERS[dimensions.model_type](model, processor, options)
    return MllmAttention(adapter), config, memory.now()


def _cut_to(layers: int | None, model: Dimensions) -> Dimensions:
    """The model with its first layers only; the last layer of its vision tower attends to whole images, if any does."""
    if layers is None:
        return model
    whole_images = {"fullatt_block_indexes": [layers - 1]} if model.model_type == "qwen2_5_vl" else {}
    text, vision = model.text | {"num_hidden_layers": layers}, model.vision | {"depth": layers} | whole_images
    return replace(model, text=text, vision=vision)


def _tracking_section(
    trackers: Sequence[str], image_size: int, frames: int, device: str
) -> tuple[str, dict[str, dict[str, float]]]:
    """The section, and figures by model and number of objects."""
    figures: dict[str, dict[str, float]] = {}

    def rows() -> Iterator[list[str]]:
        for name, count in product(trackers, OBJECTS):
            sizes = device, image_size, frames + WARM_UP_FRAMES, count
            official, ours, held = apart(tracking_figures, name, *sizes, threads=None)
            times = np.percentile([official, ours], [50, 95], axis=1).T.flatten().tolist()
            ratio, mib = times[2] / times[0], held / MIB
            mine = by_place(("sam2_ms", "sam2_p95_ms", "ours_ms", "ours_p95_ms"), times)
            figures[f"{name} {count} objects"] = mine | {"ratio": ratio, "memory_mib": mib}
            yield [f"`{name}`", str(count), *(f"{value:.1f}" for value in times), f"{ratio:.2f}", f"{mib:.0f}"]

    header = ("model", "objects", "sam2 p50, ms", "p95", "decaf_ros p50, ms", "p95", "ratio", "most memory of both, MiB")
    section = f"""## A tracked frame

{markdown_table(header, told(rows()))}
Images of {SIZE_HW[1]} x {SIZE_HW[0]} pixels at {image_size} x {image_size}, by sam2's video predictor and
by decaf_ros, in turn frame by frame; {frames} frames after {WARM_UP_FRAMES} of warm-up.
"""
    return section, figures


def tracking_figures(
    name: str, device: str, image_size: int, frames: int, count: int
) -> tuple[list[float], list[float], float]:
    """Milliseconds a frame of sam2's predictor and of ours, and the bytes that both take together at their highest."""
    episode = sample_episode(SCENE_SEED)
    memory = _Memory(device)
    with tempfile.TemporaryDirectory() as folder:
        config_path = Path(folder) / "config.yaml"
        config = OmegaConf.load(str(resources.files("sam2") / HF_MODEL_ID_TO_FILENAMES[name][0]))
        config.model.image_size = image_size
        OmegaConf.save(config, config_path)
        views = [episode.render(index / CAMERA_HZ, SIZE_HW) for index in range(frames)]
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        pairs = in_turn(instantiate(config.model).eval(), config_path, views, count, device, dtype)
    official, ours = zip(*pairs[WARM_UP_FRAMES:], strict=True)
    return [each.wall_ms for each in official], [each.wall_ms for each in ours], memory.rise()


class _Memory:
    """What is allocated on a device from now on, in bytes."""

    def __init__(self, device: str) -> None:
        gc.collect()
        self._cuda = device.startswith("cuda")
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._resident = MemoryRise()
        self._start = self._allocated()

    def _allocated(self) -> float:
        return torch.cuda.memory_allocated() if self._cuda else resident_mib() * MIB

    def now(self) -> float:
        """At this moment."""
        return self._allocated() - self._start

    def rise(self) -> float:
        """At its highest."""
        return torch.cuda.max_memory_allocated() - self._start if self._cuda else self._resident.mib() * MIB


def _device(device: str) -> str:
    return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}" if device != "cpu" else machine()
