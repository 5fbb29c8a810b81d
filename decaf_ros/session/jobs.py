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
    """

    expression: str
    window_seconds: float | None = None
    replace: bool = True
    accept_doubtful: bool = False
    grounder: str | None = None


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
    ACTIVE = "active"
    FAILED = "failed"


@dataclass(frozen=True)
class QueryStatus:
    """One query as it stands now.

    Attributes:
        query_id: from 1 on, given when it was asked.
        expression: the sentence.
        state: how far it got.
        object_name: by the language model; "" before the answer.
        message: why it failed, else "".
        object_ids: its objects that are still followed.
        reference_stamp_ns: stamp of the newest key frame that it looked at; 0 before it was answered.
        presence: how likely the language model holds it that there is such a thing, in [0, 1]; NaN before it was asked.
    """

    query_id: int
    expression: str
    state: QueryState
    object_name: str = ""
    message: str = ""
    object_ids: tuple[int, ...] = ()
    reference_stamp_ns: int = 0
    presence: float = math.nan


class MakingWayError(SessionError):
    """Work of the worker's own is abandoned, since somebody asks for something."""


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
        makes_way: whether it is the worker's own, and abandoned for any other that waits.
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


class JobQueue:
    """Jobs that wait, the one that is worked on, and those that failed lately. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._own: Job | None = None
        self._failed: deque[QueryStatus] = deque(maxlen=_FAILURES_KEPT)
        self._closed = ""
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    # --- who asks ---

    def put(self, job: Job, most: int) -> None:
        """Have a job wait for the worker.

        Args:
            job: that somebody asks for.
            most: how many may wait.

        Raises:
            SessionError: so many wait already, or the queue is closed; the message names the way out.
        """
        with self._changed:
            self._require_room(most)
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
            waiting = [job for job in self._waiting if job.given_up]
            self._waiting = deque(job for job in self._waiting if not job.given_up)
        for job in waiting:
            job.future.set_exception(SupersededError(reason))
        return bool(unwanted)

    def statuses(self) -> dict[int, QueryStatus]:
        """Queries that failed lately, wait or run, by id."""
        with self._changed:
            statuses = {status.query_id: status for status in self._failed}
            for job in self._asked():
                state = QueryState.RUNNING if job is self._running else QueryState.QUEUED
                statuses[job.query_id] = QueryStatus(job.query_id, job.expression, state)
            return statuses

    def under_way(self) -> set[int]:
        """Ids of the queries that wait or run."""
        with self._changed:
            return {job.query_id for job in self._asked()}

    def forget_failed(self, query_id: int | None = None) -> bool:
        """List no more that all queries failed, or that one did; whether any had."""
        with self._changed:
            failed = [status for status in self._failed if query_id in (None, status.query_id)]
            for status in failed:
                self._failed.remove(status)
            return bool(failed)

    def _asked(self) -> list[Job]:
        return [*self._waiting, *([] if self._running is None else [self._running])]

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

    def answer(self, job: Job, result: QueryResult) -> None:
        """A job that ran is done."""
        with self._changed:
            self._running = None
        job.future.set_result(result)

    def fail(self, job: Job, error: SessionError) -> None:
        """A job that ran could not be done."""
        with self._changed:
            self._running = None
            if not job.given_up:  # else somebody wanted it gone
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
