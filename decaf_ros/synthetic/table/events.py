"""What happened, judged by physics alone: contacts, heights, speeds and angles of a recording, never the script."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import BoolArray
from decaf_ros.synthetic.table.catalogue import KINDS
from decaf_ros.synthetic.table.recording import Recording, Touch
from decaf_ros.synthetic.table.scene import ASPECT, Scene
from decaf_ros.synthetic.table.shapes import Shape

Float64Array = npt.NDArray[np.float64]
LIFTED_METRES = 0.03  # that a thing has risen when it counts as picked up
PUSHED_METRES = 0.04  # that it has gone along the table when it counts as pushed
LEVEL_METRES = 0.02  # that it rises or sinks on the way at most
FALL_METRES = 0.02  # that it still falls after it is let go, at most, when it counts as put down
_SLOW = 0.015  # metres a second: at rest below
_STANDS, _LIES = math.radians(12), math.radians(60)
_FLICKER_S, _PAUSE_S, _LANDING_S = 0.1, 0.25, 1.0
_IN_FRAME = 0.8  # share of a thing inside the image when it counts as in view


class EventKind(Enum):
    """What can happen to a thing."""

    PICKED_UP = "picked up"
    PUT_DOWN = "put down"
    DROPPED = "dropped"
    PUSHED = "pushed"
    FELL_OVER = "fell over"
    BROUGHT_INTO_VIEW = "brought into view"
    TAKEN_AWAY = "taken away"


@dataclass(frozen=True)
class Event:
    """Something happened to a thing.

    Attributes:
        kind: what.
        thing: index of the thing.
        start_s, end_s: from when to when it took place: a lift to its first 3 cm; from touching the table until the fingers
            left; a push from its first to its last motion; a fall from upright to lying; a way into or out of the image.
    """

    kind: EventKind
    thing: int
    start_s: float
    end_s: float


class History:
    """The truth about a recording.

    *Held* is what both fingers touch while neither table nor floor does; a contact that flickers for a tenth of a second does
    not count as lost.

    Args:
        recording: what was simulated.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.times_s = recording.times_s
        self._step = float(self.times_s[1] - self.times_s[0])
        touches = recording.touches_tn
        gripped = (touches & Touch.LEFT > 0) & (touches & Touch.RIGHT > 0) & (touches & Touch.GROUND == 0)
        self.held_tn: BoolArray = np.stack([self._closed(column, _FLICKER_S) for column in gripped.T], axis=1)
        self.touched_tn: BoolArray = touches & Touch.ARM > 0

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """All that happened, in the order of their ends."""
        found = [event for thing in range(self.held_tn.shape[1]) for event in self._events_of(thing)]
        return tuple(sorted(found, key=lambda event: (event.end_s, event.thing)))

    def events_within(self, kind: EventKind, start_s: float, end_s: float) -> list[Event]:
        """Those of a kind that began and ended between two times."""
        return [event for event in self.events if event.kind is kind and event.start_s >= start_s and event.end_s <= end_s]

    def touches_of(self, kind: EventKind, start_s: float, end_s: float) -> set[int]:
        """Things to which one of a kind happened between two times at least in part."""
        return {
            event.thing for event in self.events if event.kind is kind and event.start_s <= end_s and event.end_s >= start_s
        }

    def held_at(self, time_s: float, seconds: float = 0.3) -> list[int]:
        """Things that are held at a time, and were for so long."""
        last = self._index(time_s)
        first = max(0, last - round(seconds / self._step))
        return np.flatnonzero(self.held_tn[first : last + 1].all(axis=0)).tolist()

    def held_within(self, start_s: float, end_s: float) -> BoolArray:
        """``(things,)``: held at any time between two."""
        return np.asarray(self.held_tn[self._index(start_s) : self._index(end_s) + 1].any(axis=0), dtype=np.bool_)

    def touched_within(self, start_s: float, end_s: float) -> BoolArray:
        """``(things,)``: touched by the arm at any time between two."""
        return np.asarray(self.touched_tn[self._index(start_s) : self._index(end_s) + 1].any(axis=0), dtype=np.bool_)

    def moved_metres(self, start_s: float, end_s: float) -> Float64Array:
        """``(things,)``: the farthest that each was from where it stood at the first of two times, until the second."""
        track = self._recording.middles_tn3[self._index(start_s) : self._index(end_s) + 1]
        farthest: Float64Array = np.linalg.norm(track - track[0], axis=-1).max(axis=0)
        return farthest

    def tilted_within(self, start_s: float, end_s: float) -> Float64Array:
        """``(things,)``: how much the tilt of each changed between two times, in radians, at most."""
        tilts = self._recording.tilts_tn[self._index(start_s) : self._index(end_s) + 1]
        changed: Float64Array = tilts.max(axis=0) - tilts.min(axis=0)
        return changed

    @cached_property
    def in_frame_tn(self) -> Float64Array:
        """``(T', things)``: :func:`in_frame` ten times a second."""
        recording = self._recording
        times = self.times_s[:: self._stride].tolist()
        return np.stack([in_frame(recording.scene, recording.shapes, recording.poses_at(t), t) for t in times])

    def _events_of(self, thing: int) -> Iterator[Event]:
        for first, last in _runs(self.held_tn[:, thing]):
            yield from self._events_of_hold(thing, first, last)
        yield from self._pushes(thing)
        if KINDS[self._recording.scene.things[thing].kind].upright:
            yield from self._falls(thing)

    def _events_of_hold(self, thing: int, first: int, last: int) -> Iterator[Event]:
        """Of one time in the gripper, from its first tick to its last."""
        heights = self._recording.middles_tn3[:, thing, 2]
        risen = np.flatnonzero(heights[first : last + 1] >= heights[first] + LIFTED_METRES)
        if len(risen) == 0:
            return  # gripped, not lifted
        yield self._event(EventKind.PICKED_UP, thing, first, first + int(risen[0]))
        if last < len(self.times_s) - 1:
            landed = min(len(self.times_s) - 1, last + round(_LANDING_S / self._step))
            free = np.flatnonzero(~self.touched_tn[last + 1 :, thing])
            left = last + 1 + int(free[0]) if len(free) else len(self.times_s) - 1
            fell = heights[last] - heights[last : max(landed, left) + 1].min() > FALL_METRES
            if fell:
                yield self._event(EventKind.DROPPED, thing, last, landed)
            elif len(free):  # else the fingers are still around it
                yield self._event(EventKind.PUT_DOWN, thing, last, left)
        yield from self._ways_through_the_frame(thing, first, last)

    def _ways_through_the_frame(self, thing: int, first: int, last: int) -> Iterator[Event]:
        begin, end = first // self._stride, last // self._stride
        shares = self.in_frame_tn[begin : end + 1, thing]
        if shares[0] >= _IN_FRAME and shares[-1] == 0.0:
            inside = int(np.flatnonzero(shares >= _IN_FRAME)[-1])
            outside = int(np.flatnonzero(shares > 0)[-1]) + 1
            yield self._event(EventKind.TAKEN_AWAY, thing, (begin + inside) * self._stride, (begin + outside) * self._stride)
        if shares[0] == 0.0 and shares[-1] >= _IN_FRAME:
            outside, inside = int(np.flatnonzero(shares > 0)[0]) - 1, int(np.flatnonzero(shares >= _IN_FRAME)[0])
            yield self._event(
                EventKind.BROUGHT_INTO_VIEW, thing, (begin + outside) * self._stride, (begin + inside) * self._stride
            )

    def _pushes(self, thing: int) -> Iterator[Event]:
        """Ways along the table; one on which a thing falls over is a fall."""
        kind = KINDS[self._recording.scene.things[thing].kind]
        positions = self._recording.middles_tn3[:, thing, :2]
        speeds = np.linalg.norm(np.gradient(positions, self._step, axis=0), axis=1)
        moving = self._closed((speeds > _SLOW) & ~self.held_tn[:, thing], _PAUSE_S)
        for first, last in _runs(moving):
            stands = kind.upright and float(self._recording.tilts_tn[first, thing]) < _STANDS
            way = float(np.linalg.norm(positions[first : last + 1] - positions[first], axis=1).max())
            tipped = float(self._recording.tilts_tn[first : last + 1, thing].max()) > _LIES and stands
            run = slice(first, last + 1)
            along = np.ptp(self._recording.middles_tn3[run, thing, 2]) < LEVEL_METRES and not self.held_tn[run, thing].any()
            if way >= PUSHED_METRES and along and not tipped and self.touched_tn[run, thing].any():
                yield self._event(EventKind.PUSHED, thing, first, last)

    def _falls(self, thing: int) -> Iterator[Event]:
        tilts = self._recording.tilts_tn[:, thing]
        stood: int | None = None
        for tick, tilt in enumerate(tilts):
            if self.held_tn[tick, thing]:
                stood = None
            elif tilt < _STANDS:
                stood = tick
            elif tilt > _LIES and stood is not None:
                yield self._event(EventKind.FELL_OVER, thing, stood, tick)
                stood = None

    @property
    def _stride(self) -> int:
        return max(1, round(0.1 / self._step))

    def _event(self, kind: EventKind, thing: int, first: int, last: int) -> Event:
        last = min(last, len(self.times_s) - 1)
        return Event(kind, thing, float(self.times_s[first]), float(self.times_s[last]))

    def _index(self, time_s: float) -> int:
        return int(np.clip(round(time_s / self._step), 0, len(self.times_s) - 1))

    def _closed(self, flags: BoolArray, seconds: float) -> BoolArray:
        """The flags with gaps of up to so many seconds filled."""
        closed = flags.copy()
        longest = round(seconds / self._step)
        for (_, last), (following, _) in zip(runs := list(_runs(flags)), runs[1:], strict=False):
            if following - last - 1 <= longest:
                closed[last:following] = True
        return closed


def _runs(flags: BoolArray) -> Iterator[tuple[int, int]]:
    """First and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        yield int(first), int(after) - 1


def in_frame(scene: Scene, shapes: Sequence[Shape], poses_n44: Float64Array, time_s: float) -> Float64Array:
    """``(things,)``: share of each thing's surface points inside the camera's image, whatever hides them."""
    pose = scene.camera.world_from_camera(time_s)
    limits = math.tan(0.5 * scene.camera.fov_y) * np.array([ASPECT, 1.0])
    shares = []
    for thing, shape in zip(poses_n44, shapes, strict=True):
        vertices = shape.mesh.vertices_n3[:: max(1, len(shape.mesh.vertices_n3) // 60)]
        points = (vertices @ thing[:3, :3].T + thing[:3, 3] - pose[:3, 3]) @ pose[:3, :3]
        inside = (points[:, 2] > 0) & (np.abs(points[:, :2]) < limits * points[:, 2:]).all(axis=1)
        shares.append(float(inside.mean()))
    return np.array(shares)
