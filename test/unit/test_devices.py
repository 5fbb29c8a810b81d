"""Which device the models run on when nobody says, and in which number format."""

from __future__ import annotations

import logging

import pytest
import torch
from pretend_cuda import pretend_cuda

from decaf_ros.models import devices
from decaf_ros.models.devices import mllm_dtype, resolve_device, tracker_dtype

CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What was logged, by a process that has said nothing yet."""
    devices._tell_once.cache_clear()
    caplog.set_level(logging.INFO, logger="decaf_ros")
    return caplog


@pytest.mark.parametrize(("count", "others"), [(1, "the only GPU; device: cpu"), (2, "the first of 2; device: cuda:1 takes")])
def test_the_gpu_that_is_taken_is_told_once(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture, count: int, others: str
) -> None:
    with pretend_cuda():
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        assert [resolve_device("auto").type for _ in range(3)] == ["cuda"] * 3
    [message] = said.messages
    assert message.startswith("device auto: cuda, Pretend GPU of compute capability 9.0")
    assert others in message


def test_why_there_is_no_gpu_is_told_once(monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)
    assert [resolve_device("auto").type for _ in range(3)] == ["cpu"] * 3
    assert said.messages == ["device auto: the CPU, as torch has no GPU (Found no NVIDIA driver on your system. Please check)"]


def test_a_device_that_was_named_needs_no_reason(said: pytest.LogCaptureFixture) -> None:
    with pretend_cuda():
        assert [resolve_device(name).type for name in ("cpu", "cuda", "cuda:0")] == ["cpu", "cuda", "cuda"]
    assert said.messages == []


@pytest.mark.parametrize(
    ("capability", "tracker"), [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16)]
)
def test_a_gpu_without_bfloat16_tracks_in_float16_and_says_so(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture, capability: tuple[int, int], tracker: torch.dtype
) -> None:
    with pretend_cuda():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        for _ in range(2):
            assert tracker_dtype(CUDA) is tracker
            assert mllm_dtype(CUDA) is torch.bfloat16, "some language models overflow in float16"
    lacking = [message for message in said.messages if "capability 7.5 has no bfloat16 of its own" in message]
    assert said.messages == lacking
    assert len(lacking) == (2 if capability < (8, 0) else 0), "once for each model"


def test_a_cpu_computes_in_float32() -> None:
    assert (tracker_dtype(torch.device("cpu")), mllm_dtype(torch.device("cpu"))) == (torch.float32, torch.float32)
