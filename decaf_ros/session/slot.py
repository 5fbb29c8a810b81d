"""Room for one thing between two threads."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Slot(Generic[T]):
    """A queue of one, in which the newest wins: a reader who falls behind skips what is old, instead of being late with all.

    Attributes:
        superseded: how many were replaced before anybody took them.
    """

    def __init__(self) -> None:
        self.superseded = 0
        self._content: T | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, content: T) -> None:
        """Offer something in place of what waits; a closed slot takes nothing."""
        with self._changed:
            if self._closed:
                return
            if self._content is not None:
                self.superseded += 1
            self._content = content
            self._changed.notify()

    def take(self) -> T | None:
        """Wait for something and take it; ``None`` when the slot is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._content is not None or self._closed)
            content, self._content = self._content, None
            return content

    def close(self) -> None:
        """Throw away what waits, and let no reader wait any more."""
        with self._changed:
            self._closed, self._content = True, None
            self._changed.notify_all()

    def open(self) -> None:
        """Take things again."""
        with self._changed:
            self._closed = False
