"""A GPU that is none: tensors that say ``cuda:0``, hold their values on the CPU, and tell what a GPU would have had to do.

Launches of kernels, synchronisations and copies are counted by the line of code that asked for them. Counts do not depend on
the machine, so that tests can hold them. What a GPU would refuse is refused: tensors of two devices in one operation, a CUDA
tensor as a NumPy array. And what it would let pass, with wrong values now and then, is refused as well: a tensor in a stream
that was not told to wait for the one that wrote it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_CUDA, _CPU = torch.device("cuda:0"), torch.device("cpu")
# Operations of which the CPU must know the result, or its size, before it goes on.
_SYNCING = ("_local_scalar_dense", "nonzero", "masked_select", "unique_consecutive", "_unique2", "unique_dim", "equal")
_INDEXING = ("index", "index_put", "_index_put_impl", "_unsafe_index")
_NO_KERNEL = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh")
_WHOLE = ("scaled_dot_product_attention",)  # of parts, but one kernel on a GPU
_STAGED_BYTES = 1 << 16  # which an asynchronous copy takes aside at once; for more it waits, unless the memory is pinned


@dataclass
class Ledger:
    """What a GPU was asked to do: how often, by the lines of code that asked.

    Attributes:
        launches: of kernels.
        syncs: how often the CPU waited for the GPU: for a value, for an event, and at every copy that is not asynchronous.
        copies: from the CPU's memory to the GPU's.
        index_copies: those of them that an index made, since it was a tensor on the CPU, which waits for each.
        attention: launches of scaled dot product attention.
        streams: in which something was launched.
    """

    launches: Counter[str] = field(default_factory=Counter)
    syncs: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    index_copies: Counter[str] = field(default_factory=Counter)
    attention: Counter[str] = field(default_factory=Counter)
    streams: set[PretendStream] = field(default_factory=set)

    def totals(self) -> dict[str, int]:
        """How often each thing was done."""
        return {name: lines.total() for name, lines in vars(self).items() if isinstance(lines, Counter)}


class PretendTensor(torch.Tensor):
    """A tensor that says that it lies on a GPU.

    Attributes:
        held: its values, on the CPU.
        memory: when, and in which stream, they were written; views share it.
    """

    held: torch.Tensor
    memory: _Memory

    @staticmethod
    def __new__(cls, held: torch.Tensor, memory: _Memory) -> PretendTensor:
        like = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype, "layout": held.layout}
        with torch.inference_mode(False):  # torch keeps count of the versions of some, and an inference tensor has none
            tensor = torch.Tensor._make_wrapper_subclass(cls, held.shape, device=_CUDA, requires_grad=False, **like)
        tensor.held, tensor.memory = held, memory
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _gpu().run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({tuple(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return memo.setdefault(id(self), self.clone())

    def tolist(self) -> Any:
        """As torch has it: the CPU waits for the values."""
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        """Refused in torch's own words."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy


