"""What a GPU is asked to do, without one: no more than before, without needless waits, and nothing if it was not asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gpu_work import BUDGETS, LAYERS, asked_embedded, asked_like_7b, by_function, function_of, tracked_frames
from pretend_cuda import Ledger, PretendTensor, counted, pretend_cuda

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.devices import DeviceQueue, on_cpu, on_device
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.attention import MllmAttention

CUDA = torch.device("cuda:0")


@pytest.fixture(scope="module")
def tracked() -> dict[str, Ledger]:
    return tracked_frames()


@pytest.fixture(scope="module")
def asked() -> dict[str, Ledger]:
    return asked_embedded() | asked_like_7b()


def test_a_tracked_frame_keeps_to_its_budget(tracked: dict[str, Ledger]) -> None:
    for name, ledger in tracked.items():
        check_budget(name, ledger)
        totals = ledger.totals()
        assert totals["launches"] <= 650
        assert totals["syncs"] <= 2
        assert not totals["index_copies"]
        assert [stream.priority for stream in ledger.streams] == [-1], "all in one queue, before those of others"


def test_a_query_and_a_refresh_keep_to_their_budgets(asked: dict[str, Ledger]) -> None:
    for name, ledger in asked.items():
        check_budget(name, ledger)
        assert [stream.priority for stream in ledger.streams] == [0], "all in one queue, behind the tracker's"
    query = asked["query, 7B's layout"]
    assert query.totals()["syncs"] <= 40
    of_tower = sum(count for line, count in query.attention.items() if "vision_tower" in line)
    batches = 5  # the video, and four of the frames
    assert of_tower <= 3 * LAYERS * batches


def check_budget(name: str, ledger: Ledger) -> None:
    for kind, budget in json.loads(BUDGETS.read_text())[name].items():
        lines = getattr(ledger, kind)
        grown = {function for function, count in by_function(lines).items() if count > budget.get(function, 0)}
        where = "\n".join(f"{count:4} {line}" for line, count in lines.most_common() if function_of(line) in grown)
        total = sum(budget.values())
        assert lines.total() <= total, f"{kind} of a {name}: {lines.total()}, were {total}; more than before from\n{where}"


def test_models_on_the_cpu_leave_the_gpu_alone() -> None:
    window = random_window(2, (96, 128))
    with pretend_cuda() as gpu:
        tracker = Sam2Tracker.load("embedded", device="cpu", motion_gating=True)
        mllm = load_mllm("embedded", MllmOptions(max_new_tokens=2), "cpu")
        for model in (tracker._network._model, mllm._chat.model):
            assert not any(isinstance(each, PretendTensor) for each in (*model.parameters(), *model.buffers()))
        MllmAttention(mllm).attend(window, "the cup")
        MllmAttention(mllm).refresh(window.frames[-1], [("the cup", "cup")])
        first, second = map(tracker.encode, window.frames)
        tracks = [tracker.start_track(first, np.ones((96, 128), np.bool_)) for _ in range(2)]
        tracker.step(tracks, second)
        tracker.propose(second, [(1.0, 2.0)])
        assert not any(gpu.ledger.totals().values())


def test_the_pretend_gpu_counts_by_line() -> None:
    with pretend_cuda() as gpu, torch.inference_mode(), counted(gpu) as ledger:
        ones = torch.ones(4, 3, device=CUDA)  # a launch
        doubled = ones.T[1:] * 2  # views, and a launch
        doubled += 1  # a launch
        assert doubled.sum().item() == 24  # a launch, and the CPU waits
        assert ones[torch.tensor([0, 2])].shape == (2, 3)  # a launch, and a copy for which the CPU waits
        [row] = on_cpu(doubled[0])  # the CPU waits
        assert row.tolist() == [3, 3, 3, 3]
        torch.nn.functional.scaled_dot_product_attention(*[ones[None, None]] * 3)  # one launch
    totals = {"launches": 6, "syncs": 3, "copies": 1, "index_copies": 1, "attention": 1}
    assert ledger.totals() == totals


def test_the_pretend_gpu_refuses_what_a_gpu_would() -> None:
    with pretend_cuda():
        ones = torch.ones(3, device=CUDA)
        assert ones.device == CUDA
        with pytest.raises(RuntimeError, match="same device"):
            ones + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            ones.numpy()


def test_the_pretend_gpu_knows_who_waits_for_whom() -> None:
    with pretend_cuda():
        ones = torch.ones(3, device=CUDA)
        early = torch.cuda.Stream()
        with torch.cuda.stream(early), pytest.raises(RuntimeError, match="does not wait"):
            ones + 1
        queue = DeviceQueue(CUDA)  # behind all that is in line
        with queue():
            twos = ones + 1
        with pytest.raises(RuntimeError, match="does not wait"):
            twos * 2
        with queue():
            copy = twos.to("cpu", non_blocking=True)
            assert copy.tolist() != [2, 2, 2], "it is on its way"
            assert on_cpu(twos)[0].tolist() == [2, 2, 2]
        assert (twos * 2).tolist() == [4, 4, 4]  # since the CPU has waited for it


def test_what_is_moved_is_the_same() -> None:
    numbers = torch.arange(6).view(2, 3)
    assert on_device(numbers, torch.device("cpu")) is numbers
    assert on_cpu(numbers)[0] is numbers
    with pretend_cuda() as gpu, counted(gpu) as ledger:
        assert np.array_equal(on_cpu(on_device(numbers, CUDA))[0].numpy(), numbers.numpy())
    assert ledger.totals()["syncs"] == 1
