"""Who is followed: objects, the queries that they answer, their ids, and what happens to them."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from decaf_ros.config import GrounderName, SessionConfig
from decaf_ros.datatypes import EventKind, Frame, ObjectMask, Segmentation, TrackEvent
from decaf_ros.models.protocols import TrackOutput
from decaf_ros.session.errors import SessionError, UnknownIdError
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.objects import FoundObject, LiveObject, recognise

LARGEST_OBJECT_ID = 65535

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryRecord:
    """One answered query.

    Attributes:
        query_id: permanent, from 1 on.
        expression: the sentence as asked; "" for an object that was pointed out, of which no heat map can be made.
        object_name: the label the language model gave; "" for none.
        reference_stamp_ns: stamp of the newest key frame that it looked at.
        confident: false when no tracklet passed the threshold and the best was taken.
        presence: how likely it is, by the language model, that there is such a thing, in [0, 1]; NaN when it was not asked.
        accept_doubtful: whether whoever asked wants the best guess even where, by the language model, nothing fits.
        doubted: whether that was so: its presence was below ``min_presence``.
        grounder: where its best object came from: "decaf" or "box"; "" for an object that was pointed out.
        asked_grounder: where whoever asked wants candidates to come from; ``None`` for what the settings say.
    """

    query_id: int
    expression: str
    object_name: str
    reference_stamp_ns: int
    confident: bool
    presence: float = math.nan
    accept_doubtful: bool = False
    doubted: bool = False
    grounder: str = ""
    asked_grounder: GrounderName | None = None


class Roster:
    """Objects and queries that there are. Ids are permanent and never used again.

    Not thread-safe, the session guards it. But queries and objects are replaced when they change: whoever asks for those there
    are, or for a new id, waits for nobody.

    Attributes:
        latest: the newest frame with its masks; ``None`` before the first.
        on_key_frame: the newest key frame with its masks; ``None`` before the first, and again once objects joined on a later
            frame, for on this one they are not seen, or not as they are followed now.
        reacquired: how often an object was found again by its sentence.
    """

    def __init__(self) -> None:
        self.latest: Segmentation | None = None
        self.on_key_frame: Segmentation | None = None
        self.reacquired = 0
        self._objects: tuple[LiveObject, ...] = ()
        self._queries: dict[int, QueryRecord] = {}
        self._next_object_id = 1
        self._query_ids = itertools.count(1)
        self._events: list[TrackEvent] = []

    # --- what there is ---

    @property
    def queries(self) -> tuple[QueryRecord, ...]:
        """All queries that were answered and not removed, oldest first."""
        return tuple(self._queries.values())

    @property
    def object_ids(self) -> dict[int, int]:
        """Query id by object id, of all objects that are followed."""
        return {each.object_id: each.query_id for each in self._objects}

    def new_query_id(self) -> int:
        """An id that no query had before."""
        return next(self._query_ids)

    def require_query(self, query_id: int) -> None:
        """Raise :class:`UnknownIdError`, with the ids that there are, unless there is such a query."""
        if query_id not in (known := self._queries):
            raise UnknownIdError(f"no query has id {query_id}; known are: {_listed(known)}")

    def require_object(self, object_id: int) -> None:
        """Raise :class:`UnknownIdError`, with the ids that there are, unless there is such an object."""
        if object_id not in (known := self.object_ids):
            raise UnknownIdError(f"no object has id {object_id}; followed are: {_listed(known)}")

    def take_events(self) -> tuple[TrackEvent, ...]:
        """What happened to objects since the last call, in order."""
        events, self._events = tuple(self._events), []
        return events

    # --- from frame to frame ---

    def follow(self, stored: StoredFrame) -> Segmentation:
        """Follow all objects to a new frame; masks on it."""
        frame, objects = stored.frame, self._objects
        outputs = stored.tracker.step([each.track for each in objects], stored.features()) if objects else []
        before = [each.lost_since_ns is None for each in objects]
        seen = tuple(each.seen(frame, output) for each, output in zip(objects, outputs, strict=True))
        for each, was_seen in zip(objects, before, strict=True):
            if was_seen != (each.lost_since_ns is None):
                self._events.append(each.event(EventKind.LOST if was_seen else EventKind.SEEN_AGAIN, frame))
        self.latest = Segmentation(frame, seen)
        return self.latest

    def note_key_frame(self) -> None:
        """The newest frame is a key frame."""
        self.on_key_frame = self.latest

    def start_anew(self, frame: Frame) -> None:
        """Go on with a frame that may be of an earlier time."""
        for each in self._objects:
            each.start_anew(frame)

    # --- from query to query ---

    def adopt(
        self,
        record: QueryRecord,
        found: Sequence[FoundObject],
        outputs: Sequence[TrackOutput],
        replace: bool,
        config: SessionConfig,
    ) -> Segmentation:
        """Follow new objects, which are at the newest frame.

        Args:
            record: the query.
            found: the objects, best first; at most ``max_objects`` fit.
            outputs: where they are on the newest frame.
            replace: whether all other queries and their objects go.
            config: for its limits.

        Returns:
            The newest frame with the masks of the new objects.

        Raises:
            SessionError: there is no room for any; nothing has changed then.
        """
        frame = self._newest_frame()
        staying = () if replace else self._objects
        room = min(config.max_objects - len(staying), LARGEST_OBJECT_ID + 1 - self._next_object_id)
        if room <= 0:
            raise SessionError(f"no room for another object ({len(staying)} followed): remove some, or restart the node")
        if len(found) > room:
            logger.warning("%d objects found, room for %d: the best are kept", len(found), room)
        newcomers = tuple(self._newcomer(record, each) for each in found[:room])
        seen = tuple(each.seen(frame, output) for each, output in zip(newcomers, outputs, strict=False))
        self._queries = ({} if replace else self._queries) | {record.query_id: record}
        others = self._keep(staying)
        self._objects = staying + newcomers
        self._joined(others + seen)
        self._events += [each.event(EventKind.FOUND, frame) for each in newcomers]
        return Segmentation(frame, seen)

    def _newcomer(self, record: QueryRecord, found: FoundObject) -> LiveObject:
        object_id, self._next_object_id = self._next_object_id, self._next_object_id + 1
        return LiveObject(object_id, record.query_id, record.object_name, found.score, found.track, [found.appearance])

    def reunite(
        self,
        record: QueryRecord,
        found: Sequence[FoundObject],
        outputs: Sequence[TrackOutput],
        add_new: bool,
        config: SessionConfig,
    ) -> Segmentation:
        """Tell which finds are a known query's objects, which go on with their tracks.

        Args:
            record: takes the place of the query's old one.
            found, outputs, config: as for :meth:`adopt`.
            add_new: whether finds that are none of the query's objects become new ones; else they are ignored.

        Returns:
            The newest frame with the masks of all objects of the query.

        Raises:
            UnknownIdError: there is no such query.
        """
        self.require_query(record.query_id)
        frame, masks = self._newest_frame(), self._masks()
        mine = [each for each in self._objects if each.query_id == record.query_id]
        doubtful = [each for each in mine if each.in_doubt(frame.stamp_ns, config) or each.lost_since_ns is not None]
        followed = [mask.mask_hw for mask in masks if mask.query_id == record.query_id]
        recognised, new = recognise(found, outputs, followed, doubtful, config.same_object_likeness)
        seen = {mask.object_id: mask for mask in masks}
        for index, each in recognised.items():
            each.take_over(found[index])
            seen[each.object_id] = each.seen(frame, outputs[index])
            self._events.append(each.event(EventKind.REACQUIRED, frame))
            self.reacquired += 1
        for each in doubtful:  # the next attempt is for the heat maps to come to decide
            each.doubts = 0
        self._queries = self._queries | {record.query_id: record}
        self._joined(tuple(seen.values()))
        if add_new and new:
            self.adopt(record, [found[index] for index in new], [outputs[index] for index in new], False, config)
        return Segmentation(frame, tuple(mask for mask in self._masks() if mask.query_id == record.query_id))

    def remove_object(self, object_id: int) -> None:
        """Stop following one object.

        Raises:
            UnknownIdError: there is no such object.
        """
        self.require_object(object_id)
        self._keep(tuple(each for each in self._objects if each.object_id != object_id))

    def remove_query(self, query_id: int) -> tuple[int, ...]:
        """Forget a query and stop following its objects, whose ids are returned.

        Raises:
            UnknownIdError: there is no such query.
        """
        self.require_query(query_id)
        self._queries = {each: record for each, record in self._queries.items() if each != query_id}
        removed = tuple(each.object_id for each in self._objects if each.query_id == query_id)
        self._keep(tuple(each for each in self._objects if each.query_id != query_id))
        return removed

    def forget(self) -> None:
        """Forget all objects and queries, and the frame that they are on."""
        self._queries = {}
        self._keep(())
        self.latest = self.on_key_frame = None

    # --- what attention says ---

    def compare(self, scores: Sequence[tuple[int, float, torch.Tensor]], config: SessionConfig) -> None:
        """Note how a heat map agrees with masks: object id, attention consistency and appearance of each; some may be gone."""
        by_id = {each.object_id: each for each in self._objects}
        for object_id, consistency, appearance in scores:
            if object_id in by_id:
                by_id[object_id].compare(consistency, appearance, config)

    def in_doubt(self, config: SessionConfig) -> tuple[QueryRecord, ...]:
        """Queries with an object that vision has lost or that attention disagrees with, those asked by a sentence only."""
        if self.latest is None or not config.reacquire:
            return ()
        now_ns = self.latest.frame.stamp_ns
        doubted = {each.query_id for each in self._objects if each.in_doubt(now_ns, config)}
        return tuple(record for record in self.queries if record.query_id in doubted and record.expression)

    def unsettled(self) -> frozenset[int]:
        """Ids of the queries with an object that is lost, or whose mask was in doubt and has not been confirmed since."""
        return frozenset(each.query_id for each in self._objects if not each.settled)

    def suspects(self, config: SessionConfig) -> bool:
        """Whether the last heat map disagreed with a mask, but not yet so often that its query is in doubt."""
        limit = config.reacquire_after_refreshes if config.reacquire else 0
        return any(0 < each.doubts < limit for each in self._objects)

    def _newest_frame(self) -> Frame:
        assert self.latest is not None, "a snapshot exists, so a frame came"
        return self.latest.frame

    def _masks(self) -> tuple[ObjectMask, ...]:
        return self.latest.objects if self.latest is not None else ()

    def _keep(self, objects: tuple[LiveObject, ...]) -> tuple[ObjectMask, ...]:
        """Stop following all objects but some, whose masks are returned."""
        staying = {each.object_id for each in objects}
        masks = tuple(mask for mask in self._masks() if mask.object_id in staying)
        if self.latest is not None:
            frame = self.latest.frame
            self._events += [each.event(EventKind.REMOVED, frame) for each in self._objects if each.object_id not in staying]
            self._show(masks)
        self._objects = objects
        return masks

    def _joined(self, masks: tuple[ObjectMask, ...]) -> None:
        """These are the masks on the newest frame, with those of objects that have just come to it."""
        self._show(masks)
        if self.on_key_frame is not self.latest:
            self.on_key_frame = None

    def _show(self, masks: tuple[ObjectMask, ...]) -> None:
        """These are the masks on the newest frame."""
        shown = Segmentation(self._newest_frame(), masks)
        if self.on_key_frame is self.latest:
            self.on_key_frame = shown
        self.latest = shown


def _listed(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
