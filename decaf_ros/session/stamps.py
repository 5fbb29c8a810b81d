"""When a camera's time starts anew, rather than an image coming late."""

from __future__ import annotations

# Late stamps in a row, each newer than the one before: a bag shorter than time_jump_seconds that starts over, rather than
# images that were overtaken on their way.
_LATE_FOR_A_START = 5


class StampWatch:
    """Watches the stamps of one stream."""

    def __init__(self) -> None:
        self._newest_ns: int | None = None
        self._late_ns: list[int] = []

    def starts_anew(self, stamp_ns: int, time_jump_seconds: float) -> bool:
        """Note a stamp. Whether it is so far behind the newest, or goes on from so many late ones, that time starts anew.

        Args:
            stamp_ns: of the image that came.
            time_jump_seconds: how far behind one alone must be.
        """
        if self._newest_ns is None or stamp_ns >= self._newest_ns:
            self._newest_ns = stamp_ns
            self._late_ns.clear()
            return False
        if not self._late_ns or stamp_ns > self._late_ns[-1]:
            self._late_ns.append(stamp_ns)
        if self._newest_ns - stamp_ns <= time_jump_seconds * 1e9 and len(self._late_ns) < _LATE_FOR_A_START:
            return False
        self.start(stamp_ns)
        return True

    def start(self, stamp_ns: int | None = None) -> None:
        """Forget all but one stamp, or all."""
        self._newest_ns = stamp_ns
        self._late_ns.clear()
