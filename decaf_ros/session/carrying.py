"""What was found in the past is carried to the present, in a time that is bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from decaf_ros.models.protocols import ObjectTrack, TrackOutput
from decaf_ros.session.frames import StoredFrame

_FEWEST_STEPS = 8  # however long one takes: an object must not go far from one to the next


class Pace:
    """Chooses the frames that there is time for, and learns from each step what one takes. Eight are taken in any case.

    Args:
        seconds: what all steps may take together.
        clock: seconds.

    Attributes:
        skipped: frames that were left out so far.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.skipped = 0
        self._clock = clock
        self._began = clock()
        self._ends = self._began + seconds
        self._steps = 0

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._clock() >= self._ends

    def chosen(self, passed: Sequence[StoredFrame]) -> Iterator[StoredFrame]:
        """Some of the frames that passed, in order: each for a step that is done before the next one is asked for.

        They are evenly spaced and fit into half of the time that is left, since others pass meanwhile. The newest is always
        among them.
        """
        until = (self._clock() + self._ends) / 2
        index = 0
        while index < len(passed):
            left = len(passed) - index
            stride = math.ceil(left / self._fitting(until, left))
            index += stride
            self.skipped += stride - 1
            yield passed[index - 1]
            self._steps += 1

    def _fitting(self, until: float, most: int) -> int:
        """How many steps to take: as many as there is time for, and all before it is known what they take."""
        now = self._clock()
        taken = now - self._began
        if not self._steps or taken <= 0:
            return most
        return min(most, max(1, _FEWEST_STEPS - self._steps, round((until - now) * self._steps / taken)))


def carry(
    tracks: Sequence[ObjectTrack], passed: Iterable[StoredFrame], masks: list[TrackOutput], check: Callable[[], None]
) -> list[TrackOutput]:
    """Step tracks over frames, by the mask model that both are of: the session may have another one by now.

    Args:
        tracks: what is carried.
        passed: frames after the one that the tracks are at, oldest first.
        masks: where they are there.
        check: called before each step; raises to abandon the work.

    Returns:
        Where they are on the last frame.
    """
    for stored in passed:
        check()
        masks = stored.tracker.step(tracks, stored.features())
    return masks
