"""What is followed, live: :class:`TrackingSession` puts the camera's stream and the roster of objects together under a lock.

It has no thread of its own. One thread (live) pushes frames, another (the worker) calls the query methods; the lock, which is
never held while a language model runs, keeps them apart.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, HeatMap, ObjectMask, ObjectPrompt, Segmentation, TrackEvent, Visibility
from decaf_ros.method import scoring
from decaf_ros.models.protocols import MaskTracker, TrackOutput
from decaf_ros.session.carrying import Pace, carry
from decaf_ros.session.errors import SessionError
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.objects import NOT_FINITE, FoundObject
from decaf_ros.session.roster import QueryRecord, Roster
from decaf_ros.session.stream import Admission, Counters, Snapshot, Stream

_HANDOVER_FRAMES = 2  # over which objects are carried while no frame is taken


class TrackingSession:
    """Masks for every frame, from SAM 2's streaming memory. Thread-safe.

    Args:
        tracker: the mask model, if there is one yet.
        config: see below.
        clock: seconds, for what it takes to carry objects to the present.

    Attributes:
        config: how frames are kept and objects followed; it may be replaced, but for the size of the window.
    """

    def __init__(
        self,
        tracker: MaskTracker | None,
        config: SessionConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or SessionConfig()
        self._tracker = tracker
        self._clock = clock
        self._stream = Stream(self.config)
        self._roster = Roster()
        self._lock = threading.RLock()
        self._frame_came = threading.Condition(self._lock)

    # --- the live thread ---

    def push(self, frame: Frame) -> Segmentation | None:
        """Follow all objects to a new frame.

        Returns:
            Masks on this frame, or ``None`` when it was dropped: older than the last one, or with the same stamp. A stamp far
            back, a stream of stamps a little back, or another image size are a new start: the window is emptied and
            queries in flight are given up, while objects are followed on.

        Raises:
            SessionError: there is no mask model.
        """
        with self._lock:
            if self._tracker is None:
                raise SessionError("no mask model is loaded, so frames cannot be followed")
            admission = self._stream.admit(frame, self.config.time_jump_seconds)
            if admission is Admission.DROPPED:
                return None
            if admission is Admission.NEW_START:
                self._roster.start_anew(frame)
            stored = StoredFrame(frame, self._tracker)
            segmentation = self._roster.follow(stored)
            self._frame_came.notify_all()
            if self._stream.take(stored):
                self._roster.note_key_frame()
            return segmentation

    # --- the worker ---

    def wait_for_frame(self, timeout_s: float) -> bool:
        """Wait until there is a frame to look at; whether there is."""
        with self._frame_came:
            return self._frame_came.wait_for(lambda: self._stream.newest is not None, timeout_s)

    def begin_query(self, window_seconds: float | None = None) -> Snapshot:
        """The key frames of now; from here on, frames are kept for catching up until :meth:`join` or :meth:`end_query`.

        Args:
            window_seconds: how far back to look; the session's window when ``None``, and never more than that.

        Raises:
            NoFramesError: no frame has come yet.
        """
        with self._lock:
            return self._stream.look_back(self.config, window_seconds)

    def check(self, snapshot: Snapshot) -> None:
        """Raise :class:`SupersededError` if the stream has started anew since the snapshot."""
        self._stream.check(snapshot)

    def end_query(self) -> None:
        """Stop keeping frames for a query, whatever became of it."""
        with self._lock:
            self._stream.stop_keeping()

    def join(
        self,
        snapshot: Snapshot,
        record: QueryRecord,
        found: Sequence[FoundObject],
        replace: bool,
        check: Callable[[], None] = lambda: None,
    ) -> Segmentation:
        """Carry new objects through the frames seen since the snapshot to the newest one, and follow them from there on.

        Args:
            snapshot: what the query looked at.
            record: the query.
            found: the objects, best first; at most ``max_objects`` fit.
            replace: whether all other queries and their objects go.
            check: called before each step; raises when nobody wants the objects any more, and nothing changes then.

        Returns:
            The newest frame with the masks of the new objects.

        Raises:
            SupersededError: the stream started anew meanwhile; nothing has changed then.
        """
        return self._arrive(
            snapshot, found, check, lambda masks: self._roster.adopt(record, found, masks, replace, self.config)
        )

    def rejoin(
        self,
        snapshot: Snapshot,
        record: QueryRecord,
        found: Sequence[FoundObject],
        add_new: bool,
        check: Callable[[], None] = lambda: None,
    ) -> Segmentation:
        """As :meth:`join`, for a query that is known: what it found may be its old objects, which then keep their ids.

        A find where an object is followed well is that object. Any other find is the object in doubt that it looks most like,
        which goes on with the track of the find.

        Args:
            snapshot, found, check: as for :meth:`join`.
            record: takes the place of the query's old one.
            add_new: whether finds that are none of the query's objects become new ones; else they are ignored.

        Returns:
            The newest frame with the masks of all objects of the query.

        Raises:
            SupersededError: the stream started anew meanwhile.
            UnknownIdError: the query was removed meanwhile.
        """
        return self._arrive(
            snapshot, found, check, lambda masks: self._roster.reunite(record, found, masks, add_new, self.config)
        )

    def _arrive(
        self,
        snapshot: Snapshot,
        found: Sequence[FoundObject],
        check: Callable[[], None],
        then: Callable[[list[TrackOutput]], Segmentation],
    ) -> Segmentation:
        """Carry finds to the newest frame, and end under the lock, so that no frame falls in between."""
        tracks = [each.track for each in found]
        masks = [TrackOutput(each.mask_hw, float(each.mask_hw.any())) for each in found]
        pace = self._pace()
        while True:
            with self._lock:
                passed = self._stream.drain(snapshot)
                if len(passed) <= _HANDOVER_FRAMES or pace.is_over:
                    masks = carry(tracks, pace.chosen(passed[-_HANDOVER_FRAMES:]), masks, check)
                    self.counters.catch_up_skipped += pace.skipped + len(passed[:-_HANDOVER_FRAMES])
                    check()  # whoever gives up a query from now on finds that it was answered
                    return then(masks)
            masks = carry(tracks, pace.chosen(passed), masks, check)

    def _pace(self) -> Pace:
        return Pace(self.config.catch_up_seconds, self._clock)

    def add(
        self,
        record: QueryRecord,
        prompt: ObjectPrompt,
        stamp_ns: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Segmentation:
        """Follow an object that somebody points out, on the newest frame or on one of the past that is kept.

        Kept are the frames of about the last second, and key frames. It is carried to the present over the key frames since.

        Args:
            record: of the query that it counts as; its reference stamp becomes that of the frame.
            prompt: where it is.
            stamp_ns: stamp of the frame that the prompt is about; the newest when ``None``.
            check: as for :meth:`join`.

        Returns:
            The newest frame with its mask.

        Raises:
            NoFramesError: no frame has come yet.
            SessionError: no frame with this stamp is kept; the message names the nearest one.
            ValueError: the prompt is not within the image.
        """
        with self._lock:
            snapshot = self._stream.look_at(self.config, stamp_ns)
        first, *later = snapshot.clip
        if stamp_ns is not None and first.frame.stamp_ns != stamp_ns:
            raise SessionError(
                f"no frame of stamp {stamp_ns} ns is kept; the nearest kept one after it is {first.frame.stamp_ns}"
            )
        check()
        track, output = first.tracker.prompt(first.features(), prompt)
        if not math.isfinite(output.presence):
            raise SessionError(NOT_FINITE)
        if not output.mask_hw.any():
            raise SessionError("nothing is where the prompt points: give more points, or a box")
        appearance = first.tracker.appearance(first.features(), output.mask_hw)
        [output] = carry([track], self._pace().chosen(later), [output], check)
        record = dataclasses.replace(record, reference_stamp_ns=first.frame.stamp_ns)
        found = [FoundObject(track, output.presence, output.mask_hw, appearance)]
        return self.join(snapshot, record, found, replace=False, check=check)

    def note_heat_map(self, heat: HeatMap, seen: Sequence[ObjectMask], stored: StoredFrame) -> None:
        """Score the query's objects against a heat map.

        Args:
            heat: of the query.
            seen: masks on the heat map's frame.
            stored: that frame.
        """
        mine = [mask for mask in seen if mask.query_id == heat.query_id and mask.visibility is Visibility.VISIBLE]
        if not mine:
            return
        stack = torch.from_numpy(np.stack([mask.mask_hw for mask in mine]))[:, None]
        consistency = scoring.attention_consistency(stack, torch.from_numpy(heat.values_hw)[None]).tolist()
        appearances = [stored.tracker.appearance(stored.features(), mask.mask_hw) for mask in mine]
        with self._lock:
            ids = [mask.object_id for mask in mine]
            self._roster.compare(list(zip(ids, consistency, appearances, strict=True)), self.config)

    def queries_in_doubt(self) -> tuple[QueryRecord, ...]:
        """Queries with an object that vision has lost or that attention disagrees with, those asked by a sentence only."""
        with self._lock:
            return self._roster.in_doubt(self.config)

    def unsettled_queries(self) -> frozenset[int]:
        """Ids of the queries with an object that is lost, or whose mask was in doubt and has not been confirmed since."""
        with self._lock:
            return self._roster.unsettled()

    def suspects(self) -> bool:
        """Whether the last heat map disagreed with a mask, but not yet so often that its query is in doubt."""
        with self._lock:
            return self._roster.suspects(self.config)

    # --- any thread; these do not wait for the lock, which is held while masks are computed ---

    @property
    def counters(self) -> Counters:
        """What became of all frames."""
        return self._stream.counters

    @property
    def key_frames(self) -> tuple[StoredFrame, ...]:
        """The key frames that are kept, oldest first."""
        return self._stream.key_frames

    @property
    def reacquired(self) -> int:
        """How often an object was found again by its sentence."""
        return self._roster.reacquired

    @property
    def queries(self) -> tuple[QueryRecord, ...]:
        """All queries that were answered and not removed, oldest first."""
        return self._roster.queries

    @property
    def object_ids(self) -> dict[int, int]:
        """Query id by object id, of all objects that are followed."""
        return self._roster.object_ids

    def new_query_id(self) -> int:
        """An id that no query had before."""
        return self._roster.new_query_id()

    # --- any thread ---

    @property
    def latest(self) -> Segmentation | None:
        """The newest frame with its masks; ``None`` before the first."""
        with self._lock:
            return self._roster.latest

    @property
    def newest_key_frame(self) -> tuple[StoredFrame, Segmentation] | None:
        """The newest key frame with its features, and the masks that were published for it.

        ``None`` before the first, and from when objects joined until the next one, unless it was this frame on which they did.
        """
        with self._lock:
            stored, seen = self._stream.newest_key_frame, self._roster.on_key_frame
            return (stored, seen) if stored is not None and seen is not None else None

    def take_events(self) -> tuple[TrackEvent, ...]:
        """What happened to objects since the last call, in order."""
        with self._lock:
            return self._roster.take_events()

    def remove_object(self, object_id: int) -> None:
        """Stop following one object.

        Raises:
            UnknownIdError: there is no such object; the message lists those there are.
        """
        self._roster.require_object(object_id)  # who errs does not wait
        with self._lock:
            self._roster.remove_object(object_id)

    def remove_query(self, query_id: int) -> tuple[int, ...]:
        """Forget a query and stop following its objects, whose ids are returned.

        Raises:
            UnknownIdError: there is no such query; the message lists those there are.
        """
        self._roster.require_query(query_id)  # who errs does not wait
        with self._lock:
            return self._roster.remove_query(query_id)

    def require_room_for_query(self, waiting: int = 0) -> None:
        """Raise :class:`SessionError` unless one more query may be active, beside some that wait."""
        active = len(self.queries)
        if active + waiting >= self.config.max_queries:
            named = f"{active} queries are active" + (f" and {waiting} wait" if waiting else "")
            raise SessionError(f"{named} already (parameter max_queries): remove one, or replace them all")

    def set_tracker(self, tracker: MaskTracker | None) -> None:
        """Use another mask model, or none. What the old one remembers means nothing to it, so this is a :meth:`reset`, too."""
        with self._lock:
            self.reset("another mask model was loaded")
            self._tracker = tracker

    def reset(self, reason: str = "a reset was asked for") -> None:
        """Forget all objects, queries and frames, and give up queries in flight for a reason. Ids are not used again."""
        with self._lock:
            self._stream.forget(reason)
            self._roster.forget()