class PretendStream:
    """A line of work. ``seen`` says how far it has waited for each line, itself included."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.priority, self.seen, self.ticks = priority, {}, 0

    def wait_stream(self, other: PretendStream) -> None:
        """What comes next here comes after all that is in the other line by now."""
        self.wait_event(other.record_event())

    def record_event(self, event: PretendEvent | None = None) -> PretendEvent:
        """A mark behind all that is in line by now."""
        event = event or PretendEvent()
        event.seen = dict(self.seen)
        return event

    def wait_event(self, event: PretendEvent) -> None:
        """What comes next here comes after a mark."""
        _merge(self.seen, event.seen)

    def synchronize(self) -> None:
        """The CPU waits for all that is in line."""
        _gpu().wait(self.seen)


class PretendEvent:
    """A mark in a line of work."""

    def __init__(self, **_: Any) -> None:
        self.seen: dict[PretendStream, int] = {}

    def record(self, stream: PretendStream | None = None) -> None:
        """Put it behind all that is in a line, or in the current one, by now."""
        (stream or _gpu().stream).record_event(self)

    def wait(self, stream: PretendStream | None = None) -> None:
        """Have a line, or the current one, wait for it."""
        (stream or _gpu().stream).wait_event(self)

    def synchronize(self) -> None:
        """The CPU waits for it."""
        _gpu().wait(self.seen)


@dataclass
class _Memory:
    """Who wrote it last, and how far its line was by then."""

    stream: PretendStream
    tick: int


@dataclass
class _Arrival:
    """A copy that is on its way to the CPU: what will stand in it, once the CPU has waited for the line."""

    stream: PretendStream
    tick: int
    copy: torch.Tensor
    values: torch.Tensor


class _Gpu(TorchDispatchMode):
    """Runs what is meant for a GPU on the CPU, and keeps the books."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self._under_way: list[_Arrival] = []
        self.default_stream = PretendStream()
        self._waited: dict[PretendStream, int] = {}  # how far the CPU knows each line to be
        self._current = threading.local()

    @property
    def stream(self) -> PretendStream:
        """In which the calling thread puts its work."""
        return getattr(self._current, "stream", self.default_stream)

    @contextmanager
    def within(self, stream: PretendStream | None) -> Iterator[None]:
        """As ``torch.cuda.stream``."""
        before = self.stream
        self._current.stream = stream or before
        try:
            yield
        finally:
            self._current.stream = before

    def wait(self, seen: dict[PretendStream, int]) -> None:
        """The CPU waits until lines are so far."""
        self.ledger.syncs[_line()] += 1
        _merge(self._waited, seen)
        for each in [each for each in self._under_way if each.tick <= self._waited.get(each.stream, 0)]:
            each.copy.copy_(each.values)
            self._under_way.remove(each)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """One operation of torch's."""
        name = func._schema.name.partition("::")[2].rstrip("_")
        if name in ("pin_memory", "_pin_memory"):
            pinned = args[0].clone()
            pinned.is_pretend_pinned = True
            return pinned
        given = tree_leaves((args, kwargs))
        ours = [each for each in given if isinstance(each, PretendTensor)]
        wanted = next((each for each in given if isinstance(each, torch.device)), None)
        if not ours and (wanted is None or wanted.type != "cuda"):
            return func(*args, **kwargs)
        if name not in _WHOLE and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # the parts of it count
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        plain = {key: kwargs[key] for key in kwargs if key != "pin_memory"}
        result = func(*tree_map(_plain, args), **tree_map(_plain, plain))
        self.stream.ticks += 1
        self.stream.seen[self.stream] = self.stream.ticks
        if name == "copy" and isinstance(args[0], PretendTensor) != isinstance(args[1], PretendTensor):
            self._check_order(name, ours)
            return self._copied(args[1], result, args[0], asynchronous=args[2:] == (True,))
        if name == "_to_copy" and isinstance(args[0], PretendTensor) != (wanted is None or wanted.type == "cuda"):
            self._check_order(name, ours)
            return self._copied(args[0], result, None, asynchronous=bool(kwargs.get("non_blocking")))
        self._check_devices(name, args, given)
        return self._computed(func, name, args, kwargs, ours, result)

    def _copied(self, source: Any, result: torch.Tensor, target: torch.Tensor | None, asynchronous: bool) -> torch.Tensor:
        """Between CPU and GPU; into a target, or what is new."""
        to_cpu, pinned = isinstance(source, PretendTensor), hasattr(source, "is_pretend_pinned")
        if to_cpu and asynchronous:
            self._under_way.append(_Arrival(self.stream, self.stream.ticks, result, result.clone()))
            result.fill_(77)  # nobody must look at it yet
        elif source.numel() and not (asynchronous and (pinned or source.nbytes <= _STAGED_BYTES)):
            self.wait(self.stream.seen)
        if to_cpu:
            return result if target is None else target
        self.ledger.copies[_line()] += 1
        if target is None:
            return PretendTensor(result, _Memory(self.stream, self.stream.ticks))
        assert isinstance(target, PretendTensor)
        target.memory.stream, target.memory.tick = self.stream, self.stream.ticks
        return target

    def _computed(self, func: Any, name: str, args: tuple, kwargs: dict, ours: list[PretendTensor], result: Any) -> Any:
        """On the GPU: a kernel, a view or new memory."""
        indices = args[1] if name in _INDEXING else ()
        masks = any(isinstance(each, PretendTensor) and each.dtype is torch.bool for each in indices)
        counts = name == "repeat_interleave" and len(ours) == len(args) == 1  # how often each is repeated lies on the GPU
        if name in _SYNCING or masks or counts:
            self.wait(self.stream.seen)
        written = [each for each in _written(func, args, kwargs) if isinstance(each, PretendTensor)]
        same = {id(each.held): each for each in ours}
        memories = {each.held.untyped_storage()._cdata: each.memory for each in ours}
        fresh = [
            each
            for each in tree_leaves(result)
            if isinstance(each, torch.Tensor) and each.untyped_storage()._cdata not in memories
        ]
        if written or fresh or name in _SYNCING:
            self._check_order(name, ours)
        if (written or fresh) and name not in _NO_KERNEL:
            self.ledger.launches[_line()] += 1
            self.ledger.streams.add(self.stream)
            if name == "scaled_dot_product_attention":
                self.ledger.attention[_line()] += 1
        for each in written:
            each.memory.stream, each.memory.tick = self.stream, self.stream.ticks

        def wrapped(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in same:
                return same[id(value)]
            memory = memories.get(value.untyped_storage()._cdata)
            return PretendTensor(value, memory or _Memory(self.stream, self.stream.ticks))

        return tree_map(wrapped, result)

    def _check_devices(self, name: str, args: tuple, given: list[Any]) -> None:
        """A GPU takes numbers from the CPU, and indices, for which the CPU waits; no other tensors."""
        tensors = [each for each in given if isinstance(each, torch.Tensor) and each.dim()]
        foreign = [each for each in tensors if not isinstance(each, PretendTensor)]
        if name in _INDEXING and isinstance(args[0], PretendTensor):
            for each in list(foreign):
                if any(each is index for index in args[1]):
                    foreign = [other for other in foreign if other is not each]
                    self.wait(self.stream.seen)
                    self.ledger.copies[_line()] += 1
                    self.ledger.index_copies[_line()] += 1
        if foreign:
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} of cuda:0 and cpu, at {_line()}")

    def _check_order(self, name: str, tensors: list[PretendTensor]) -> None:
        """What another stream wrote may be used once this one, or the CPU, has waited for it."""
        for each in tensors:
            stream, tick = each.memory.stream, each.memory.tick
            if stream is not self.stream and max(self._waited.get(stream, 0), self.stream.seen.get(stream, 0)) < tick:
                tensor = f"a tensor of shape {tuple(each.shape)}"
                raise RuntimeError(f"{name}: the stream does not wait for the one that wrote {tensor}, at {_line()}")


