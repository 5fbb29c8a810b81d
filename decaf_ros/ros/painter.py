"""A thread for pictures, so that who watches does not slow down what is followed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.logging import get_logger

from decaf_ros.session.slot import Slot
from decaf_ros.text import with_kind

_WARNING_PERIOD_SECONDS = 5.0
_logger = get_logger("decaf_ros")


class Painter:
    """Draws, encodes and publishes on a thread of its own, from :meth:`start` to :meth:`close`; the newest frame wins."""

    def __init__(self) -> None:
        self._orders: Slot[Callable[[], object]] = Slot()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._orders.open()
        self._thread = threading.Thread(target=self._paint, name="decaf-painter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the picture at hand, and take no more, if it was started."""
        self._orders.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def skipped(self) -> int:
        """Frames whose pictures were not begun before those of a newer one came."""
        return self._orders.superseded

    def submit(self, paint: Callable[[], object]) -> None:
        """Have the pictures of a frame made and published, as soon as the thread is free."""
        self._orders.put(paint)

    def _paint(self) -> None:
        while (paint := self._orders.take()) is not None:
            try:
                paint()
            except Exception as error:  # one frame's picture is lost, and nothing else
                _logger.error(f"no picture: {with_kind(error)}", throttle_duration_sec=_WARNING_PERIOD_SECONDS)
