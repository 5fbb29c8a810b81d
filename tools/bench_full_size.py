"""Published models at their full size: the time of a query by stage and of a tracked frame, and memory.

``python tools/bench_full_size.py`` prints Markdown. Architectures are those of the published models, and weights are random:
time and memory do not depend on them, and nothing is downloaded. It runs on a GPU in bfloat16 if there is one, else on the CPU,
where it takes its time: choose with ``--mllms`` and ``--trackers``, read fewer images with ``--key-frames``, or cut the
language models to a few layers with ``--layers``: their working memory does not depend on how many layers come in turn.
"""

from __future__ import annotations

import argparse
import gc
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from bench_tracker import CAMERA_HZ, SCENE_SEED, WARM_UP_FRAMES, in_turn
from hydra.utils import instantiate
from measuring import MemoryRise, machine, resident_mib, timed
from model_sizes import MLLMS, Dimensions, config_of, token_bytes
from omegaconf import OmegaConf
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from tiny_qwen2_5_vl import random_window, tiny_processor  # in test/parity, which bench_tracker names
from transformers import AutoModelForImageTextToText

from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.models.qwen2_5_vl import Qwen25Vl, fit_grid
from decaf_ros.models.qwen2_vl import Qwen2Vl
from decaf_ros.models.visual_prefix import MllmOptions
from decaf_ros.outputs import OutputFolder
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.stages import StageClock
from decaf_ros.synthetic.table.episodes import sample_episode

ADAPTERS: dict[str, type[Qwen25Vl]] = {"qwen2_vl": Qwen2Vl, "qwen2_5_vl": Qwen25Vl}
MLLM_IDS = [name for name, model in MLLMS.items() if model.model_type in ADAPTERS]
TRACKER_IDS = [f"facebook/sam2.1-hiera-{size}" for size in ("tiny", "small", "base-plus", "large")]
# What the configuration calls them, and the tokenizer.
IMAGE_TOKENS = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
CELL_PX, VIDEO_TOKENS, SIZE_HW = 28, 400, (480, 640)
OBJECTS = (1, 4, 8)
STAGES = ("prefill", "rollout", "fusion")
GB, MIB = 1e9, 2**20

