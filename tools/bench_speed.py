"""Speed and memory against named references: the rollout with whole matrices, and sam2's own video predictor.

``python tools/bench_speed.py`` prints Markdown; one thread, warm-up apart, medians and 95th percentiles. Each measurement runs
in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from decaf_ros.datatypes import Frame
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.method.rollout import QueryKeys, attention_rollout
from decaf_ros.models.sam2_loading import load_sam2
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.synthetic.world import View, sample_scene

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "test" / "parity"))

HEADS, KEY_HEADS, CHANNELS, LAYERS = 28, 4, 128, 4  # the attention of Qwen2.5-VL-7B, a few layers of it
VISUAL_TOKENS, TEXT_TOKENS, PROMPT_TOKENS = 1600, 20, 30
SCENE_SEED, CAMERA_HZ, WARM_UP_FRAMES = 11, 10.0, 16


@dataclass(frozen=True)
class Measurement:
    """Milliseconds of each repetition after warm-up, and the memory that came on top while it ran, in MiB."""

    times_ms: tuple[float, ...]
    extra_mib: float

    def cells(self, reference: Measurement) -> list[str]:
        """Median, 95th percentile and memory, each with how many times the reference takes."""
        median, reference_median = np.median(self.times_ms), np.median(reference.times_ms)
        return [
            f"{median:.1f}",
            f"{np.percentile(self.times_ms, 95):.1f}",
            f"{reference_median / median:.1f}",
            f"{self.extra_mib:.0f}",
            f"{reference.extra_mib / max(self.extra_mib, 1.0):.1f}",
        ]


HEADER = ("", "p50 in ms", "p95 in ms", "times faster", "extra memory in MiB", "times less")


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="of the rollout (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=60, help="of the tracker (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    arguments = parser.parse_args()
    reference, ours = (_apart(side, arguments.repetitions) for side in (rollout_reference, rollout_ours))
    official, stream = (_apart(side, arguments.frames) for side in (tracker_official, tracker_ours))
    rollout_rows = [["whole matrices", *reference.cells(reference)], ["decaf_ros", *ours.cells(reference)]]
    tracker_rows = [["sam2's video predictor", *official.cells(official)], ["decaf_ros", *stream.cells(official)]]
    page = f"""# Speed and memory

One thread, float32, warm-up apart. {platform.machine()}, torch {torch.__version__}. Made by `python tools/bench_speed.py`.

## Attention rollout

{LAYERS} layers of {HEADS} heads and {KEY_HEADS} key heads of {CHANNELS} channels, {VISUAL_TOKENS} visual tokens and
{TEXT_TOKENS + PROMPT_TOKENS} others, one prompt. The reference computes whole attention matrices and multiplies them, as the
paper writes it (`test/parity/reference_rollout.py`).

{markdown_table(HEADER, rollout_rows)}
## Streaming tracker

The embedded SAM 2.1, one object over {arguments.frames} frames of 192 x 256 pixels, encoder included; the first
{WARM_UP_FRAMES} are warm-up. The predictor gets the whole video beforehand and keeps all of it; the tracker gets one frame at
a time.

{markdown_table(HEADER, tracker_rows)}"""
    print(page)
    if arguments.write:
        arguments.write.write_text(page)


def _apart(measure: Callable[[int], Measurement], count: int) -> Measurement:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (count,))


def rollout_ours(repetitions: int) -> Measurement:
    """The recurrence over recomputed attention."""
    layers, visual = _attention_inputs()
    prefix_tokens = VISUAL_TOKENS + TEXT_TOKENS
    prefix = [QueryKeys(each.queries_bhqd[:, :, :prefix_tokens], each.keys_bgkd[:, :, :prefix_tokens]) for each in layers]
    prompt = [QueryKeys(each.queries_bhqd[:, :, prefix_tokens:], each.keys_bgkd[:, :, prefix_tokens:]) for each in layers]
    return _repeated(lambda: attention_rollout(prefix, [prompt], visual[:prefix_tokens], CHANNELS**-0.5), repetitions)


def rollout_reference(repetitions: int) -> Measurement:
    """Whole matrices."""
    from reference_rollout import reference_rollout  # in test/parity

    layers, visual = _attention_inputs()

    def compute() -> None:
        causal = torch.full((len(visual), len(visual)), float("-inf")).triu(1)
        attentions = []
        for layer in layers:
            keys = layer.keys_bgkd.repeat_interleave(HEADS // KEY_HEADS, dim=1)
            scores = layer.queries_bhqd @ keys.transpose(2, 3) * CHANNELS**-0.5 + causal
            attentions.append(scores.softmax(dim=-1)[0])
        reference_rollout(attentions, visual, "v_max")

    return _repeated(compute, repetitions)


def _attention_inputs() -> tuple[list[QueryKeys], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = VISUAL_TOKENS + TEXT_TOKENS + PROMPT_TOKENS
    layers = [
        QueryKeys(
            torch.randn(1, HEADS, tokens, CHANNELS, generator=generator),
            torch.randn(1, KEY_HEADS, tokens, CHANNELS, generator=generator),
        )
        for _ in range(LAYERS)
    ]
    visual = torch.zeros(tokens, dtype=torch.bool)
    visual[TEXT_TOKENS // 2 : TEXT_TOKENS // 2 + VISUAL_TOKENS] = True
    return layers, visual


def _repeated(compute: Callable[[], object], repetitions: int) -> Measurement:
    torch.set_num_threads(1)
    before = _peak_mib()
    compute()
    extra = _peak_mib() - before
    return Measurement(tuple(_timed(compute) for _ in range(repetitions)), extra)


def tracker_ours(frames: int) -> Measurement:
    """One frame at a time, as in the node."""
    torch.set_num_threads(1)
    views = _views(frames)
    tracker = Sam2Tracker(Sam2Network(load_sam2("embedded")))
    before = _peak_mib()
    stream = iter([Frame(index, "camera", view.image_rgb) for index, view in enumerate(views)])
    track = tracker.start_track(tracker.encode(next(stream)), views[0].mask_of(0))
    times = [_timed(lambda: tracker.step([track], tracker.encode(next(stream)))) for _ in range(1, frames)]
    return Measurement(tuple(times[WARM_UP_FRAMES - 1 :]), _peak_mib() - before)


def tracker_official(frames: int) -> Measurement:
    """sam2's predictor over the same frames; the loading of the video is not timed."""
    from test_sam2_stream import predictor_of  # in test/parity

    torch.set_num_threads(1)
    views = _views(frames)
    predictor = predictor_of(load_sam2("embedded"))
    before = _peak_mib()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for index, view in enumerate(views):
            Image.fromarray(view.image_rgb).save(Path(folder) / f"{index:05d}.jpg", format="PNG")
        state = predictor.init_state(folder)
        predictor.add_new_mask(state, 0, 1, views[0].mask_of(0))
        steps = predictor.propagate_in_video(state)
        times = [_timed(lambda: next(steps)) for _ in range(frames)]
    return Measurement(tuple(times[WARM_UP_FRAMES:]), _peak_mib() - before)


def _views(frames: int) -> list[View]:
    scene = sample_scene(SCENE_SEED, screens=False)
    return [scene.render(index / CAMERA_HZ) for index in range(frames)]


def _timed(compute: Callable[[], object]) -> float:
    start = time.perf_counter()
    compute()
    return (time.perf_counter() - start) * 1e3


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
