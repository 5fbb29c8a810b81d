"""Tables that are shown one after another in step with a clock, the next one prepared while the one before is shown."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.synthetic.table.live import LiveTable
from decaf_ros.synthetic.table.scene import Scene
from decaf_ros.text import with_kind

_LONGEST_LEAP_S = 5.0  # that a table lives at once to be in step again; beyond, as after a suspension, its time stood still
_SCENES_KEPT = 1000
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What a table is made of: a scene, or a seed, whose first scene that comes off is taken.

    Attributes:
        name: what it is called.
        scene: or seed.
    """

    name: str
    scene: Scene | int


@dataclass(frozen=True, eq=False)
class Showing:
    """A table that is shown.

    Attributes:
        name: of its source.
        table: itself.
        stamp_ns, time_s: a moment of the clock, and which time of the scene that is.
    """

    name: str
    table: LiveTable
    stamp_ns: int
    time_s: float

    def time_at(self, stamp_ns: int) -> float:
        """Time of the scene, in seconds, at a time of the clock."""
        return self.time_s + (stamp_ns - self.stamp_ns) * 1e-9


class Reel:
    """Tables in step with a clock, prepared on a thread of its own.

    What is shown goes on until the next one is there: drawing a scene that comes off takes some seconds. Threads may share it.

    Args:
        size_hw: of the pictures that will be asked for: what they need is prepared, too.
        seconds: how long each is shown before the next; 0 stays with the first.
        most_apart_s: how far apart looks are at most.
    """

    def __init__(self, size_hw: tuple[int, int], seconds: float = 0.0, most_apart_s: float = 0.0) -> None:
        self._size_hw, self._seconds = size_hw, seconds
        self._longest_leap_s = max(_LONGEST_LEAP_S, 2 * most_apart_s)
        self._pool = ThreadPoolExecutor(1, "decaf-table")
        self._lock = threading.Lock()
        self._sources: Sequence[Source] = ()
        self._number = 0
        self._coming: Future[LiveTable] | None = None
        self._at_once = True
        self._shown: Showing | None = None

    def show(self, sources: Sequence[Source]) -> None:
        """Show other tables, the first one as soon as it is ready, each from its time 0."""
        with self._lock:
            self._sources, self._number, self._at_once = tuple(sources), 0, True
            self._prepare()

    def look(self, stamp_ns: int) -> Showing | None:
        """What is shown at a time of the clock; None before the first is ready. An instance stands for one stretch of time."""
        with self._lock:
            shown = self._shown
            if self._coming is not None and self._coming.done() and (self._at_once or self._is_over(stamp_ns)):
                shown = self._change(self._coming, stamp_ns) or shown
            if shown is not None:
                behind_s = shown.time_at(stamp_ns) - shown.table.time_s
                if not -1.0 <= behind_s <= self._longest_leap_s:  # the clock was set, or all stood still
                    shown = replace(shown, stamp_ns=stamp_ns, time_s=shown.table.time_s)
            self._shown = shown
            return shown

    def close(self) -> None:
        """Prepare nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_over(self, stamp_ns: int) -> bool:
        return self._shown is None or self._shown.time_at(stamp_ns) >= self._seconds

    def _change(self, coming: Future[LiveTable], stamp_ns: int) -> Showing | None:
        name = self._sources[self._number].name
        self._coming = None
        try:
            shown = Showing(name, coming.result(), stamp_ns, 0.0)
        except Exception as error:  # there is another one, or what is shown goes on
            _logger.error(f"no table of {name}: {with_kind(error)}")
            shown = None
        self._at_once = shown is None and self._at_once
        if self._seconds > 0 and (shown is not None or len(self._sources) > 1):
            self._number = (self._number + 1) % len(self._sources)
            self._prepare()
        return shown

    def _prepare(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
        self._coming = self._pool.submit(_table_of, self._sources[self._number], self._size_hw)


def _table_of(source: Source, size_hw: tuple[int, int]) -> LiveTable:
    table = LiveTable(_scene_of(source.scene) if isinstance(source.scene, int) else source.scene)
    table.render(0.0, size_hw)  # the first picture takes longer
    return table


@lru_cache(_SCENES_KEPT)
def _scene_of(seed: int) -> Scene:
    return sample_episode(seed).scene
