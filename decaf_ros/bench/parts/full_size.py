"""Published models at their full size, in a few minutes: a query by stage, a tracked frame while one runs, memory, agreement.

Architectures are those of the published models, and weights are random: time and memory do not depend on them, and nothing is
downloaded. It runs in bfloat16 on a GPU (``--device auto`` takes it if there is one), or on the CPU, where it takes its time:
choose with ``--mllms`` and ``--trackers``, read fewer images with ``--key-frames``, cut the language models to a few layers
with ``--layers``, since their working memory does not depend on how many come in turn, and give it ``--minutes``. What tells
most comes first; each row is told as it comes, and one that fails, or for which there is no time, says so.
"""

from __future__ import annotations

import contextlib
import gc
import math
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.measuring import AwaitedClock, MemoryRise, await_devices, machine, resident_mib, timed
from decaf_ros.bench.model_sizes import MLLMS, Dimensions, token_bytes
from decaf_ros.bench.part import Run
from decaf_ros.bench.random_models import MLLM_IDS, TRACKER_IDS, PointedTracker, random_mllm, random_sam2
from decaf_ros.bench.reference.rollout import normalised, plain_rollout
from decaf_ros.bench.reference.sam2_predictor import in_turn
from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window
from decaf_ros.bench.timetable import Column, Row, Work, attempted, in_time, table_of, tell
from decaf_ros.config import GrounderName, GroundingConfig
from decaf_ros.datatypes import BoolArray, Frame, FrameWindow, UInt8Array
from decaf_ros.method.points import mask_iou
from decaf_ros.method.rollout import QueryKeys, attention_rollout
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.devices import DeviceQueue, tracker_dtype
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.models.qwen2_5_vl import Qwen25Vl, fit_grid
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.models.wanted import while_wanted
from decaf_ros.session.attention import Attention, AttentionSource, MllmAttention
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.stages import StageClock
from decaf_ros.text import quoted

SIZE_HW, EXPRESSION = (480, 640), "find the cup"
CAMERA_HZ, WARM_UP_FRAMES, SKIPPED_FRAMES = 10.0, 16, 3
OBJECTS = (1, 8, 4)
SHORT_BATCH = 1600  # tokens: one frame of the Qwen family
CACHE_MB = 1 << 15  # more than the window of any model here takes
NEW_TOKENS = 2  # of an answer: random weights end none
CACHE_OFF, COLD, WARM = "cache off", "cold", "warm"
HEADS, KEY_HEADS, CHANNELS, ROLLED_OUT, PROMPT_TOKENS = 28, 4, 128, 2, 32  # of a 7B, but for the number of layers
ROLLOUT = "rollout, and plainly"
GB, MIB = 1e9, 2**20

QUERY = (
    *(
        Column(f"{part}_s", f"{part.replace('_', ' ')}, s", ".2f")
        for part in ("preprocessing", "vision", "language_model", "decoding", "rollout", "prompting", "catch_up")
    ),
    Column("p50_s", "query p50, s", ".2f"),
    Column("p95_s", "p95, s", ".2f"),
    Column("read_ahead_s", "a frame read ahead, s", ".2f"),
)
MEMORY = tuple(Column(f"{what}_gb", f"{what}, GB", ".1f") for what in ("weights", "query", "kept", "working", "reserved"))
BESIDE = (
    Column("alone_ms", "frame alone, p50 in ms", ".1f"),
    Column("alone_p95_ms", "p95", ".1f"),
    Column("beside_ms", "while a query runs, p50 in ms", ".1f"),
    Column("beside_p95_ms", "p95", ".1f"),
    Column("ratio", "ratio of p50", ".2f"),
    Column("p95_ratio", "of p95", ".2f"),
)
FRAME = (
    Column("sam2_ms", "sam2 p50, ms", ".1f"),
    Column("sam2_p95_ms", "p95", ".1f"),
    Column("ours_ms", "decaf_ros p50, ms", ".1f"),
    Column("ours_p95_ms", "p95", ".1f"),
    Column("ratio", "ratio", ".2f"),
    Column("memory_mib", "most memory of both, MiB", ".0f"),
)
AGREEMENT = (
    Column("difference", "difference of maps", ".1e"),
    Column("iou", "masks, least IoU", ".3f"),
    Column("ours_ms", "decaf_ros, ms", ".1f"),
    Column("plainly_ms", "plainly, ms", ".1f"),
)


