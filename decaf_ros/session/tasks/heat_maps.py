"""Heat maps of all queries are kept fresh, and tell how well masks agree with attention."""

from __future__ import annotations

import math

from decaf_ros.datatypes import HeatMap, Segmentation
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.jobs import Job
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.tasks.task import Activity, Desk


class HeatMaps:
    """Computes the heat maps anew on the newest key frame, and scores objects by them: ``refresh_hz`` times a second at most.

    They never take more than half of the worker's time: after each refresh they rest for as long as it took.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._began = self._rested = -math.inf
        self._suspicious = False
        self._refreshed: tuple[int, tuple[int, ...]] | None = None

    def due_in(self) -> float:
        """See :class:`~decaf_ros.session.tasks.task.Task`."""
        hz = self._desk.session.config.refresh_hz
        if hz <= 0:
            return math.inf
        # One heat map may err: look again as soon as it has rested.
        due = self._rested if self._suspicious else max(self._rested, self._began + 1.0 / hz)
        due_in = due - self._desk.clock()
        return due_in if due_in > 0 or self._unread() is not None else math.inf

    def step(self) -> None:
        """Refresh them now if nobody asks for anything, or else when there is time again."""
        began, before, self._suspicious = self._desk.clock(), self._suspicious, False
        if not self._desk.keep_up(Job(0, "", self._refresh, makes_way=True), "the heat maps could not be refreshed"):
            self._suspicious = before
            return
        ended = self._desk.clock()
        self._began, self._rested = began, ended + (ended - began)

    def _unread(self) -> tuple[StoredFrame, Segmentation, list[QueryRecord]] | None:
        """Key frame, masks on it and the queries to look for; ``None`` where there are none, or the maps would be the same."""
        session = self._desk.session
        queries = [record for record in session.queries if record.expression]
        newest = session.newest_key_frame
        if newest is None or not queries or self._desk.grounder is None:
            return None
        return None if self._subject(newest[0], queries) == self._refreshed else (*newest, queries)

    def _refresh(self, _: Job) -> None:
        unread, grounder = self._unread(), self._desk.grounder
        if unread is None or grounder is None:
            return
        stored, segmentation, queries = unread
        self._desk.activity = Activity("refresh")
        maps = grounder.attention.refresh(stored.frame, [(record.expression, record.object_name) for record in queries])
        for record, values in zip(queries, maps, strict=True):
            heat = HeatMap(stored.frame, record.query_id, values.numpy())
            self._desk.session.note_heat_map(heat, segmentation.objects, stored)
            self._desk.teller.tell(self._desk.teller.listener.on_heat_map, heat)
        self._refreshed = self._subject(stored, queries)
        self._suspicious = self._desk.session.suspects()

    @staticmethod
    def _subject(stored: StoredFrame, queries: list[QueryRecord]) -> tuple[int, tuple[int, ...]]:
        return stored.frame.stamp_ns, tuple(record.query_id for record in queries)
