"""Objects in doubt are looked for again by their sentence."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from decaf_ros.session.jobs import Job
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.tasks import answering
from decaf_ros.session.tasks.task import Desk

_PAUSE_GROWTH = 1.5


@dataclass(eq=False)
class _Attempts:
    """To re-acquire the objects of a query, since all was well with them.

    Attributes:
        count: how many there were.
        ended: when the last one ended.
        stamp_ns: of the newest frame when the last one began; ``None`` before the first.
    """

    count: int = 0
    ended: float = -math.inf
    stamp_ns: int | None = None


class ObjectsInDoubt:
    """Asks a query again on the last moments, for objects of it that were lost or that attention disagrees with.

    An attempt costs as much as a query, and what is gone may be gone for hours: the pause between them grows until all is well.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._attempts: defaultdict[int, _Attempts] = defaultdict(_Attempts)

    def due_in(self) -> float:
        """See :class:`~decaf_ros.session.tasks.task.Task`."""
        return min((self._pause_left(each) for each in self._in_doubt()), default=math.inf)

    def step(self) -> None:
        """Make an attempt for the query that waits longest."""
        due = [each for each in self._in_doubt() if self._pause_left(each) <= 0]
        record = min(due, key=lambda each: self._attempts[each.query_id].ended, default=None)
        if record is None:
            return
        config = self._desk.session.config
        window_seconds = min(config.reacquire_window_seconds, config.window_seconds)
        job = Job(
            record.query_id,
            record.expression,
            lambda job: answering.find_again(self._desk, job, window_seconds, add_new=False),
            makes_way=True,
            grounder=record.asked_grounder,
        )
        stamp_ns = self._newest_stamp_ns()
        if self._desk.keep_up(job, f"query {record.query_id} could not be asked again"):
            attempts = self._attempts[record.query_id]  # forgotten once all is well again
            attempts.count, attempts.ended, attempts.stamp_ns = attempts.count + 1, self._desk.clock(), stamp_ns

    def _in_doubt(self) -> list[QueryRecord]:
        """Queries with an object in doubt that have something new to see since the last attempt."""
        session, newest_ns = self._desk.session, self._newest_stamp_ns()
        for query_id in self._attempts.keys() - session.unsettled_queries():
            del self._attempts[query_id]
        return [each for each in session.queries_in_doubt() if self._attempts[each.query_id].stamp_ns != newest_ns]

    def _pause_left(self, record: QueryRecord) -> float:
        """Seconds until the last attempt is long enough ago."""
        attempts, config = self._attempts[record.query_id], self._desk.session.config
        pause = config.reacquire_seconds * _PAUSE_GROWTH ** min(attempts.count, 100)
        pause = min(pause, max(config.reacquire_seconds, config.reacquire_longest_pause_seconds))
        return pause - (self._desk.clock() - attempts.ended)

    def _newest_stamp_ns(self) -> int | None:
        latest = self._desk.session.latest
        return None if latest is None else latest.frame.stamp_ns
