"""Key frames are read before anybody asks about them: the least urgent task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.wanted import while_wanted
from decaf_ros.session.busy import BusyShare
from decaf_ros.session.frames import window_of
from decaf_ros.session.jobs import Job, MakingWayError
from decaf_ros.session.tasks.task import Activity, Desk, Task

_LARGEST_SHARE = 0.5  # of the time that is left, when the node decides itself
_LEAST_LEFT = 0.05  # of the time, by that reckoning, however busy the tracker is
_LOOK_AGAIN_SECONDS = 30.0  # where a frame takes longer than the window holds it, or is not kept
_LOOK_ROUND_SECONDS = 0.2  # how often it is looked, while a frame is read, whether there is something more urgent


@dataclass(frozen=True)
class ReadSoFar:
    """How far reading ahead has come.

    Attributes:
        frames: of the window that have been read.
        of: frames that the window has.
        share: of the last seconds that was spent on it.
    """

    frames: int
    of: int
    share: float


class ReadAhead:
    """Has the key frames of the window read, the newest first, one a step, so that a question finds them read.

    Args:
        desk: of the worker.
        more_urgent: tasks that this makes way for.
        tracking: how busy the thread is that follows objects, whose time is not to be taken.
    """

    def __init__(self, desk: Desk, more_urgent: Sequence[Task], tracking: BusyShare) -> None:
        self._desk = desk
        self._more_urgent = more_urgent
        self._tracking = tracking
        self._spent = BusyShare(desk.clock)
        self._tried: WeakSet[Frame] = WeakSet()  # what is not kept is not read again and again
        self._pause_until = -math.inf
        self._looked = -math.inf

    def due_in(self) -> float:
        """See :class:`~decaf_ros.session.tasks.task.Task`."""
        if self._desk.session.config.read_ahead == "off" or self._next() is None:
            return math.inf
        return self._pause_until - self._desk.clock()

    def step(self) -> None:
        """Read the newest frame that has not been read."""
        following = self._next()
        if following is None:
            return
        window, frame = following
        began = self._desk.clock()
        with self._spent.busy():
            job = Job(0, "", lambda job: self._read(job, window, frame), makes_way=True)
            done = self._desk.keep_up(job, "a key frame could not be read ahead")
        now = self._desk.clock()
        self._pause_until = now + self._pause(now - began)
        if done:
            self._tried.add(frame)
            # Of an older frame there may be no room beside newer ones; where the newest is not kept, nothing will be.
            if frame is window.frames[-1] and frame in self._unread(window):
                self._pause_until = now + _LOOK_AGAIN_SECONDS

    @property
    def so_far(self) -> ReadSoFar:
        """How far it has come; any thread may ask."""
        window = self._window()
        unread = len(self._unread(window)) if window is not None else 0
        return ReadSoFar(len(window) - unread if window is not None else 0, len(window or ()), self._spent.share)

    def _pause(self, seconds: float) -> float:
        """After a frame that took so long."""
        config = self._desk.session.config
        if config.read_ahead != "auto":
            return 0.0
        share = _LARGEST_SHARE * max(_LEAST_LEFT, 1.0 - self._tracking.share)
        if seconds / share > config.window_seconds:  # it would be gone before the next one is read
            return max(seconds / share, _LOOK_AGAIN_SECONDS)
        return seconds / share - seconds

    def _next(self) -> tuple[FrameWindow, Frame] | None:
        window = self._window()
        frames = self._unread(window) if window is not None else ()
        frame = next((each for each in reversed(frames) if each not in self._tried), None)
        return (window, frame) if window is not None and frame is not None else None

    def _window(self) -> FrameWindow | None:
        """What a question would be about now, but for the newest frame where that is no key frame."""
        session = self._desk.session
        clip = session.key_frames[-session.config.key_frames :]
        return window_of(list(clip)) if clip else None

    def _unread(self, window: FrameWindow) -> tuple[Frame, ...]:
        grounder = self._desk.grounder
        return grounder.attention.unread(window) if grounder is not None else ()

    def _read(self, job: Job, window: FrameWindow, frame: Frame) -> None:
        grounder = self._desk.grounder
        if grounder is None:
            return
        self._desk.activity = Activity("reading ahead")
        self._looked = self._desk.clock()
        with while_wanted(lambda: self._require_idle(job)):
            grounder.attention.prepare(window, frame)

    def _require_idle(self, job: Job) -> None:
        self._desk.queue.require_wanted(job)
        if self._desk.clock() - self._looked < _LOOK_ROUND_SECONDS:
            return
        self._looked = self._desk.clock()
        if any(task.due_in() <= 0 for task in self._more_urgent):
            raise MakingWayError("there is something more urgent to do")
