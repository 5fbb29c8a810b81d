"""What people ask for, on its way to the worker and back: one queue, in the order in which it came."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from decaf_ros.config import GrounderName
from decaf_ros.datatypes import Segmentation
from decaf_ros.session.errors import NotThereError, SessionError, SupersededError
from decaf_ros.session.grounding import Grounding
from decaf_ros.session.roster import QueryRecord

_FAILURES_KEPT = 32


@dataclass(frozen=True)
class QueryRequest:
    """What somebody asks for.

    Attributes:
        expression: what to look for.
        window_seconds: how far back to look; ``None`` for the session's window.
        replace: whether it takes the place of all earlier queries when it succeeds.
        accept_doubtful: whether the best guess is followed even where, by the language model, nothing fits.
        grounder: where candidates come from, one of ``config.GROUNDERS``; ``None`` for what the settings say.
        wait_seconds: how long to look again and again for what is not there yet; 0 to look once.
    """

    expression: str
    window_seconds: float | None = None
    replace: bool = True
    accept_doubtful: bool = False
    grounder: str | None = None
    wait_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class QueryResult:
    """The answer to one query.

    Attributes:
        record: ids, sentence and name.
        segmentation: the newest frame with the masks of the query's objects.
        grounding: everything that was found out on the way; ``None`` for an object that was pointed out.
        latency_ms: by stage (see ``stages.STAGES``).
    """

    record: QueryRecord
    segmentation: Segmentation
    grounding: Grounding | None
    latency_ms: dict[str, float]


class QueryState(Enum):
    """How far a query got."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    ACTIVE = "active"
    FAILED = "failed"


@dataclass(frozen=True)
class Look:
    """A look for what was not there before.

    Attributes:
        stamp_ns: of the newest key frame that was looked at.
        presence: how likely there is such a thing, in [0, 1]; NaN when nothing was asked.
    """

    stamp_ns: int
    presence: float


@dataclass(frozen=True)
class QueryStatus:
    """One query as it stands now.

    Attributes:
        query_id: from 1 on, given when it was asked.
        expression: the sentence.
        state: how far it got.
        object_name: by the language model; "" before the answer.
        message: why it failed, or waits; else "".
        object_ids: its objects that are still followed.
        reference_stamp_ns: stamp of the newest key frame that it looked at; 0 before it was answered.
        presence: how likely the language model holds it that there is such a thing, in [0, 1]; NaN before it was asked.
        last_look_ns: of one that waits, stamp of the key frame that was looked at last, and where ``presence`` is from; else 0.
    """

    query_id: int
    expression: str
    state: QueryState
    object_name: str = ""
    message: str = ""
    object_ids: tuple[int, ...] = ()
    reference_stamp_ns: int = 0
    presence: float = math.nan
    last_look_ns: int = 0


class MakingWayError(SessionError):
    """Work of the worker's own is abandoned, since somebody asks for something."""


@dataclass(eq=False)
class Patience:
    """Of whoever wants to have what may not be there yet.

    Attributes:
        seconds: how long it lasts.
        until: when it is over, in seconds of the engine's clock.
        on_look: called on the worker after each look.
        reason: why the query could not be answered yet; ``None`` before it was asked.
        last_look: ``None`` before the first.
        since_ns: stamp of the key frame that showed, by a look, what is waited for; the query looks no further back then.
            ``None`` where it is to look as far back as was asked for.
        refusals: in a row, how often it was asked again in vain.
        rests_until: when it may be asked again, by the same clock.
    """

    seconds: float
    until: float
    on_look: Callable[[Look], None] = lambda look: None
    reason: SessionError | None = None
    last_look: Look | None = None
    since_ns: int | None = None
    refusals: int = 0
    rests_until: float = -math.inf


@dataclass(eq=False)
class Job:
    """A query on its way, or work of the worker's own.

    Attributes:
        query_id: from 1 on; that of the old one for a query that is asked again; 0 for work that is for all of them.
        expression: the sentence; "" for an object that is pointed out.
        work: what the worker does; only a query has a result.
        on_stage: called on the worker with each stage that begins.
        future: completed with the result or a :class:`SessionError`.
        given_up: why nobody wants the result any more, and the worker stops at the next step; "" while somebody does.
        makes_way: whether it is abandoned for any other that waits, as the worker's own is, and a query that stands.
        patience: of a query that is asked again until it can be answered; ``None`` for all others.
        grounder: of a query, see :class:`QueryRequest`.
    """

    query_id: int
    expression: str
    work: Callable[[Job], Any] = field(repr=False)
    on_stage: Callable[[str], None] = lambda stage: None
    future: Future[QueryResult] = field(default_factory=Future)
    given_up: str = ""
    makes_way: bool = False
    grounder: GrounderName | None = None
    patience: Patience | None = None


