"""Who hears of results, and how they are told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from decaf_ros.datatypes import HeatMap, Segmentation, TrackEvent
from decaf_ros.text import with_kind

_QUIET_SECONDS = 60.0  # until the same trouble is told again

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears of results. Every method is called from one of the engine's threads and must not block for long.

    What goes wrong in one of them is logged, and holds up nothing.
    """

    def on_segmentation(self, segmentation: Segmentation) -> None:
        """A frame was followed (live thread)."""

    def on_heat_map(self, heat: HeatMap) -> None:
        """A heat map was computed (worker)."""

    def on_events(self, events: Sequence[TrackEvent]) -> None:
        """Objects were found, lost, seen again, re-acquired or removed (any thread that uses the engine)."""

    def on_rejected_frame(self, reason: str) -> None:
        """A frame could not be decoded or followed (live thread)."""


class Teller:
    """Tells a listener, and the log of what goes wrong: neither may cost a query its answer or a thread its life.

    Attributes:
        listener: who hears of results.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._said = ("", 0.0)

    def tell(self, hear: Callable[[T], None], what: T) -> None:
        """Let the listener, or somebody else, hear of something."""
        try:
            hear(what)
        except Exception as error:
            self.complain(f"{getattr(hear, '__qualname__', hear)} failed", error)

    def tell_events(self, events: Sequence[TrackEvent]) -> None:
        """Let the listener hear what happened to objects, if anything did."""
        if events:
            self.tell(self.listener.on_events, events)

    def complain(self, trouble: str, error: Exception) -> None:
        """Log what goes wrong, once a minute as long as it is the same: it may do so on every frame."""
        cause = f"{trouble}: {with_kind(error)}"
        said, quiet_until = self._said
        if cause != said or time.monotonic() >= quiet_until:
            self._said = cause, time.monotonic() + _QUIET_SECONDS
            expected = isinstance(error, ValueError)  # something that models or settings cannot do
            logger.log(logging.WARNING if expected else logging.ERROR, "%s", cause, exc_info=not expected)