_in_use: _Gpu | None = None


def _gpu() -> _Gpu:
    assert _in_use is not None, "a pretend tensor outlived its GPU"
    return _in_use


@contextmanager
def pretend_cuda() -> Iterator[_Gpu]:
    """Within this, the calling thread has a GPU, ``cuda:0``. Not within another one."""
    global _in_use
    gpu = _Gpu()
    patched = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": lambda: 1,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "Pretend GPU",
        "current_device": lambda: 0,
        "_lazy_init": lambda: None,
        "synchronize": lambda device=None: gpu.wait(gpu.stream.seen),
        "empty_cache": lambda: None,
        "Stream": PretendStream,
        "Event": PretendEvent,
        "stream": gpu.within,
        "current_stream": lambda device=None: gpu.stream,
        "default_stream": lambda device=None: gpu.default_stream,
    }
    overwrite, lift = torch.__future__.get_overwrite_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    torch._C._ensureCUDADeviceGuardSet()
    try:
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes it on the CPU, and moves it as others are moved
        _in_use = gpu
        with mock.patch.multiple(torch.cuda, **patched), gpu:
            yield gpu
    finally:
        _in_use = None
        torch._C._set_only_lift_cpu_tensors(lift)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


@contextmanager
def counted(gpu: _Gpu) -> Iterator[Ledger]:
    """What the block asks of the GPU."""
    before, gpu.ledger = gpu.ledger, Ledger()
    try:
        yield gpu.ledger
    finally:
        gpu.ledger = before


def _plain(value: Any) -> Any:
    if isinstance(value, PretendTensor):
        return value.held
    return _CPU if isinstance(value, torch.device) and value.type == "cuda" else value


def _written(func: Any, args: tuple, kwargs: dict) -> Iterator[Any]:
    """The arguments that an operation writes to."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tree_leaves(args[index] if index < len(args) else kwargs.get(argument.name))


def _merge(seen: dict[PretendStream, int], other: dict[PretendStream, int]) -> None:
    seen.update({stream: max(tick, seen.get(stream, 0)) for stream, tick in other.items()})


def _line() -> str:
    """The innermost lines of this project and of a model's library that led here."""
    frame, library = sys._getframe(1), ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        line = f"{path.name}:{frame.f_lineno} ({frame.f_code.co_name})"
        if "decaf_ros" in path.parts and path.name != "devices.py":  # which does what others ask
            return f"{line}{library}"
        if not library and {"sam2", "transformers"} & set(path.parts):
            library = f" < {line}"
        frame = frame.f_back  # type: ignore[assignment]
    return library.removeprefix(" < ") or "elsewhere"