@dataclass(frozen=True)
class Scale:
    """How large all is.

    Attributes:
        key_frames: that a query reads.
        queries: timed of each condition, after one of warm-up.
        frames: timed of each row of the tracker.
        layers: that language models and their vision towers are cut to; ``None`` for all.
        batch_tokens: as of the node.
        image_size: side that trackers work at.
        video_tokens: of a frame, as of the node.
        hz: of the camera.
    """

    key_frames: int
    queries: int
    frames: int
    layers: int | None = None
    batch_tokens: int = MllmOptions.batch_tokens
    image_size: int = 1024
    video_tokens: int = MllmOptions.video_tokens
    hz: float = CAMERA_HZ

    @property
    def options(self) -> MllmOptions:
        """How language models read and answer."""
        return MllmOptions(video_tokens=self.video_tokens, batch_tokens=self.batch_tokens, max_new_tokens=NEW_TOKENS)

    @property
    def batches(self) -> tuple[int, ...]:
        """Values of ``batch_tokens`` with which a query runs beside the tracker."""
        return tuple(dict.fromkeys((self.batch_tokens, min(SHORT_BATCH, self.batch_tokens))))


def measure(
    run: Run,
    minutes: float,
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
    scale = Scale(key_frames, full_size_queries, full_size_frames, layers, batch_tokens or MllmOptions.batch_tokens, image_size)
    rows = []
    for row in in_time(works({name: MLLMS[name] for name in mllms}, trackers, scale, run.setup.device), minutes):
        tell(row)
        rows.append(row)
    return report(run, scale, rows)


def _known(kind: str, names: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    """Those that are asked for, or all."""
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"{quoted(unknown[0])} is no {kind} whose sizes are known: those are {', '.join(known)}")
    return known if names is None else names


def works(mllms: Mapping[str, Dimensions], trackers: Sequence[str], scale: Scale, device: str) -> list[Work]:
    """What is measured, the most telling first: the first models together, and what they agree with, then the others."""
    beside = trackers[0] if trackers else None

    def queries(name: str, with_frames: bool) -> Work:
        names = [("query", f"{name}, {condition}") for condition in (CACHE_OFF, COLD, WARM)]
        if with_frames and beside is not None:
            names += [("beside", _beside_name(*setting)) for setting in _settings(scale)]
        return Work(names, query_rows, (name, mllms[name], beside, scale, device, with_frames))

    def frames(name: str) -> Work:
        return Work([("frame", _frame_name(name, count)) for count in OBJECTS], frame_rows, (name, scale, device))

    agreement = Work(
        [("agreement", name) for name in (ROLLOUT, *map(_embedded_name, _DTYPES))], agreement_rows, (scale, device)
    )
    asked, tracked = [queries(name, not index) for index, name in enumerate(mllms)], [frames(name) for name in trackers]
    return [*asked[:1], *tracked[:1], agreement, *asked[1:], *tracked[1:]]


# --- a query ---


def query_rows(
    name: str, dimensions: Dimensions, tracker_name: str | None, scale: Scale, device: str, with_frames: bool
) -> Iterator[Row]:
    """A query by stage with nothing read and with the window read ahead, and then frames of the tracker while queries run."""
    memory = _Memory(device)
    mllm, model = random_mllm(dimensions, scale.layers, scale.options, device)
    weights = memory.now()
    network = None if tracker_name is None else _network(tracker_name, scale, device)
    asking = _Asking(mllm, model, None if network is None else PointedTracker(network), scale)
    cells = math.prod(fit_grid(SIZE_HW, scale.video_tokens))
    tokens = math.ceil(scale.key_frames / 2) * cells + scale.key_frames * 4 * cells
    held = {"weights_gb": weights / GB, "kept_gb": token_bytes(model.config) * tokens / GB}

    def values(condition: str, warm_up: int) -> dict[str, float]:
        memory = _Memory(device)
        runs = [asking.once(condition) for _ in range(max(1, warm_up + scale.queries))]
        rise, reserved = memory.rise() / GB, memory.reserved() / GB
        timed_runs = runs[warm_up:] or runs
        seconds = {key: float(np.median([each[key] for each in timed_runs])) for key in timed_runs[0]}
        p95 = float(np.percentile([each["p50_s"] for each in timed_runs], 95))
        working = max(0.0, rise - held["kept_gb"])
        return {**seconds, "p95_s": p95, **held, "query_gb": rise, "working_gb": working, "reserved_gb": reserved}

    for condition, warm_up in ((CACHE_OFF, 1), (COLD, 0), (WARM, 0)):
        yield attempted("query", f"{name}, {condition}", partial(values, condition, warm_up))
    if with_frames and network is not None:
        for setting in _settings(scale):
            yield attempted("beside", _beside_name(*setting), partial(_beside, mllm, network, scale, *setting))


class _Asking:
    """A language model and a tracker, or none, and one window to ask about."""

    def __init__(self, mllm: Qwen25Vl, model: Any, tracker: MaskTracker | None, scale: Scale) -> None:
        self._mllm, self._model, self._tracker = mllm, model, tracker
        self._window = random_window(scale.key_frames, SIZE_HW)
        self._clip = [StoredFrame(frame, tracker) for frame in self._window.frames] if tracker is not None else []
        for stored in self._clip:
            stored.features()  # as the live thread does when a key frame comes

    def once(self, condition: str) -> dict[str, float]:
        """Seconds of a query, in all and by part."""
        attention = _Pointing(self._mllm, GroundingConfig(prefix_cache_mb=0 if condition == CACHE_OFF else CACHE_MB))
        ahead: list[float] = []
        if condition == WARM:
            for frame in reversed(self._window.frames):  # as the node does
                _, took = timed(partial(attention.prepare, self._window, frame))
                ahead.append(took.wall_ms / 1e3)
        clock = AwaitedClock()
        with watched(self._model) as seconds:
            _, took = timed(lambda: self._answer(attention, clock))
        stages = {stage: each / 1e3 for stage, each in clock.latency_ms.items()}
        model = {part: seconds[part] for part in ("vision", "language_model", "decoding")}
        parts = {"preprocessing": max(0.0, stages["prefill"] - sum(model.values())), **model}
        parts |= {"rollout": stages["rollout"] + stages["fusion"]}
        if self._tracker is not None:
            parts |= {stage: stages[stage] for stage in ("prompting", "catch_up")}
        if ahead:
            parts["read_ahead"] = float(np.median(ahead))
        return {f"{part}_s": value for part, value in parts.items()} | {"p50_s": took.wall_ms / 1e3}

    def _answer(self, attention: AttentionSource, clock: StageClock) -> None:
        if self._tracker is None:
            attention.attend(self._window, EXPRESSION, clock)
            return
        grounder = Grounder(attention, self._tracker)
        grounding = grounder.ground(self._clip, EXPRESSION, clock)
        with clock.stage("catch_up"):
            grounder.build_tracks(grounding, self._clip, clock)
            grounder.appearances(grounding, self._clip)


class _Pointing(MllmAttention):
    """Attention that takes its time, and then looks at one spot of every fourth frame: random weights look anywhere."""

    def attend(
        self, window: FrameWindow, expression: str, clock: StageClock | None = None, grounder: GrounderName = "decaf"
    ) -> Attention:
        """See :class:`~decaf_ros.session.attention.AttentionSource`."""
        attention = super().attend(window, expression, clock, grounder)
        heat_thw = torch.zeros_like(attention.heat_thw)
        heat_thw[::4, heat_thw.shape[1] // 2, heat_thw.shape[2] // 2] = 1.0
        return replace(attention, heat_thw=heat_thw)


@contextlib.contextmanager
def watched(model: Any) -> Iterator[defaultdict[str, float]]:
    """Within this, the seconds that parts of a language model take, until a GPU is done with each call of them.

    Of its vision tower, of its layers, and apart from these *decoding*: the layers for one token of each conversation.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    began = 0.0

    def begin(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal began
        await_devices()
        began = time.perf_counter()

    def end(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        await_devices()
        part = "vision"
        if module is model.model.language_model:
            part = "decoding" if kwargs["inputs_embeds"].shape[1] == 1 else "language_model"
        seconds[part] += time.perf_counter() - began

    with contextlib.ExitStack() as hooks:
        for module in (model.model.visual, model.model.language_model):  # neither is within the other
            hooks.enter_context(module.register_forward_pre_hook(begin, with_kwargs=True))
            # Always: a pass whose end nobody wants is left by an exception.
            hooks.enter_context(module.register_forward_hook(end, with_kwargs=True, always_call=True))
        yield seconds


# --- a tracked frame while a query runs ---


def _settings(scale: Scale) -> Iterator[tuple[bool, int]]:
    """Whether the tracker goes first, and ``batch_tokens``."""
    return product((True, False), scale.batches)


def _beside_name(first: bool, batch_tokens: int) -> str:
    return f"tracker {'first' if first else 'like others'}, batch_tokens {batch_tokens}"


def _beside(mllm: Qwen25Vl, network: Sam2Network, scale: Scale, first: bool, batch_tokens: int) -> dict[str, float]:
    """Milliseconds of a tracked frame alone, and while queries run in another thread."""
    await_devices()
    network.device_queue = DeviceQueue(network.device, priority=-1 if first else 0)
    tracker = Sam2Tracker(network, memory_gating=True, motion_gating=True)
    reader = mllm.with_options(replace(scale.options, batch_tokens=batch_tokens))
    attention = MllmAttention(reader, GroundingConfig(prefix_cache_mb=0))
    alone = _frame_times(tracker, scale)
    with _queries(attention, random_window(scale.key_frames, SIZE_HW)):
        beside = _frame_times(tracker, scale)
    (alone_p50, alone_p95), (p50, p95) = (np.percentile(times, [50, 95]).tolist() for times in (alone, beside))
    values = {"alone_ms": alone_p50, "alone_p95_ms": alone_p95, "beside_ms": p50, "beside_p95_ms": p95}
    return values | {"ratio": p50 / alone_p50, "p95_ratio": p95 / alone_p95}


def _frame_times(tracker: Sam2Tracker, scale: Scale) -> list[float]:
    """Milliseconds of frames of a camera, with one object. They wait for the tracker's work, not for that of others."""
    images_rgb, mask_hw = moving_box(1 + SKIPPED_FRAMES + scale.frames)
    tracks, times = [tracker.start_track(tracker.encode(Frame(1, "camera", images_rgb[0])), mask_hw)], []
    due = time.monotonic()
    for index, image_rgb in enumerate(images_rgb[1:], 2):
        due += 1 / scale.hz
        time.sleep(max(0.0, due - time.monotonic()))
        start = time.perf_counter()
        tracker.step(tracks, tracker.encode(Frame(index, "camera", image_rgb)))
        times.append((time.perf_counter() - start) * 1e3)
    return times[SKIPPED_FRAMES:]


class _Enough(Exception):  # noqa: N818 - it ends a query that nobody waits for
    """Ends a query."""


@contextlib.contextmanager
def _queries(attention: AttentionSource, window: FrameWindow) -> Iterator[None]:
    """One query after the other in a thread, as long as the block takes; what one raises is raised at its end."""
    over, failures = threading.Event(), []

    def require_more() -> None:
        if over.is_set():
            raise _Enough

    def ask() -> None:
        try:
            with while_wanted(require_more):
                while True:
                    require_more()
                    attention.attend(window, EXPRESSION)
        except _Enough:
            pass
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


# --- a tracked frame ---


def _frame_name(name: str, count: int) -> str:
    return f"{name}, objects: {count}"


def frame_rows(name: str, scale: Scale, device: str) -> Iterator[Row]:
    """A tracked frame by sam2's predictor and by ours, with several numbers of objects."""
    for count in OBJECTS:
        yield attempted("frame", _frame_name(name, count), partial(_frame, name, count, scale, device))


def _frame(name: str, count: int, scale: Scale, device: str) -> dict[str, float]:
    memory = _Memory(device)
    images_rgb, mask_hw = moving_box(WARM_UP_FRAMES + scale.frames)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        model = random_sam2(name, scale.image_size, config)
        pairs = in_turn(model, config, images_rgb, [mask_hw] * count, device, tracker_dtype(torch.device(device)))[
            WARM_UP_FRAMES - 1 :
        ]
    keys = ("sam2_ms", "sam2_p95_ms", "ours_ms", "ours_p95_ms")
    percentiles = np.percentile([[each.wall_ms for each in pair] for pair in pairs], [50, 95], axis=0)
    values = dict(zip(keys, percentiles.T.flatten().tolist(), strict=True))
    return values | {"ratio": values["ours_ms"] / values["sam2_ms"], "memory_mib": memory.rise() / MIB}


def _network(name: str, scale: Scale, device: str) -> Sam2Network:
    return Sam2Network(random_sam2(name, scale.image_size), device, tracker_dtype(torch.device(device)))


def moving_box(count: int, size_hw: tuple[int, int] = SIZE_HW) -> tuple[list[UInt8Array], BoolArray]:
    """A camera that films a red box on its way over noise, and the box's mask on the first image."""
    background_rgb = np.random.default_rng(0).integers(60, 120, (*size_hw, 3), dtype=np.uint8)
    side = size_hw[0] // 4
    images_rgb = []
    for index in range(count):
        left = side + index * 2 % (size_hw[1] - 2 * side)
        image_rgb = background_rgb.copy()
        image_rgb[side : 2 * side, left : left + side] = (200, 40, 30)
        images_rgb.append(image_rgb)
    mask_hw = np.zeros(size_hw, np.bool_)
    mask_hw[side : 2 * side, side : 2 * side] = True
    return images_rgb, mask_hw


# --- agreement ---

_DTYPES = (torch.float32, torch.bfloat16)


def _embedded_name(dtype: torch.dtype) -> str:
    return f"embedded models, {str(dtype).removeprefix('torch.')}"


def agreement_rows(scale: Scale, device: str) -> Iterator[Row]:
    """How far the rollout is from whole matrices, and the embedded models on this device from those on a CPU in float32."""
    yield attempted("agreement", ROLLOUT, partial(_rollout_against_plain, scale, device))
    expected = cache(partial(_looked_at, "cpu", torch.float32))

    def agreement(dtype: torch.dtype) -> dict[str, float]:
        return _agreement(expected(), _looked_at(device, dtype))

    for dtype in _DTYPES:
        yield attempted("agreement", _embedded_name(dtype), partial(agreement, dtype))


@torch.inference_mode()
def _rollout_against_plain(scale: Scale, device: str) -> dict[str, float]:
    tokens = math.ceil(scale.key_frames / 2) * math.prod(fit_grid(SIZE_HW, scale.video_tokens))
    generator = torch.Generator().manual_seed(0)

    def layers(count: int) -> list[QueryKeys]:
        shapes = (1, HEADS, count, CHANNELS), (1, KEY_HEADS, count, CHANNELS)
        tensors = [[torch.randn(shape, generator=generator).to(device) for shape in shapes] for _ in range(ROLLED_OUT)]
        return [QueryKeys(*each) for each in tensors]

    prefix, prompt = layers(tokens), layers(PROMPT_TOKENS)
    visual, scaling = torch.arange(tokens) >= 8, CHANNELS**-0.5
    maps, times = {}, {}
    sides = {
        "ours_ms": lambda: attention_rollout(prefix, [prompt], visual, scaling)[0, 0],
        "plainly_ms": lambda: plain_rollout(prefix, prompt, visual.to(device), scaling),
    }
    for name, side in sides.items():
        side()  # warm-up
        maps[name], took = timed(side)
        times[name] = took.wall_ms
    ours, plain = (normalised(each.float().cpu()) for each in maps.values())
    return {"difference": float((ours - plain).abs().max()), **times}


def _looked_at(device: str, dtype: torch.dtype) -> tuple[torch.Tensor, list[BoolArray]]:
    """Heat maps of the embedded models, and masks of an object that is tracked."""
    images_rgb, mask_hw = moving_box(4, (192, 256))
    frames = [Frame(1 + round(index * 0.25e9), "camera", image_rgb) for index, image_rgb in enumerate(images_rgb)]
    mllm = load_mllm("embedded", MllmOptions(max_new_tokens=NEW_TOKENS), device, dtype)
    heat_thw = MllmAttention(mllm).attend(FrameWindow(tuple(frames)), EXPRESSION).heat_thw
    tracker = Sam2Tracker.load("embedded", device=device, dtype=dtype)
    tracks = [tracker.start_track(tracker.encode(frames[0]), mask_hw)]
    return heat_thw, [tracker.step(tracks, tracker.encode(frame))[0].mask_hw for frame in frames[1:]]


def _agreement(expected: tuple[torch.Tensor, list[BoolArray]], found: tuple[torch.Tensor, list[BoolArray]]) -> dict[str, float]:
    (expected_heat, expected_masks), (heat, masks) = expected, found
    pairs = zip(expected_masks, masks, strict=True)
    iou = min((mask_iou(a_hw, b_hw) for a_hw, b_hw in pairs), default=1.0)
    return {"difference": float((heat - expected_heat).norm() / expected_heat.norm()), "iou": iou}


# --- all of it ---


def report(run: Run, scale: Scale, rows: Sequence[Row]) -> Measured:
    """A page of the tables that have rows."""

    def of(table: str) -> list[Row]:
        return [row for row in rows if row.table == table]

    sections = []
    if queries := of("query"):
        cut = f" Models are cut to {scale.layers} layers, and their vision towers as well." if scale.layers else ""
        sections.append(f"""## A query

{table_of(queries, "model", QUERY)}
{scale.key_frames} key frames of {SIZE_HW[1]} x {SIZE_HW[0]} pixels on both paths, in bfloat16, in batches of at most
{scale.batch_tokens} tokens; answers of {NEW_TOKENS} tokens, since random weights never end one.{cut} Medians of
{scale.queries} queries after a warm-up, each part until the device is done with it. *{CACHE_OFF.capitalize()}*: nothing read
beforehand is used. *{COLD.capitalize()}*: nothing was read beforehand. *{WARM.capitalize()}*: the window was read ahead.
*Preprocessing* is all of the reading that is neither the vision tower nor a layer; *decoding*, layers for one token at a time;
*rollout*, fusion included. *Prompting* and *catch-up* have one point on every fourth frame, and a box for what it proposes.

{table_of([row for row in queries if not row.failure], "model", MEMORY)}
*Query* is the memory that comes on top of the weights, at its highest. *Kept* is how much of it is computed to be keys, values
and queries of the visual tokens, as in [hardware.md](../hardware.md); the rest is *working* memory. *Reserved* is what PyTorch
holds of the GPU at most, both models and what it has not given back included.
""")
    if beside := of("beside"):
        sections.append(f"""## A tracked frame while a query runs

{table_of(beside, "", BESIDE)}
The first language model and the first tracker, one object, a camera at {scale.hz:g} Hz, {scale.frames} frames alone, and as
many while one query follows another in another thread. *Tracker first*: on the GPU all of its work goes before that of others,
as in the node.
""")
    if frames := of("frame"):
        sections.append(f"""## A tracked frame

{table_of(frames, "model", FRAME)}
Images of {SIZE_HW[1]} x {SIZE_HW[0]} pixels at {scale.image_size} x {scale.image_size}, by sam2's video predictor and
by decaf_ros, in turn frame by frame; {scale.frames} frames after {WARM_UP_FRAMES} of warm-up.
""")
    if agreement := of("agreement"):
        sections.append(f"""## Agreement

{table_of(agreement, "", AGREEMENT)}
*{ROLLOUT.capitalize()}*: {ROLLED_OUT} layers of a 7B's attention over the tokens of the video path, in float32, against whole
matrices; the largest difference of the normalised maps. *Embedded models*: on this device against the CPU in float32; the norm
of the difference of heat maps by that of the maps, and a tracked object's masks.
""")
    head = f"""# Published models at full size

{_device(run.setup.device)}, transformers {transformers.__version__}. Random weights. `{_command(run)}`
"""
    groups: dict[str, dict[str, Mapping[str, float]]] = {}
    for row in rows:
        if not row.failure:
            groups.setdefault(row.table, {})[row.name] = row.values
    return Measured("\n".join([head, *sections]), named(groups))


def _command(run: Run) -> str:
    return run.command if run.setup.device == "cpu" else f"{run.command} --device {run.setup.device}"


def _device(device: str) -> str:
    return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}" if device != "cpu" else machine()


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

    def reserved(self) -> float:
        """What PyTorch held of a GPU at most, used or not; NaN on a CPU."""
        return torch.cuda.max_memory_reserved() if self._cuda else math.nan
