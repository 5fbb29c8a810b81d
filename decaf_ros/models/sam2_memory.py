"""The memory that SAM 2 keeps of one object: a bounded, typed stand-in for the predictor's ever-growing state.

What the network looks at on frame ``t`` is all conditioning frames, the spatial memory of the last ``num_maskmem - 1`` (6)
frames and the object pointers of the last ``max_obj_ptrs_in_encoder - 1`` (15). Nothing else is kept, so a track takes the same
space after an hour as after a second, and its masks are the same as if everything had been kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from decaf_ros.models.sam2_motion import BoxMotion


@dataclass(frozen=True)
class MemorySpan:
    """How far back a track remembers.

    Attributes:
        spatial: frames whose spatial memory is attended to.
        pointers: frames whose object pointer is attended to.
        conditioning: conditioning frames kept: the first and the newest. The published model keeps all; with more prompts than
            this a track is no longer equal to it bit by bit, but it stays bounded.
    """

    spatial: int = 6
    pointers: int = 15
    conditioning: int = 4

    def __post_init__(self) -> None:
        if self.conditioning < 2:
            raise ValueError(f"a track keeps its first and its newest conditioning frame: at least 2, got {self.conditioning}")


@dataclass(frozen=True, eq=False)
class ObjectPointer:
    """The object on one frame as a single vector.

    Attributes:
        time: frame of the track's clock.
        vector_c: ``(C,)`` float.
    """

    time: int
    vector_c: torch.Tensor


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """What one processed frame leaves behind.

    Attributes:
        spatial_nc: ``(h * w, C_mem)`` in half precision: image and mask of the frame, encoded together.
        pointer: the object on the frame.
    """

    spatial_nc: torch.Tensor
    pointer: ObjectPointer

    @property
    def time(self) -> int:
        """Frame of the track's clock."""
        return self.pointer.time


@dataclass(frozen=True, eq=False)
class Recollection:
    """What the network attends to on a track's next frame.

    Attributes:
        spatial: ``(h * w, C_mem)`` memories: conditioning frames first, then the others from old to new.
        spatial_ages: frames since each of them; 0 for a conditioning frame, whatever its age.
        pointers: ``(C,)`` vectors: conditioning frames first, then the others from new to old.
        pointer_ages: frames since each of them.
    """

    spatial: tuple[torch.Tensor, ...]
    spatial_ages: tuple[int, ...]
    pointers: tuple[torch.Tensor, ...]
    pointer_ages: tuple[int, ...]

    @property
    def token_counts(self) -> tuple[int, int]:
        """Number of memories and of pointers: tracks that agree in both can share one call of the network."""
        return len(self.spatial), len(self.pointers)


class Sam2Track:
    """The memory of one object, with a clock of its own that counts the frames processed (not the camera's).

    Owned by one thread at a time; hand it over whole.

    Args:
        span: how far it remembers.
        keeps_beginning: whether it can be :meth:`reversed` later.

    Attributes:
        motion: where it is heading, at the resolution of the network's masks; ``None`` while nobody asks.
    """

    def __init__(self, span: MemorySpan, keeps_beginning: bool = False) -> None:
        self._span = span
        self._keeps_beginning = keeps_beginning
        self._next_time = 0
        self._conditioning: list[MemoryEntry] = []
        self._recent: deque[MemoryEntry] = deque(maxlen=span.spatial)
        self._pointers: deque[ObjectPointer] = deque(maxlen=span.pointers)
        # What is nearest for whoever goes back in time from the first frame.
        self._first: list[MemoryEntry] = []
        self._first_pointers: list[ObjectPointer] = []
        self.motion: BoxMotion | None = None

    @property
    def next_time(self) -> int:
        """Reading of the clock on the frame that comes next."""
        return self._next_time

    @property
    def newest(self) -> MemoryEntry:
        """What the last tracked frame left behind."""
        return self._recent[-1]

    @property
    def nbytes(self) -> int:
        """Bytes held on the device, counted by storage so that a view into something larger shows."""
        entries = [*self._conditioning, *self._recent, *self._first]
        pointers = [*self._pointers, *self._first_pointers, *(entry.pointer for entry in entries)]
        tensors = [*(entry.spatial_nc for entry in entries), *(pointer.vector_c for pointer in pointers)]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def condition(self, entry: MemoryEntry) -> None:
        """Take the next frame as a conditioning frame; beyond the cap the oldest but the first is forgotten."""
        assert entry.time == self._next_time
        self._conditioning.append(entry)
        if len(self._conditioning) > self._span.conditioning:
            del self._conditioning[1]
        self._next_time += 1

    def remember(self, entry: MemoryEntry) -> None:
        """Take the next frame as a tracked one."""
        assert entry.time == self._next_time
        self._recent.append(entry)
        self._pointers.append(entry.pointer)
        if self._keeps_beginning and len(self._first) < self._span.spatial:
            self._first.append(entry)
        if self._keeps_beginning and len(self._first_pointers) < self._span.pointers:
            self._first_pointers.append(entry.pointer)
        self._next_time += 1

    def recall(self) -> Recollection:
        """What the next frame is to be compared with.

        Ages are counted on the clock: a conditioning frame in between uses up a place of the window, as in the published model.
        """
        assert self._conditioning, "a track starts with a conditioning frame"
        now = self._next_time
        recent = [entry for entry in self._recent if now - entry.time <= self._span.spatial]
        pointers = [pointer for pointer in reversed(self._pointers) if now - pointer.time <= self._span.pointers]
        pointers = [entry.pointer for entry in self._conditioning] + pointers
        return Recollection(
            spatial=tuple(entry.spatial_nc for entry in [*self._conditioning, *recent]),
            spatial_ages=(0,) * len(self._conditioning) + tuple(now - entry.time for entry in recent),
            pointers=tuple(pointer.vector_c for pointer in pointers),
            pointer_ages=tuple(now - pointer.time for pointer in pointers),
        )

    def forget_beginning(self) -> None:
        """Keep no more than what the next frames need; it cannot be :meth:`reversed` any more."""
        self._keeps_beginning = False
        self._first.clear()
        self._first_pointers.clear()

    @classmethod
    def starting(cls, span: MemorySpan, start: MemoryEntry, reversible: bool = False) -> Sam2Track:
        """A track whose first frame, at time 0, is a conditioning frame; only a reversible one can be :meth:`reversed`."""
        track = cls(span, reversible)
        track.condition(start)
        return track

    def reversed(self) -> Sam2Track:
        """A track that runs back in time from the first frame of this one, knowing the frames after it.

        Its clock runs against the other one's. The nearest frames count, and those are the first ones of the way forwards.
        """
        assert self._keeps_beginning, "a track that was begun as reversible"
        start, track = self._conditioning[0], Sam2Track(self._span)
        track._conditioning.append(MemoryEntry(start.spatial_nc, _mirrored(start.pointer)))
        track._recent.extend(MemoryEntry(each.spatial_nc, _mirrored(each.pointer)) for each in reversed(self._first))
        track._pointers.extend(_mirrored(each) for each in reversed(self._first_pointers))
        track._next_time = 1 - start.time
        return track


def _mirrored(pointer: ObjectPointer) -> ObjectPointer:
    return ObjectPointer(-pointer.time, pointer.vector_c)
