"""Where models run, and how tensors get there and back without waiting more than they must."""

from __future__ import annotations

import ctypes
import gc
from contextlib import AbstractContextManager, nullcontext

import torch

from decaf_ros.text import quoted

_TYPES = ("cpu", "cuda")


def resolve_device(name: str) -> torch.device:
    """The device of that name, such as "cpu", "cuda" or "cuda:1"; "auto" is the GPU if there is one.

    Raises:
        ValueError: no such device on this machine, or none that the models run on.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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
