"""What a GPU is asked to do for a frame, a query and a refresh, by the pretend CUDA, and the budgets that tests hold it to.

``PYTHONPATH=test:test/parity python test/gpu_work.py`` writes the budgets anew, when there is a reason for another number.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from pretend_cuda import Ledger, counted, pretend_cuda

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window, tiny_model, tiny_processor
from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models import prompts
from decaf_ros.models.adapter import ChatAdapter
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.qwen2_5_vl import Qwen25Vl
from decaf_ros.models.read_memory import ReadMemory
from decaf_ros.models.sam2_stream import Sam2Tracker

BUDGETS = Path(__file__).parent / "gpu_budgets.json"
LAYERS = 2  # of the vision tower of a small model with the layout of Qwen2.5-VL-7B
_BOX = slice(60, 140), slice(80, 160)


def tracked_frames() -> dict[str, Ledger]:
    """A live frame of the embedded tracker with one object, and with eight."""
    ledgers = {}
    with pretend_cuda() as gpu:
        tracker = Sam2Tracker.load("embedded", device="cuda", dtype=torch.bfloat16, memory_gating=True, motion_gating=True)
        image_rgb, mask_hw = np.full((240, 320, 3), 90, np.uint8), np.zeros((240, 320), np.bool_)
        image_rgb[_BOX], mask_hw[_BOX] = (200, 40, 30), True
        for objects in (1, 8):
            first = tracker.encode(Frame(1, "camera", image_rgb))
            tracks = [tracker.start_track(first, mask_hw) for _ in range(objects)]
            for stamp_ns in (100_000_001, 200_000_001):
                with counted(gpu) as ledgers[f"tracked frame, objects: {objects}"]:
                    outputs = tracker.step(tracks, tracker.encode(Frame(stamp_ns, "camera", image_rgb)))
            assert all(output.mask_hw[_BOX].any() for output in outputs), "values went the whole way"
    return ledgers


def asked_embedded() -> dict[str, Ledger]:
    """A query and a refresh of the embedded language model."""
    with pretend_cuda() as gpu:
        mllm = load_mllm("embedded", MllmOptions(max_new_tokens=2), "cuda")
        return _asked(gpu, mllm, random_window(4, (240, 320)), "embedded")


def asked_like_7b() -> dict[str, Ledger]:
    """The same of a small model whose windows, cells and batches are those of Qwen2.5-VL-7B and 16 frames of 640x480."""
    with pretend_cuda() as gpu:
        processor = tiny_processor(frame_tokens=3072, cell_px=28)
        model = tiny_model(processor, LAYERS, cell_px=28, window_cells=4).to("cuda", dtype=torch.bfloat16)
        # One frame a batch, so that four have the batches that 16 have of a whole model.
        mllm = Qwen25Vl(model, processor, MllmOptions(max_new_tokens=2, batch_tokens=1600))
        return _asked(gpu, mllm, random_window(4, (480, 640)), "7B's layout")


def _asked(gpu: object, mllm: ChatAdapter, window: FrameWindow, name: str) -> dict[str, Ledger]:
    ledgers = {}
    memory = ReadMemory(1 << 30)
    for frame in window.frames:
        mllm.read_ahead(window, frame, memory)
    for how, held in (("", ReadMemory()), (" that was read ahead", memory)):
        with counted(gpu) as ledgers[f"query{how}, {name}"]:
            prefixes = [mllm.read_video(window, held), mllm.read_frames(window, held)]
            asked = [prefix.ask(prompts.object_prompt("the cup")) for prefix in prefixes]
            mllm.complete(prompts.name_prompt("the cup", asked[0].answers))
            backgrounds = [prefix.ask(prompts.background_prompt("cup"), answer=False) for prefix in prefixes]
            yes = [prefix.probability_of_yes(prompts.presence_prompt("the cup")) for prefix in prefixes]
            maps = [prefix.rollout(replies) for prefix, *replies in zip(prefixes, asked, backgrounds, strict=True)]
        assert all(each.isfinite().all() for each in maps), "values went the whole way"
        assert all(0.0 < each < 1.0 for of_path in yes for each in of_path)
    with counted(gpu) as ledgers[f"refresh, {name}"]:
        prefix = mllm.read_frames(FrameWindow(window.frames[-1:]))
        texts = prompts.object_prompt("the cup"), prompts.background_prompt("cup")
        prefix.rollout([prefix.ask(text, answer=False) for text in texts])
    return ledgers


def by_function(lines: Counter[str]) -> Counter[str]:
    """Counts by function of this project, which stay when lines move."""
    functions: Counter[str] = Counter()
    for line, count in lines.items():
        functions[function_of(line)] += count
    return functions


def function_of(line: str) -> str:
    """Of a line of a ledger, the function of this project."""
    return re.sub(r":\d+", "", line.partition(" < ")[0])


def _record() -> None:
    ledgers = tracked_frames() | asked_embedded() | asked_like_7b()
    kinds = ("launches", "syncs", "copies")
    counts = {
        name: {kind: dict(sorted(by_function(getattr(ledger, kind)).items())) for kind in kinds}
        for name, ledger in ledgers.items()
    }
    BUDGETS.write_text(json.dumps(counts, indent=1) + "\n")
    for name, ledger in ledgers.items():
        print(f"{name}: {ledger.totals()}")


if __name__ == "__main__":
    _record()
