"""Sends what services answer, so that clients that have gone hold up neither others nor the node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Fast DDS waits 0.1 s for a client that went away before its request was taken; rclpy holds the interpreter's lock meanwhile.
_SLOW_SECONDS = 0.05
_REST_SECONDS = 0.3
_LAST_SECONDS = 1.0


class Postman:
    """A thread that sends answers. After one that was slow to go it rests, while the node works and takes more requests.

    Who has gone may have left hundreds of requests behind. So the newest answer goes first: its client was there a moment ago.
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._answers: list[Callable[[], None]] = []
        self._closed_at: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="decaf-postman", daemon=True)
        self._thread.start()

    def post(self, send: Callable[[], None]) -> None:
        """Have an answer sent; what goes wrong is appended to ``errors``."""
        with self._changed:
            self._answers.append(send)
            self._changed.notify()

    def close(self) -> None:
        """Send what is left, for a second at most."""
        with self._changed:
            self._closed_at = time.monotonic()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (send := self._next()) is not None:
            began = time.monotonic()
            try:
                send()
            except Exception as error:
                self.errors.append(error)
            if time.monotonic() - began > _SLOW_SECONDS:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed_at is not None, _REST_SECONDS)

    def _next(self) -> Callable[[], None] | None:
        """Waits for an answer; ``None`` when there will be no more, or no time for more."""
        with self._changed:
            self._changed.wait_for(lambda: self._answers or self._closed_at is not None)
            over = self._closed_at is not None and time.monotonic() > self._closed_at + _LAST_SECONDS
            return self._answers.pop() if self._answers and not over else None
