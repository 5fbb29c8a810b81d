"""The same results on a GPU as on the CPU, but for rounding. Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from filmed_table import BOX, EXPRESSION, MUG, TABLE

from decaf_ros.datatypes import Frame
from decaf_ros.method.fusion import normalise
from decaf_ros.method.rollout import QueryKeys, attention_rollout
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / max(np.count_nonzero(a | b), 1)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_the_rollout(dtype: torch.dtype, limit: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, prefix_tokens = 700, 660
    layers = [
        QueryKeys(
            torch.randn(1, 28, tokens, 128, generator=generator).to(dtype),
            torch.randn(1, 4, tokens, 128, generator=generator).to(dtype),
        )
        for _ in range(3)
    ]
    visual = torch.zeros(prefix_tokens, dtype=torch.bool)
    visual[20:620] = True

    def rolled(device: str, dtype: torch.dtype) -> torch.Tensor:
        moved = [QueryKeys(each.queries_bhqd.to(device, dtype), each.keys_bgkd.to(device, dtype)) for each in layers]
        prefix = [QueryKeys(each.queries_bhqd[:, :, :prefix_tokens], each.keys_bgkd[:, :, :prefix_tokens]) for each in moved]
        prompt = [QueryKeys(each.queries_bhqd[:, :, prefix_tokens:], each.keys_bgkd[:, :, prefix_tokens:]) for each in moved]
        result = attention_rollout(prefix, [prompt], visual.to(device), 128**-0.5)
        return normalise(result.float().cpu().reshape(1, 1, -1))

    expected = rolled("cpu", torch.float32)
    assert (rolled("cuda", dtype) - expected).norm() <= limit * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks(dtype: torch.dtype) -> None:
    views = TABLE.views(20)
    masks = {}
    for device, precision in (("cpu", torch.float32), ("cuda", dtype)):
        tracker = Sam2Tracker.load("embedded", device=device, dtype=precision)
        features = [tracker.encode(Frame(index, "camera", view.image_rgb)) for index, view in enumerate(views)]
        tracks = [tracker.start_track(features[0], views[0].mask_of(thing)) for thing in (MUG, BOX)]
        masks[device] = [output.mask_hw for each in features[1:] for output in tracker.step(tracks, each)]
    assert all(iou(a, b) > 0.95 for a, b in zip(masks["cpu"], masks["cuda"], strict=True))


def test_from_a_sentence_to_masks() -> None:
    tracker = Sam2Tracker.load("embedded", device="cuda")
    mllm = load_mllm("embedded", MllmOptions(), torch.device("cuda"), torch.float32)
    grounder = Grounder(MllmAttention(mllm), tracker)
    times_s = [0.2 * index for index in range(8)]
    frames = [Frame(round(1e9 * time_s), "camera", TABLE.view(time_s).image_rgb) for time_s in times_s]
    grounding = grounder.ground([StoredFrame(frame, tracker) for frame in frames], EXPRESSION)
    assert grounding.attention.object_name == "mug"
    truth = [TABLE.view(time_s).mask_of(MUG) for time_s in times_s]
    assert np.mean([iou(mask, each) for mask, each in zip(grounding.union_masks(), truth, strict=True)]) > 0.8
