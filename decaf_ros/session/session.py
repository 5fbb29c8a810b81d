"""The fast path: every new frame becomes masks, and objects that a query found join the ones already followed.

:class:`TrackingSession` has no thread of its own. One thread (live) calls :meth:`~TrackingSession.push`, another (the worker)
calls the query methods; a lock that is never held while a language model runs keeps them apart.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import EventKind, Frame, HeatMap, ObjectMask, ObjectPrompt, Segmentation, TrackEvent, Visibility
from decaf_ros.method import scoring
from decaf_ros.models.protocols import MaskTracker, ObjectTrack, TrackOutput
from decaf_ros.session.frames import CatchUpBuffer, KeyFrameBuffer, StoredFrame, uniform_selection
from decaf_ros.session.objects import NOT_FINITE, FoundObject, LiveObject, recognise
from decaf_ros.session.stamps import StampWatch

LARGEST_OBJECT_ID = 65535
_MAX_CATCH_UP_ROUNDS = 8
_HANDOVER_FRAMES = 2
_WARNING_PERIOD_SECONDS = 5.0

logger = logging.getLogger(__name__)


class SessionError(Exception):
    """A request that cannot be met; the message names the cause and the way out."""


class NoFramesError(SessionError):
    """A query came before any frame."""


class SupersededError(SessionError):
    """The world that a query looked at is gone: a reset, a jump of the stamps, another image size."""


class UnknownIdError(SessionError):
    """No object or query has this id."""


@dataclass(frozen=True)
class QueryRecord:
    """One answered query.

    Attributes:
        query_id: permanent, from 1 on.
        expression: the sentence as asked; "" for an object that was pointed out, of which no heat map can be made.
        object_name: the label the language model gave; "" for none.
        reference_stamp_ns: stamp of the newest key frame that it looked at.
        confident: false when no tracklet passed the threshold and the best was taken.
    """

    query_id: int
    expression: str
    object_name: str
    reference_stamp_ns: int
    confident: bool


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a query looks at: key frames, oldest first, of one epoch of the stream."""

    clip: tuple[StoredFrame, ...]
    epoch: int


@dataclass
class Counters:
    """Frames since the start, by fate."""

    processed: int = 0
    late: int = 0
    repeated: int = 0
    discontinuities: int = 0
    catch_up_skipped: int = 0
    reacquired: int = 0


@dataclass(eq=False)
class _State:
    objects: list[LiveObject] = field(default_factory=list)
    queries: dict[int, QueryRecord] = field(default_factory=dict)
    latest: Segmentation | None = None
    newest: StoredFrame | None = None
    catch_up: CatchUpBuffer | None = None


