"""Heat maps of all queries are kept fresh, and tell how well masks agree with attention."""

from __future__ import annotations

import math

from decaf_ros.datatypes import HeatMap
from decaf_ros.session.jobs import Job
from decaf_ros.session.tasks.task import Activity, Desk


class HeatMaps:
    """Computes the heat maps anew on the newest frame, ``refresh_hz`` times a second, and scores objects by them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._last = -math.inf
        self._refreshed: tuple[int, tuple[int, ...]] | None = None

    def due_in(self) -> float:
        """See :class:`~decaf_ros.session.tasks.task.Task`."""
        hz = self._desk.session.config.refresh_hz
        return self._last + 1.0 / hz - self._desk.clock() if hz > 0 else math.inf

    def step(self) -> None:
        """Refresh them now if nobody asks for anything, or else when there is time again."""
        before, self._last = self._last, self._desk.clock()
        if not self._desk.keep_up(Job(0, "", self._refresh, makes_way=True), "the heat maps could not be refreshed"):
            self._last = before

    def _refresh(self, _: Job) -> None:
        session, grounder = self._desk.session, self._desk.grounder
        queries = [record for record in session.queries if record.expression]
        newest = session.newest
        if newest is None or not queries or grounder is None:
            return
        stored, segmentation = newest
        subject = (stored.frame.stamp_ns, tuple(record.query_id for record in queries))
        if subject == self._refreshed:  # no new frame came: the maps would be the same
            return
        self._desk.activity = Activity("refresh")
        maps = grounder.attention.refresh(stored.frame, [(record.expression, record.object_name) for record in queries])
        for record, values in zip(queries, maps, strict=True):
            heat = HeatMap(stored.frame, record.query_id, values.numpy())
            session.note_heat_map(heat, segmentation.objects, stored)
            self._desk.teller.tell(self._desk.teller.listener.on_heat_map, heat)
        self._refreshed = subject
        if session.suspects():  # one heat map may err: look again at once
            self._last = -math.inf
