"""What the benchmarks share: a process for each measurement, time after warm-up, and memory at its highest."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Measurement:
    """Milliseconds of each repetition after warm-up, and the memory that came on top while it ran, in MiB."""

    times_ms: tuple[float, ...]
    extra_mib: float

    @property
    def p50_ms(self) -> float:
        """Median time."""
        return float(np.median(self.times_ms))

    def cells(self, reference: Measurement) -> list[str]:
        """Median, 95th percentile and memory, each with how many times the reference takes; see :data:`HEADER`."""
        return [
            f"{self.p50_ms:.1f}",
            f"{np.percentile(self.times_ms, 95):.1f}",
            f"{reference.p50_ms / self.p50_ms:.1f}",
            f"{self.extra_mib:.0f}",
            f"{reference.extra_mib / max(self.extra_mib, 1.0):.1f}",
        ]


HEADER = ("", "p50 in ms", "p95 in ms", "times faster", "extra memory in MiB", "times less")


class MemoryRise:
    """How far this process's resident memory has risen above where it was when this was made, at its highest (Linux)."""

    def __init__(self) -> None:
        # What the allocator holds back would hide as much of the rise.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self._start = _resident_mib("VmRSS")

    def mib(self) -> float:
        """MiB."""
        return _resident_mib("VmHWM") - self._start


def _resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def apart(measure: Callable[..., _Result], *arguments: object) -> _Result:
    """Run a function of a module in a process of its own, with one thread."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply(measure, arguments)


def timed(compute: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    compute()
    return (time.perf_counter() - start) * 1e3


def machine() -> str:
    """The CPU and what ran on it, for the foot of a page."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{name} ({os.cpu_count()} cores), one thread, PyTorch {torch.__version__}"
