"""How busy a thread is with something."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SPAN_SECONDS = 5.0


class BusyShare:
    """What share of the last seconds something took. One thread notes, any may look.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spells: deque[tuple[float, float]] = deque()  # from, until
        self._lock = threading.Lock()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Within this it goes on."""
        began = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._spells.append((began, self._clock()))
                self._drop_old()

    @property
    def share(self) -> float:
        """In 0..1; what goes on at the moment counts once it is over."""
        since = self._clock() - _SPAN_SECONDS
        with self._lock:
            self._drop_old()
            return min(1.0, sum(until - max(began, since) for began, until in self._spells) / _SPAN_SECONDS)

    def _drop_old(self) -> None:
        while self._spells and self._spells[0][1] <= self._clock() - _SPAN_SECONDS:
            self._spells.popleft()
