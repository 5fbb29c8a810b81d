"""What the benchmarks share: a process for each measurement, time after warm-up, and memory at its highest."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from decaf_ros.session.stages import StageClock
from decaf_ros.text import with_kind

_Result = TypeVar("_Result")


class Time(NamedTuple):
    """How long something took, and for how long a core was at work on it, whatever else the machine did meanwhile."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Measurement:
    """Times of each repetition after warm-up, and the memory that came on top while it ran, in MiB."""

    times: tuple[Time, ...]
    extra_mib: float

    @property
    def p50(self) -> Time:
        """Medians."""
        return Time(*np.median(self.times, axis=0).tolist())

    def cells(self, reference: Measurement) -> list[str]:
        """Times and memory, each with how many times the reference takes; see :data:`HEADER`."""
        return [
            f"{self.p50.wall_ms:.1f}",
            f"{np.percentile([time.wall_ms for time in self.times], 95):.1f}",
            f"{reference.p50.wall_ms / self.p50.wall_ms:.1f}",
            f"{self.p50.cpu_ms:.1f}",
            f"{reference.p50.cpu_ms / self.p50.cpu_ms:.1f}",
            f"{self.extra_mib:.0f}",
            f"{reference.extra_mib / max(self.extra_mib, 1.0):.1f}",
        ]


HEADER = (
    "",
    "p50 in ms",
    "p95 in ms",
    "times faster",
    "CPU time, p50 in ms",
    "times less",
    "extra memory in MiB",
    "times less",
)


class MemoryRise:
    """How far this process's resident memory has risen above where it was when this was made, at its highest (Linux)."""

    def __init__(self) -> None:
        # What the allocator holds back would hide as much of the rise.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self._start = resident_mib()

    def mib(self) -> float:
        """MiB."""
        return resident_mib("VmHWM") - self._start


def resident_mib(field: str = "VmRSS") -> float:
    """Resident memory of this process in MiB: as it is, or "VmHWM" for its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def apart(measure: Callable[..., _Result], *arguments: object, threads: int | None = 1) -> _Result:
    """Run a function in a process of its own, which has computed nothing before, and to which no device belongs yet.

    It is forked from one that only imports, so that imports are paid for once. ``threads`` are PyTorch's; ``None`` leaves them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, measure.__module__])  # of the first measurement; the server lives on
    with context.Pool(1, torch.set_num_threads if threads else None, (threads,) if threads else ()) as pool:
        return pool.apply(measure, arguments)


def stream_apart(measure: Callable[..., Iterator[_Result]], *arguments: object, limit_s: float) -> Iterator[_Result]:
    """What a function yields in a process of its own, as :func:`apart`, but each result as it comes, and with all threads.

    Args:
        measure: the function.
        arguments: of it.
        limit_s: seconds after which the process is ended.

    Raises:
        TimeoutError: the time is up.
        RuntimeError: the function failed, or its process died.
    """
    deadline = time.monotonic() + limit_s
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, measure.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, measure, arguments), daemon=True)
    process.start()
    sender.close()  # its end of it is the process's alone, so that one that dies is heard
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            try:
                results, failure = receiver.recv()
            except EOFError:
                process.join()
                raise RuntimeError(f"the process died, with status {process.exitcode}") from None
            if failure:
                raise RuntimeError(failure)
            if not results:
                return
            yield from results
        raise TimeoutError(f"not done in {limit_s:.0f} s")
    finally:
        process.kill()
        process.join()
        receiver.close()


def _send(sender: Connection, measure: Callable[..., Iterator[Any]], arguments: tuple[object, ...]) -> None:
    """Send each result in a list, an empty list at the end, and a failure as words."""
    try:
        for result in measure(*arguments):
            sender.send(([result], ""))
        sender.send(([], ""))
    except Exception as error:
        sender.send(([], with_kind(error)))


def timed(compute: Callable[[], _Result]) -> tuple[_Result, Time]:
    """What a call returns, and the time that it takes, until a GPU that it used is done, too."""
    await_devices()
    wall, cpu = time.perf_counter(), time.process_time()
    result = compute()
    await_devices()
    return result, Time((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3)


class AwaitedClock(StageClock):
    """The time of stages until a GPU that they used is done, too: else what one puts in line counts for the next one."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """See :class:`~decaf_ros.session.stages.StageClock`."""
        with super().stage(name):
            yield
            await_devices()


def await_devices() -> None:
    """Wait until a GPU has done what was put in line, if this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def machine() -> str:
    """The CPU and what ran on it, for the foot of a page."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{name} ({os.cpu_count()} cores), one thread unless said otherwise, PyTorch {torch.__version__}"
