"""What was asked for and is not there yet is looked for until it comes, by few and cheap looks for all who wait."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import NamedTuple

from decaf_ros.datatypes import Float32Array, Frame
from decaf_ros.session import scene
from decaf_ros.session.errors import NotThereError, SessionError
from decaf_ros.session.frames import StoredFrame, window_of
from decaf_ros.session.jobs import Job, Look, Patience
from decaf_ros.session.tasks.task import Activity, Desk

_CHANGED = 0.03  # of the range of colours, in a cell of the image: more than a camera's noise
_FIRST_PAUSE_SECONDS, _PAUSE_GROWTH = 0.5, 1.5
_LARGEST_SHARE_OF_WINDOWS = 0.1  # of the worker's time


class _Seen(NamedTuple):
    """A key frame, which it does not keep: what was read of it is kept for as long."""

    frame: weakref.ref[Frame]
    thumbnail: Float32Array


class StandingQueries:
    """Asks queries again that could not be answered yet; most looks are in vain, and all queries share one.

    The newest key frame is read once, and every sentence is asked of it, in one pass, whether there is such a thing. Only where
    it says yes, the query itself is asked, about what has been seen from then on, and the newest frame must say so, too.
    When the scene has changed and come to rest, all are asked of the whole window once: no single image shows what has
    happened.

    While the scene changes, each new key frame is looked at, in half of the worker's time at most; while it does not, after
    pauses that grow.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._likely: list[Job] = []
        self._looked: _Seen | None = None
        self._newest: _Seen | None = None
        self._at_rest = 0  # looks in a row that found the scene as it was
        self._happened = False  # something, since the whole window was looked at
        self._ended = self._rested = self._windows_rested = -math.inf

    def due_in(self) -> float:
        """See :class:`~decaf_ros.session.tasks.task.Task`."""
        standing = self._desk.queue.standing
        if not standing:
            self._likely.clear()
            return math.inf
        now = self._desk.clock()
        over_in = min(_patience(job).until for job in standing) - now
        return min(over_in, 0.0 if self._likely else self._look_due_in(now))

    def step(self) -> None:
        """Tell whose time is over; else look, and at once ask one that may be answered by now."""
        now = self._desk.clock()
        standing = self._desk.queue.standing
        over = [job for job in standing if _patience(job).until <= now]
        for job in over:
            if self._desk.queue.take_up(job):
                self._desk.queue.fail(job, _in_vain(_patience(job)))
        self._likely = [job for job in self._likely if job in standing and job not in over]
        if over:
            return
        if not self._likely and self._look_due_in(now) <= 0:
            self._look(standing)
        if self._likely:
            self._ask(self._likely.pop(0))

    # --- the query itself ---

    def _ask(self, job: Job) -> None:
        if not self._desk.queue.take_up(job):
            return
        patience = _patience(job)
        before = patience.reason
        self._desk.answer(job)
        if job not in self._desk.queue.standing:  # it was answered, well or not
            return
        if patience.reason is not before:
            patience.refusals += 1
            patience.rests_until = self._desk.clock() + self._pause(patience.refusals - 1)
        elif self._desk.queue.waiting:  # it made way
            self._likely.append(job)
        else:  # the stream has begun anew, or the models are being changed
            self._looked = None

    # --- whether to ask it ---

    def _look_due_in(self, now: float) -> float:
        """Seconds until the newest key frame is to be looked at; infinite where it has been, or cannot be."""
        key_frames = self._desk.session.key_frames
        if not key_frames or self._desk.grounder is None:
            return math.inf
        frame = key_frames[-1].frame
        if self._looked is not None and self._looked.frame() is frame:
            return math.inf
        due = self._rested if self._has_changed(frame) else max(self._rested, self._ended + self._pause(self._at_rest))
        return due - now

    def _look(self, standing: Sequence[Job]) -> None:
        session, began = self._desk.session, self._desk.clock()
        clip: Sequence[StoredFrame] = session.key_frames[-session.config.key_frames :]
        if not clip:  # forgotten meanwhile
            return
        frame = clip[-1].frame
        changed = self._has_changed(frame)
        whole = not changed and self._happened and began >= self._windows_rested
        if not whole:
            clip = clip[-1:]
        if not self._desk.keep_up(
            Job(0, "", lambda _: self._look_at(clip, standing, whole), makes_way=True), "standing queries could not be asked"
        ):
            return
        self._ended = self._desk.clock()
        took = self._ended - began
        self._looked = self._see(frame)
        self._at_rest = 0 if changed else self._at_rest + 1
        if whole:
            self._happened = False
            self._windows_rested = self._ended + took / _LARGEST_SHARE_OF_WINDOWS
        else:
            self._happened |= changed
            self._rested = self._ended + took

    def _look_at(self, clip: Sequence[StoredFrame], standing: Sequence[Job], whole: bool) -> None:
        grounder = self._desk.grounder
        if grounder is None:
            return
        self._desk.activity = Activity("looking for what is to come")
        window = window_of(list(clip))
        presences = grounder.attention.presences(window, [job.expression for job in standing])
        now = self._desk.clock()
        for job, presence in zip(standing, presences, strict=True):
            if job.given_up:
                continue
            patience = _patience(job)
            patience.last_look = Look(window.frames[-1].stamp_ns, presence)
            self._desk.teller.tell(patience.on_look, patience.last_look)
            if presence < grounder.config.min_presence:
                patience.refusals = 0
            elif now >= patience.rests_until:
                patience.since_ns = None if whole else window.frames[-1].stamp_ns
                self._likely.append(job)

    def _pause(self, looks: int) -> float:
        """After so many looks in vain."""
        longest = self._desk.session.config.standing_longest_pause_seconds
        return min(_FIRST_PAUSE_SECONDS * _PAUSE_GROWTH ** min(looks, 100), longest)

    def _has_changed(self, frame: Frame) -> bool:
        """Whether the scene is another than at the last look."""
        return self._looked is None or scene.change(self._looked.thumbnail, self._see(frame).thumbnail) >= _CHANGED

    def _see(self, frame: Frame) -> _Seen:
        """The newest key frame, which is looked at again and again."""
        if self._newest is None or self._newest.frame() is not frame:
            self._newest = _Seen(weakref.ref(frame), scene.thumbnail(frame.image_rgb))
        return self._newest


def _patience(job: Job) -> Patience:
    assert job.patience is not None, "who has none does not stand"
    return job.patience


def _in_vain(patience: Patience) -> SessionError:
    """What to tell whoever has waited for nothing."""
    waited, reason = f"waited {patience.seconds:g} s in vain", patience.reason
    if isinstance(reason, NotThereError):
        presence = patience.last_look.presence if patience.last_look is not None else reason.presence
        return NotThereError(f"{waited}: {reason}", presence, reason.guess)
    return type(reason)(f"{waited}: {reason}") if reason is not None else SessionError(f"{waited}: it could not be asked")