class TrackingSession:
    """Masks for every frame, from SAM 2's streaming memory; owns the frame window and all objects. Thread-safe."""

    def __init__(self, tracker: MaskTracker | None, config: SessionConfig | None = None) -> None:
        self.config = config or SessionConfig()
        self.counters = Counters()
        self._tracker = tracker
        self._lock = threading.RLock()
        self._frame_came = threading.Condition(self._lock)
        self._window = KeyFrameBuffer(self.config.window_seconds, self.config.window_hz)
        self._state = _State()
        self._epoch = 0
        self._epoch_reason = ""
        self._next_object_id = 1
        self._query_ids = itertools.count(1)
        # Made anew with each change: whoever asks does not wait for the lock, which is held while masks are computed.
        self._overview: tuple[tuple[QueryRecord, ...], dict[int, int]] = ((), {})
        self._events: list[TrackEvent] = []
        self._stamps = StampWatch()
        self._silent_until = 0.0

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
            tracker = self._tracker
            if tracker is None:
                raise SessionError("no mask model is loaded, so frames cannot be followed")
            if not self._admit(frame):
                return None
            stored = StoredFrame(frame, tracker)
            objects = self._state.objects
            outputs = tracker.step([each.track for each in objects], stored.features()) if objects else []
            before = [each.lost_since_ns is None for each in objects]
            seen = tuple(each.seen(frame, output) for each, output in zip(objects, outputs, strict=True))
            for each, was_seen in zip(objects, before, strict=True):
                if was_seen != (each.lost_since_ns is None):
                    self._events.append(each.event(EventKind.LOST if was_seen else EventKind.SEEN_AGAIN, frame))
            self._state.latest, self._state.newest = Segmentation(frame, seen), stored
            self._frame_came.notify_all()
            if self._window.add(stored):
                stored.features()  # now, when the worker does not wait for it
            if self._state.catch_up is not None:
                self._state.catch_up.append(stored)
            self.counters.processed += 1
            return self._state.latest

    def _admit(self, frame: Frame) -> bool:
        starts_anew = self._stamps.starts_anew(frame.stamp_ns, self.config.time_jump_seconds)
        if self._state.latest is None:
            return True
        last = self._state.latest.frame
        behind_ns = last.stamp_ns - frame.stamp_ns
        if frame.size_hw != last.size_hw:
            self._start_anew(f"the image size changed from {last.size_hw} to {frame.size_hw} (height, width)", frame)
        elif starts_anew:
            self._start_anew(f"the stamps went back by {behind_ns / 1e9:.3f} s", frame)
        elif behind_ns > 0:
            self.counters.late += 1
            return False
        elif behind_ns == 0:
            self.counters.repeated += 1
            return False
        return True

    def _start_anew(self, reason: str, frame: Frame) -> None:
        now = time.monotonic()
        if now >= self._silent_until:  # two cameras on one topic would fill the log
            logger.warning("%s: the frame window starts anew, objects are followed on", reason)
            self._silent_until = now + _WARNING_PERIOD_SECONDS
        self.counters.discontinuities += 1
        self._stamps.start(frame.stamp_ns)
        self._new_epoch(reason)
        for each in self._state.objects:
            each.start_anew(frame)

    def _new_epoch(self, reason: str) -> None:
        self._epoch += 1
        self._epoch_reason = reason
        self._window.clear()
        self._state.catch_up = None

    # --- the worker ---

    def wait_for_frame(self, timeout_s: float) -> bool:
        """Wait until there is a frame to look at; whether there is."""
        with self._frame_came:
            return self._frame_came.wait_for(lambda: self._state.newest is not None, timeout_s)

    def begin_query(self, window_seconds: float | None = None) -> Snapshot:
        """The key frames of now; from here on, frames are kept for catching up until :meth:`join` or :meth:`end_query`.

        Args:
            window_seconds: how far back to look; the session's window when ``None``, and never more than that.

        Raises:
            NoFramesError: no frame has come yet.
        """
        with self._lock:
            clip = self._window.select(self.config.key_frames, window_seconds)
            if not clip:
                raise NoFramesError("there is no camera frame to look at yet")
            self._state.catch_up = CatchUpBuffer(self.config.catch_up_frames)
            return Snapshot(tuple(clip), self._epoch)

    def check(self, snapshot: Snapshot) -> None:
        """Raise :class:`SupersededError` if the stream has started anew since the snapshot."""
        if snapshot.epoch != self._epoch:
            raise SupersededError(f"given up: {self._epoch_reason} while the query ran; ask again")

    def end_query(self) -> None:
        """Stop keeping frames for a query, whatever became of it."""
        with self._lock:
            self._state.catch_up = None

    def new_query_id(self) -> int:
        """An id that no query had before."""
        return next(self._query_ids)

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
        return self._arrive(snapshot, found, check, lambda masks: self._adopt(record, found, masks, replace))

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
        return self._arrive(snapshot, found, check, lambda masks: self._reunite(record, found, masks, add_new))

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
        for round_index in range(_MAX_CATCH_UP_ROUNDS):
            passed = self._drain(snapshot)
            # Fewer and fewer, so that this ends although the camera may be as fast as the tracker.
            kept = uniform_selection(passed, max(_HANDOVER_FRAMES, self.config.catch_up_frames >> round_index))
            self.counters.catch_up_skipped += len(passed) - len(kept)
            masks = _carry(tracks, kept, masks, check)
            if len(passed) <= _HANDOVER_FRAMES:
                break
        with self._changing():
            passed = self._drain(snapshot)
            self.counters.catch_up_skipped += len(passed[:-_HANDOVER_FRAMES])
            masks = _carry(tracks, passed[-_HANDOVER_FRAMES:], masks, check)
            check()  # whoever gives up a query from now on finds that it was answered
            return then(masks)

    def _drain(self, snapshot: Snapshot) -> list[StoredFrame]:
        with self._lock:
            self.check(snapshot)
            buffer = self._state.catch_up
            if buffer is None:
                return []
            passed = buffer.drain()
            self.counters.catch_up_skipped += buffer.skipped
            buffer.skipped = 0
            return passed

    def _adopt(
        self, record: QueryRecord, found: Sequence[FoundObject], outputs: Sequence[TrackOutput], replace: bool
    ) -> Segmentation:
        latest = self._state.latest
        assert latest is not None, "a snapshot exists, so a frame came"
        staying = [] if replace else self._state.objects
        room = min(self.config.max_objects - len(staying), LARGEST_OBJECT_ID + 1 - self._next_object_id)
        if room <= 0:
            raise SessionError(f"no room for another object ({len(staying)} followed): remove some, or restart the node")
        if len(found) > room:
            logger.warning("%d objects found, room for %d: the best are kept", len(found), room)
        newcomers = [self._newcomer(record, each) for each in found[:room]]
        seen = tuple(each.seen(latest.frame, output) for each, output in zip(newcomers, outputs, strict=False))
        self._state.queries = ({} if replace else self._state.queries) | {record.query_id: record}
        self._keep_objects(staying)
        self._state.objects = staying + newcomers
        others = self._state.latest.objects if self._state.latest else ()
        self._state.latest = Segmentation(latest.frame, others + seen)
        self._events += [each.event(EventKind.FOUND, latest.frame) for each in newcomers]
        return Segmentation(latest.frame, seen)

    def _newcomer(self, record: QueryRecord, found: FoundObject) -> LiveObject:
        object_id, self._next_object_id = self._next_object_id, self._next_object_id + 1
        return LiveObject(object_id, record.query_id, record.object_name, found.score, found.track, [found.appearance])

    def _reunite(
        self, record: QueryRecord, found: Sequence[FoundObject], outputs: Sequence[TrackOutput], add_new: bool
    ) -> Segmentation:
        self._require_query(record.query_id)
        latest = self._state.latest
        assert latest is not None, "a snapshot exists, so a frame came"
        mine = [each for each in self._state.objects if each.query_id == record.query_id]
        doubtful = [
            each for each in mine if each.in_doubt(latest.frame.stamp_ns, self.config) or each.lost_since_ns is not None
        ]
        followed = [mask.mask_hw for mask in latest.objects if mask.query_id == record.query_id]
        recognised, new = recognise(found, outputs, followed, doubtful, self.config.same_object_likeness)
        seen = {mask.object_id: mask for mask in latest.objects}
        for index, each in recognised.items():
            each.take_over(found[index])
            seen[each.object_id] = each.seen(latest.frame, outputs[index])
            self._events.append(each.event(EventKind.REACQUIRED, latest.frame))
            self.counters.reacquired += 1
        for each in doubtful:  # the next attempt is for the heat maps to come to decide
            each.doubts = 0
        self._state.queries[record.query_id] = record
        self._state.latest = Segmentation(latest.frame, tuple(seen.values()))
        if add_new and new:
            self._adopt(record, [found[index] for index in new], [outputs[index] for index in new], replace=False)
        objects = tuple(mask for mask in self._state.latest.objects if mask.query_id == record.query_id)
        return Segmentation(latest.frame, objects)

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
            if self._state.newest is None:
                raise NoFramesError("there is no camera frame to look at yet")
            clip = self._window.since(stamp_ns) if stamp_ns is not None else [self._state.newest]
            self._state.catch_up = CatchUpBuffer(self.config.catch_up_frames)
            snapshot = Snapshot(tuple(clip), self._epoch)
        if stamp_ns is not None and clip[0].frame.stamp_ns != stamp_ns:
            raise SessionError(
                f"no frame of stamp {stamp_ns} ns is kept; the nearest kept one after it is {clip[0].frame.stamp_ns}"
            )
        check()
        tracker = clip[0].tracker
        track, output = tracker.prompt(clip[0].features(), prompt)
        if not math.isfinite(output.presence):
            raise SessionError(NOT_FINITE)
        if not output.mask_hw.any():
            raise SessionError("nothing is where the prompt points: give more points, or a box")
        appearance = tracker.appearance(clip[0].features(), output.mask_hw)
        [output] = _carry([track], clip[1:], [output], check)
        record = dataclasses.replace(record, reference_stamp_ns=clip[0].frame.stamp_ns)
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
        scores = scoring.attention_consistency(stack, torch.from_numpy(heat.values_hw)[None])
        appearances = [stored.tracker.appearance(stored.features(), mask.mask_hw) for mask in mine]
        with self._lock:
            by_id = {each.object_id: each for each in self._state.objects}
            for mask, score, appearance in zip(mine, scores.tolist(), appearances, strict=True):
                if mask.object_id in by_id:
                    by_id[mask.object_id].compare(score, appearance, self.config)

    def queries_in_doubt(self) -> tuple[QueryRecord, ...]:
        """Queries with an object that vision has lost or that attention disagrees with, those asked by a sentence only."""
        with self._lock:
            if self._state.latest is None or not self.config.reacquire:
                return ()
            now_ns = self._state.latest.frame.stamp_ns
            doubted = {each.query_id for each in self._state.objects if each.in_doubt(now_ns, self.config)}
            return tuple(record for record in self._state.queries.values() if record.query_id in doubted and record.expression)

    def unsettled_queries(self) -> frozenset[int]:
        """Ids of the queries with an object that is lost, or whose mask was in doubt and has not been confirmed since."""
        with self._lock:
            return frozenset(each.query_id for each in self._state.objects if not each.settled)

    def suspects(self) -> bool:
        """Whether the last heat map disagreed with a mask, but not yet so often that its query is in doubt."""
        with self._lock:
            limit = self.config.reacquire_after_refreshes if self.config.reacquire else 0
            return any(0 < each.doubts < limit for each in self._state.objects)

    # --- any thread ---

    @property
    def latest(self) -> Segmentation | None:
        """The newest frame with its masks; ``None`` before the first."""
        with self._lock:
            return self._state.latest

    @property
    def newest(self) -> tuple[StoredFrame, Segmentation] | None:
        """The newest frame with its features and its masks; ``None`` before the first."""
        with self._lock:
            stored, latest = self._state.newest, self._state.latest
            return (stored, latest) if stored is not None and latest is not None else None

    def take_events(self) -> tuple[TrackEvent, ...]:
        """What happened to objects since the last call, in order."""
        with self._lock:
            events, self._events = tuple(self._events), []
            return events

    @property
    def queries(self) -> tuple[QueryRecord, ...]:
        """All queries that were answered and not removed, oldest first."""
        return self._overview[0]

    @property
    def object_ids(self) -> dict[int, int]:
        """Query id by object id, of all objects that are followed."""
        return dict(self._overview[1])

    def remove_object(self, object_id: int) -> None:
        """Stop following one object.

        Raises:
            UnknownIdError: there is no such object; the message lists those there are.
        """
        self._require_object(object_id)
        with self._changing():
            self._require_object(object_id)
            self._keep_objects([each for each in self._state.objects if each.object_id != object_id])

    def remove_query(self, query_id: int) -> tuple[int, ...]:
        """Forget a query and stop following its objects, whose ids are returned.

        Raises:
            UnknownIdError: there is no such query; the message lists those there are.
        """
        self._require_query(query_id)
        with self._changing():
            self._require_query(query_id)
            del self._state.queries[query_id]
            removed = tuple(each.object_id for each in self._state.objects if each.query_id == query_id)
            self._keep_objects([each for each in self._state.objects if each.query_id != query_id])
            return removed

    def set_tracker(self, tracker: MaskTracker | None) -> None:
        """Use another mask model, or none. What the old one remembers means nothing to it, so this is a :meth:`reset`, too."""
        with self._changing():
            self._new_epoch("another mask model was loaded")
            self._forget()
            self._tracker = tracker

    def reset(self, reason: str = "a reset was asked for") -> None:
        """Forget all objects, queries and frames, and give up queries in flight for a reason. Ids are not used again."""
        with self._changing():
            self._new_epoch(reason)
            self._forget()

    def _forget(self) -> None:
        self._keep_objects([])
        self._stamps.start()
        self._state = _State()

    def require_room_for_query(self, waiting: int = 0) -> None:
        """Raise :class:`SessionError` unless one more query may be active, beside some that wait."""
        active = len(self.queries)
        if active + waiting >= self.config.max_queries:
            named = f"{active} queries are active" + (f" and {waiting} wait" if waiting else "")
            raise SessionError(f"{named} already (parameter max_queries): remove one, or replace them all")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """The lock, for who changes which queries and objects there are."""
        with self._lock:
            try:
                yield
            finally:
                owners = {each.object_id: each.query_id for each in self._state.objects}
                self._overview = tuple(self._state.queries.values()), owners

    def _require_query(self, query_id: int) -> None:
        known = [record.query_id for record in self.queries]
        if query_id not in known:
            raise UnknownIdError(f"no query has id {query_id}; known are: {_listed(known)}")

    def _require_object(self, object_id: int) -> None:
        known = list(self.object_ids)
        if object_id not in known:
            raise UnknownIdError(f"no object has id {object_id}; followed are: {_listed(known)}")

    def _keep_objects(self, objects: list[LiveObject]) -> None:
        if self._state.latest is not None:
            frame = self._state.latest.frame
            staying = {each.object_id for each in objects}
            gone = (each for each in self._state.objects if each.object_id not in staying)
            self._events += [each.event(EventKind.REMOVED, frame) for each in gone]
        self._state.objects = objects
        if self._state.latest is not None:
            ids = {each.object_id for each in objects}
            seen = tuple(mask for mask in self._state.latest.objects if mask.object_id in ids)
            self._state.latest = Segmentation(self._state.latest.frame, seen)


def _carry(
    tracks: Sequence[ObjectTrack], passed: Sequence[StoredFrame], masks: list[TrackOutput], check: Callable[[], None]
) -> list[TrackOutput]:
    """Step tracks over frames by the mask model that both are of: the session may have another one by now."""
    for stored in passed:
        check()
        masks = stored.tracker.step(tracks, stored.features())
    return masks


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
