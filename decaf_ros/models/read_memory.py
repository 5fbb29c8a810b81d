"""What a language model has read of key frames, kept for the next question: gone with the frames, and within a budget."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from decaf_ros.datatypes import Frame


@dataclass(frozen=True, eq=False)
class _Entry:
    what: Any
    nbytes: int
    stamp_ns: int
    frames: tuple[weakref.ref[Frame], ...]


class ReadMemory:
    """Readings by the frames that they are of. Of one model with one set of options. Thread-safe.

    It holds no frame: when one goes, what was read of it goes, too.

    Args:
        budget_bytes: most that is kept; what is of the oldest frames goes first. With 0 nothing is.
    """

    def __init__(self, budget_bytes: int = 0) -> None:
        self.budget_bytes = budget_bytes
        self._entries: dict[tuple[Hashable, tuple[int, ...]], _Entry] = {}
        self._lock = threading.RLock()  # a frame may go, and call back, while the lock is held

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        with self._lock:
            return sum(entry.nbytes for entry in self._entries.values())

    def get(self, how: Hashable, frames: tuple[Frame, ...]) -> Any | None:
        """What was read of these very frames, in one way of reading; ``None`` for nothing that is kept."""
        with self._lock:
            entry = self._entries.get((how, _identities(frames)))
        return entry.what if entry is not None else None

    def put(self, how: Hashable, frames: tuple[Frame, ...], what: Any, nbytes: int) -> None:
        """Keep what was read of frames, if the budget has room for it beside what is of newer ones."""
        if nbytes > self.budget_bytes:
            return
        key = how, _identities(frames)

        def forget(_: weakref.ref[Frame]) -> None:
            with self._lock:
                self._entries.pop(key, None)

        # The references go with the entry; numbers of frames that went are given out again, but not before they called back.
        entry = _Entry(what, nbytes, frames[-1].stamp_ns, tuple(weakref.ref(frame, forget) for frame in frames))
        with self._lock:
            self._entries[key] = entry
            while self.nbytes > self.budget_bytes:
                del self._entries[min(self._entries, key=lambda each: self._entries[each].stamp_ns)]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


def _identities(frames: tuple[Frame, ...]) -> tuple[int, ...]:
    return tuple(id(frame) for frame in frames)