class JobQueue:
    """Jobs that wait, the one that is worked on, queries that stand, and those that failed lately. Thread-safe.

    A query stands from when it could not be answered yet until it is, or until nobody wants or waits for the answer any more.
    """

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._standing: list[Job] = []
        self._running: Job | None = None
        self._own: Job | None = None
        self._failed: deque[QueryStatus] = deque(maxlen=_FAILURES_KEPT)
        self._closed = ""
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def standing(self) -> tuple[Job, ...]:
        """Queries that stand, in the order in which they came to do so; any thread may ask."""
        return tuple(self._standing)

    # --- who asks ---

    def put(self, job: Job, most: int, most_patient: int) -> None:
        """Have a job wait for the worker.

        Args:
            job: that somebody asks for.
            most: how many may wait.
            most_patient: how many with :class:`Patience` there may be.

        Raises:
            SessionError: so many wait already, or the queue is closed; the message names the way out.
        """
        with self._changed:
            self._require_room(most)
            if job.patience is not None and sum(each.patience is not None for each in self._asked()) >= most_patient:
                raise SessionError(
                    f"{most_patient} queries wait for what is not there yet (parameter max_standing_queries): "
                    "remove one, or ask without wait_seconds"
                )
            self._waiting.append(job)
            self._changed.notify()

    def require_room(self, most: int) -> None:
        """Raise as :meth:`put` would."""
        with self._changed:
            self._require_room(most)

    def _require_room(self, most: int) -> None:
        if self._closed:
            raise SessionError(self._closed)
        if len(self._waiting) >= most:
            raise SessionError(
                f"{len(self._waiting)} queries are waiting already (parameter max_pending_queries): try again later"
            )

    def give_up(self, reason: str, query_id: int | None = None) -> bool:
        """Give up all jobs, or those of one query. Who waits is answered at once; whether anybody had asked for one."""
        with self._changed:
            unwanted = [job for job in self._asked() if query_id in (None, job.query_id)]
            for job in unwanted:
                job.given_up = reason
            if self._own is not None and query_id in (None, self._own.query_id):
                self._own.given_up = reason
            waiting = [job for job in (*self._waiting, *self._standing) if job.given_up]
            self._waiting = deque(job for job in self._waiting if not job.given_up)
            self._standing = [job for job in self._standing if not job.given_up]
        for job in waiting:
            job.future.set_exception(SupersededError(reason))
        return bool(unwanted)

    def statuses(self) -> dict[int, QueryStatus]:
        """Queries that failed lately, wait, run or stand, by id."""
        with self._changed:
            statuses = {status.query_id: status for status in self._failed}
            for job in self._asked():
                statuses[job.query_id] = self._status(job)
            return statuses

    def under_way(self) -> set[int]:
        """Ids of the queries that wait, run or stand."""
        with self._changed:
            return {job.query_id for job in self._asked()}

    def forget_failed(self, query_id: int | None = None) -> bool:
        """List no more that all queries failed, or that one did; whether any had."""
        with self._changed:
            failed = [status for status in self._failed if query_id in (None, status.query_id)]
            for status in failed:
                self._failed.remove(status)
            return bool(failed)

    def _status(self, job: Job) -> QueryStatus:
        if job.patience is None or job not in self._standing:
            state = QueryState.RUNNING if job is self._running else QueryState.QUEUED
            return QueryStatus(job.query_id, job.expression, state)
        reason, look = str(job.patience.reason or ""), job.patience.last_look or Look(0, math.nan)
        return QueryStatus(
            job.query_id,
            job.expression,
            QueryState.WAITING,
            message=reason,
            presence=look.presence,
            last_look_ns=look.stamp_ns,
        )

    def _asked(self) -> list[Job]:
        return [*self._waiting, *self._standing, *([] if self._running is None else [self._running])]

    # --- the worker ---

    def wait(self, timeout_s: float) -> None:
        """Wait until a job does, or the queue is closed."""
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(timeout_s)

    def take(self) -> Job | None:
        """The job that came first, which runs from now on; ``None`` when none waits."""
        with self._changed:
            self._running = self._waiting.popleft() if self._waiting else None
            return self._running

    def stand(self, job: Job, reason: SessionError | None = None) -> bool:
        """A query that ran cannot be answered yet, and stands from now on, if it has the patience and is still wanted.

        Args:
            job: the query.
            reason: why; the last one holds on when ``None``.

        Returns:
            Whether it stands.
        """
        with self._changed:
            if job.patience is None or job.given_up or self._closed:
                return False
            self._running = None
            job.makes_way = True
            if reason is not None:  # it may hold on for hours, and its traceback would hold all that was looked at
                job.patience.reason = reason.with_traceback(None)
            self._standing.append(job)
            return True

    def take_up(self, job: Job) -> bool:
        """A query that stands runs from now on; whether it still stood."""
        with self._changed:
            if job not in self._standing:
                return False
            self._standing.remove(job)
            self._running = job
            return True

    def answer(self, job: Job, result: QueryResult) -> None:
        """A job that ran is done."""
        with self._changed:
            self._running = None
        job.future.set_result(result)

    def fail(self, job: Job, error: SessionError) -> None:
        """A job that ran, or stood, could not be done."""
        with self._changed:
            self._running = None
            if job.given_up:  # somebody wanted it gone, whatever else happened
                error = SupersededError(job.given_up)
            else:
                presence = error.presence if isinstance(error, NotThereError) else math.nan
                self._failed.append(
                    QueryStatus(job.query_id, job.expression, QueryState.FAILED, message=str(error), presence=presence)
                )
        job.future.set_exception(error)

    @contextmanager
    def own(self, job: Job) -> Iterator[None]:
        """Within this the worker is at a job that nobody asked for, and that can be given up like all others."""
        with self._changed:
            self._own = job
        try:
            yield
        finally:
            with self._changed:
                self._own = None

    def require_wanted(self, job: Job) -> None:
        """Between two steps of a job: raise if it is given up, or has to make way for one that waits."""
        if self._closed:
            raise SessionError(self._closed)
        if job.given_up:
            raise SupersededError(job.given_up)
        if job.makes_way and self._waiting:
            raise MakingWayError("a query is waiting")

    # --- who owns it ---

    @property
    def is_open(self) -> bool:
        """Whether jobs are taken."""
        return not self._closed

    def open(self) -> None:
        """Take jobs, as at the beginning."""
        self._closed = ""

    def close(self, reason: str) -> None:
        """Give up all jobs for a reason, and take none from now on."""
        with self._changed:
            self._closed = reason
            self._changed.notify_all()
        self.give_up(reason)
