"""Where models run, and how tensors get there and back without waiting more than they must."""

from __future__ import annotations

import ctypes
import gc
import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from decaf_ros.text import brief, quoted

_TYPES = ("cpu", "cuda")
_BFLOAT16_CAPABILITY = (8, 0)

logger = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The device of that name, such as "cpu", "cuda" or "cuda:1"; "auto" is the first GPU if there is one, and is logged.

    Raises:
        ValueError: no such device on this machine, or none that the models run on.
    """
    if name == "auto":
        name, reason = _automatic()
        _tell_once(f"device auto: {reason}")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {quoted(name)} is none that torch knows: use auto, cpu, cuda or cuda:1") from error
    if device.type not in _TYPES:
        raise ValueError(f"device {quoted(name)} is none that the models run on: use auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {quoted(name)} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    return device


def _automatic() -> tuple[str, str]:
    """The device that the models run on unless one is named, and why it is this one."""
    if not torch.cuda.is_available():
        return "cpu", f"the CPU, as torch has no GPU ({_no_gpu()})"
    count = torch.cuda.device_count()
    others = f", the first of {count}; device: cuda:1 takes another" if count > 1 else ", the only GPU"
    return "cuda", f"cuda, {_described(torch.device('cuda'))}{others}; device: cpu takes none"


def _no_gpu() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # the latter where torch is built without CUDA
        return brief(error)
    return "it says no reason"


def _described(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} of compute capability {major}.{minor}"


@cache
def _tell_once(message: str) -> None:
    logger.info(message)


def mllm_dtype(device: torch.device) -> torch.dtype:
    """What a language model computes in unless told otherwise: float32 on a CPU, bfloat16 on a GPU, whichever.

    Published models are trained in bfloat16, and some overflow in float16. A GPU without bfloat16 computes it by way of
    float32: slowly, but right, and in half of the memory.
    """
    if device.type == "cpu":
        return torch.float32
    if not _has_bfloat16(device):
        _tell_once(
            f"{_described(device)} has no bfloat16 of its own: the language model computes in it slowly; float16 is faster "
            "(parameter dtype), but some models overflow in it"
        )
    return torch.bfloat16


def tracker_dtype(device: torch.device) -> torch.dtype:
    """What a mask model computes in unless told otherwise: float32 on a CPU, bfloat16 on a GPU, float16 on one that lacks it.

    In the latter, too, it runs under autocast, which leaves in float32 what needs the range.
    """
    if device.type == "cpu":
        return torch.float32
    if not _has_bfloat16(device):
        _tell_once(f"{_described(device)} has no bfloat16 of its own: the mask model computes in float16")
        return torch.float16
    return torch.bfloat16


def _has_bfloat16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY


class DeviceQueue:
    """A line of work of its own on a GPU, which what was put in line before, such as the loading of weights, precedes.

    On a CPU there are no lines. Threads may share it.

    Args:
        device: where the work is done.
        priority: of a GPU's lines; what is in one of -1 is begun before what is in one of 0.
    """

    def __init__(self, device: torch.device, priority: int = 0) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=priority)
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def __call__(self) -> AbstractContextManager[object]:
        """Within this, what the calling thread computes on the device stands in this line."""
        return torch.cuda.stream(self._stream) if self._stream is not None else nullcontext()


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU's on a device. The calling thread does not wait until it is there, and may forget it at once."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def on_cpu(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors of one device on the CPU. The calling thread waits once, and for nothing that is put in line after them."""
    copies = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)
    if tensors and tensors[0].device.type == "cuda":
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(tensors[0].device))
        done.synchronize()
    return copies


def give_memory_back() -> None:
    """What is no longer referred to, to the system and to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # glibc keeps what is freed in the arenas of threads, which may have ended.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