_Result = TypeVar("_Result")


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mllms", nargs="*", choices=MLLM_IDS, default=MLLM_IDS)
    parser.add_argument("--trackers", nargs="*", choices=TRACKER_IDS, default=TRACKER_IDS)
    parser.add_argument("--key-frames", type=int, default=16, help="that a query reads (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=5, help="timed after one of warm-up (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="cut language models and their vision towers to so many (default: all)")
    parser.add_argument(
        "--batch-tokens", type=int, default=MllmOptions.batch_tokens, help="the node's batch_tokens (default: %(default)s)"
    )
    parser.add_argument("--image-size", type=int, default=1024, help="side that trackers work at (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=60, help="for each number of objects (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    arguments = parser.parse_args()
    sections = [f"# Published models at full size\n\n{_device(arguments.device)}. Random weights. {_command()}\n"]
    if arguments.mllms:
        sections.append(_query_section(arguments))
    if arguments.trackers:
        sections.append(_tracking_section(arguments))
    page = "\n".join(sections)
    print(page)
    if arguments.write:
        OutputFolder(arguments.write.parent).write_text(arguments.write.name, page)


def _command() -> str:
    return f"`python {' '.join(['tools/bench_full_size.py', *sys.argv[1:]])}`"


def _query_section(arguments: argparse.Namespace) -> str:
    rows = []
    for name in arguments.mllms:
        figures = _apart(query_figures, name, arguments)
        seconds = np.array([[latency[stage] / 1e3 for stage in STAGES] for latency in figures["latencies"]])
        total, query, kept = seconds.sum(axis=1), figures["query"], figures["kept"]
        rows.append(
            [
                f"`{name}`",
                *(f"{value:.2f}" for value in np.median(seconds, axis=0)),
                f"{np.median(total):.2f}",
                f"{np.percentile(total, 95):.2f}",
                *(f"{each / GB:.1f}" for each in (figures["weights"], query, kept, query - kept)),
            ]
        )
    stages = (f"{stage}, s" for stage in STAGES)
    header = ("model", *stages, "query p50, s", "p95, s", "weights, GB", "query, GB", "kept, GB", "working, GB")
    return f"""## A query

{markdown_table(header, rows)}
{arguments.key_frames} key frames of {SIZE_HW[1]} x {SIZE_HW[0]} pixels on both paths, in bfloat16, in batches of at most
{arguments.batch_tokens} tokens, up to the fused heat map; masks are apart.{_cut(arguments.layers)}
*Query* is the memory that comes on top of the weights, at its highest. *Kept* is how much of it is computed to be keys, values
and queries of the visual tokens, as in [hardware.md](../hardware.md); the rest is *working* memory.
"""


def _cut(layers: int | None) -> str:
    return f" Models are cut to {layers} layers, and their vision towers as well." if layers else ""


def query_figures(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Latencies by stage of each query after the first, and bytes: of the weights, of a query at most, and kept of it."""
    attention, config, weights = _loaded(name, arguments)
    key_frames, memory, latencies = arguments.key_frames, _Memory(arguments.device), []
    window = random_window(key_frames, SIZE_HW)
    for _ in range(1 + arguments.queries):
        clock = StageClock()
        timed(lambda clock=clock: attention.attend(window, "find the cup", clock))
        latencies.append(clock.latency_ms)
    cells = math.prod(fit_grid(SIZE_HW, VIDEO_TOKENS))
    tokens = math.ceil(key_frames / 2) * cells + key_frames * 4 * cells
    return {
        "latencies": latencies[1:] or latencies,
        "weights": weights,
        "query": memory.rise(),
        "kept": token_bytes(config) * tokens,
    }


def _loaded(name: str, arguments: argparse.Namespace) -> tuple[MllmAttention, Any, float]:
    """A published architecture with random weights, its configuration, and the bytes that the weights take."""
    dimensions = _cut_to(arguments.layers, MLLMS[name])
    processor = tiny_processor(frame_tokens=4 * VIDEO_TOKENS, cell_px=CELL_PX)
    convert = processor.tokenizer.convert_tokens_to_ids
    token_ids = {f"{kind}_token_id": convert(f"<|{token}|>") for kind, token in IMAGE_TOKENS.items()}
    config = config_of(dimensions, **token_ids)
    memory = _Memory(arguments.device)
    with torch.device(arguments.device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    options = MllmOptions(batch_tokens=arguments.batch_tokens)
    adapter = ADAPTERS[dimensions.model_type](model, processor, options)
    return MllmAttention(adapter), config, memory.now()


def _cut_to(layers: int | None, model: Dimensions) -> Dimensions:
    """The model with its first layers only; the last layer of its vision tower attends to whole images, if any does."""
    if layers is None:
        return model
    whole_images = {"fullatt_block_indexes": [layers - 1]} if model.model_type == "qwen2_5_vl" else {}
    text, vision = model.text | {"num_hidden_layers": layers}, model.vision | {"depth": layers} | whole_images
    return replace(model, text=text, vision=vision)


def _tracking_section(arguments: argparse.Namespace) -> str:
    rows = []
    for name in arguments.trackers:
        for count in OBJECTS:
            frames = arguments.frames + WARM_UP_FRAMES
            official, ours, bytes_held = _apart(tracking_figures, name, arguments.device, arguments.image_size, frames, count)
            cells = [f"{value:.1f}" for side in (official, ours) for value in np.percentile(side, [50, 95])]
            ratio = np.median(ours) / np.median(official)
            rows.append([f"`{name}`", str(count), *cells, f"{ratio:.2f}", f"{bytes_held / MIB:.0f}"])
    header = ("model", "objects", "sam2 p50, ms", "p95", "decaf_ros p50, ms", "p95", "ratio", "most memory of both, MiB")
    return f"""## A tracked frame

{markdown_table(header, rows)}
Images of {SIZE_HW[1]} x {SIZE_HW[0]} pixels at {arguments.image_size} x {arguments.image_size}, by sam2's video predictor and
by decaf_ros, in turn frame by frame; {arguments.frames} frames after {WARM_UP_FRAMES} of warm-up.
"""


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


def _apart(measure: Callable[..., _Result], *arguments: object) -> _Result:
    """Run a function in a process of its own, which begins with an empty device."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _device(device: str) -> str:
    return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}" if device != "cpu" else machine()


if __name__ == "__main__":
    main()
