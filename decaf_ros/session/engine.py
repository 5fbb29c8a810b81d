"""The two threads of a tracking node, free of ROS: *live* follows frames, the *worker* answers queries and refreshes heat maps.

Whoever has frames calls :meth:`Engine.submit`; whoever has a sentence calls :meth:`Engine.query` and gets a future. Results
reach a :class:`Listener` on the thread that made them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, HeatMap, Segmentation
from decaf_ros.session.grounding import Grounder, Grounding, StageClock
from decaf_ros.session.session import (
    FoundObject,
    QueryRecord,
    SessionError,
    Snapshot,
    SupersededError,
    TrackingSession,
    UnknownIdError,
)

_FAILURES_KEPT = 32

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears of results. Every method is called from one of the engine's threads and must not block for long."""

    def on_segmentation(self, segmentation: Segmentation) -> None:
        """A frame was followed (live thread)."""

    def on_heat_map(self, heat: HeatMap) -> None:
        """A heat map was computed (worker)."""

    def on_rejected_frame(self, reason: str) -> None:
        """A frame could not be decoded or followed (live thread)."""


@dataclass(frozen=True, eq=False)
class QueryResult:
    """The answer to one query.

    Attributes:
        record: ids, sentence and name.
        segmentation: the newest frame with the masks of the objects that this query found.
        grounding: everything that was found out on the way.
        latency_ms: by stage (see ``grounding.STAGES``).
    """

    record: QueryRecord
    segmentation: Segmentation
    grounding: Grounding
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
    """

    query_id: int
    expression: str
    state: QueryState
    object_name: str = ""
    message: str = ""
    object_ids: tuple[int, ...] = ()
    reference_stamp_ns: int = 0


@dataclass(eq=False)
class _Job:
    query_id: int
    expression: str
    window_seconds: float | None
    replace: bool
    future: Future[QueryResult] = field(default_factory=Future)
    cancelled: bool = False


class Engine:
    """Owns the live thread and the worker. All methods may be called from any thread."""

    def __init__(self, session: TrackingSession, grounder: Grounder | None, listener: Listener) -> None:
        self.session = session
        self.frames_superseded = 0
        self.stage = "idle"
        self._config: SessionConfig = session.config
        self._grounder = grounder
        self._listener = listener
        self._slot: Callable[[], Frame] | None = None
        self._jobs: deque[_Job] = deque()
        self._current: _Job | None = None
        self._failed: deque[QueryStatus] = deque(maxlen=_FAILURES_KEPT)
        self._frame_ready = threading.Condition()
        self._work_ready = threading.Condition()
        self._running = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start both threads."""
        self._running = True
        for name, loop in (("decaf-live", self._live_loop), ("decaf-worker", self._worker_loop)):
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop both threads; queries that wait are answered with an error."""
        self._running = False
        self.session.reset()
        for condition in (self._frame_ready, self._work_ready):
            with condition:
                condition.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        while self._jobs:
            self._fail(self._jobs.popleft(), SessionError("the node is shutting down"))

    def submit(self, decode: Callable[[], Frame]) -> None:
        """Offer a frame; the latest wins. ``decode`` runs on the live thread, and only if no newer frame comes first."""
        with self._frame_ready:
            if self._slot is not None:
                self.frames_superseded += 1
            self._slot = decode
            self._frame_ready.notify()

    def query(self, expression: str, window_seconds: float | None = None, replace: bool = True) -> Future[QueryResult]:
        """Queue a query.

        Args:
            expression: what to look for.
            window_seconds: how far back to look; ``None`` for the session's window.
            replace: whether it takes the place of all earlier queries when it succeeds.

        Returns:
            A future that the worker completes with the result or a :class:`SessionError`.

        Raises:
            SessionError: the sentence or the window is not acceptable, or too many queries wait.
        """
        expression, window_seconds = self.checked_expression(expression), self._checked_window(window_seconds)
        job = _Job(self.session.new_query_id(), expression, window_seconds, replace)
        with self._work_ready:
            if len(self._jobs) >= self._config.max_pending_queries:
                raise SessionError(f"{len(self._jobs)} queries are waiting already: try again later")
            self._jobs.append(job)
            self._work_ready.notify()
        return job.future

    def set_grounder(self, grounder: Grounder | None) -> None:
        """Use another language model from the next query on."""
        self._grounder = grounder

    def remove_query(self, query_id: int) -> tuple[int, ...]:
        """Cancel a query that waits or runs, or forget one that was answered and stop following its objects.

        Returns:
            Ids of the objects that went with it.

        Raises:
            UnknownIdError: there is no such query; the message lists those there are.
        """
        with self._work_ready:
            for job in [*self._jobs, *([self._current] if self._current else [])]:
                if job.query_id == query_id:
                    job.cancelled = True
                    return ()
        try:
            return self.session.remove_query(query_id)
        except UnknownIdError:
            known = [status.query_id for status in self.queries() if status.state is not QueryState.FAILED]
            listed = ", ".join(map(str, known)) or "none"
            raise UnknownIdError(f"no query has id {query_id}; known are: {listed}") from None

    def reset(self) -> None:
        """Forget all objects, queries and frames; queries that wait or run are given up."""
        with self._work_ready:
            for job in self._jobs:
                job.cancelled = True
            self._failed.clear()
        self.session.reset()

    def queries(self) -> tuple[QueryStatus, ...]:
        """All queries that wait, run or are active, and those that failed lately, in the order of their ids."""
        with self._work_ready:
            waiting = [QueryStatus(job.query_id, job.expression, QueryState.QUEUED) for job in self._jobs if not job.cancelled]
            current = self._current
            running = [QueryStatus(current.query_id, current.expression, QueryState.RUNNING)] if current else []
            failed = list(self._failed)
        owners = self.session.object_ids
        active = [
            QueryStatus(
                record.query_id,
                record.expression,
                QueryState.ACTIVE,
                object_name=record.object_name,
                object_ids=tuple(sorted(each for each, owner in owners.items() if owner == record.query_id)),
                reference_stamp_ns=record.reference_stamp_ns,
            )
            for record in self.session.queries
            if not current or record.query_id != current.query_id
        ]
        return tuple(sorted([*waiting, *running, *failed, *active], key=lambda status: status.query_id))

    @property
    def pending_queries(self) -> int:
        """Queries that wait for the worker."""
        return len(self._jobs)

    def checked_expression(self, expression: str) -> str:
        """The expression without surrounding white space, if it is one.

        Raises:
            SessionError: it is empty, too long, or holds characters that cannot be printed.
        """
        text = expression.strip()
        if not text:
            raise SessionError('the expression is empty: say what to look for, such as "the red mug"')
        if len(text) > self._config.max_expression_length:
            raise SessionError(
                f"the expression has {len(text)} characters, at most {self._config.max_expression_length} are allowed "
                "(parameter max_expression_length)"
            )
        unprintable = sorted({repr(char) for char in text if not char.isprintable()})
        if unprintable:
            raise SessionError(f"the expression holds characters that cannot be printed: {', '.join(unprintable[:5])}")
        return text

    def _checked_window(self, window_seconds: float | None) -> float | None:
        if window_seconds is not None and not 0 < window_seconds <= self._config.window_seconds:
            raise SessionError(
                f"window_seconds is {window_seconds:g}; it must lie above 0 and within the {self._config.window_seconds:g} s "
                "of frames that are kept (parameter window_seconds), or be 0 for all of them"
            )
        return window_seconds

    # --- live thread ---

    def _live_loop(self) -> None:
        while self._running:
            with self._frame_ready:
                self._frame_ready.wait_for(lambda: self._slot is not None or not self._running)
                decode, self._slot = self._slot, None
            if decode is not None:
                self._follow(decode)

    def _follow(self, decode: Callable[[], Frame]) -> None:
        try:
            segmentation = self.session.push(decode())
            if segmentation is not None:
                self._listener.on_segmentation(segmentation)
        except (ValueError, SessionError) as error:  # what came from outside is wrong, or a model is missing
            self._listener.on_rejected_frame(str(error))
        except Exception as error:  # the node goes on, whatever happens to one frame
            logger.exception("a frame could not be followed")
            self._listener.on_rejected_frame(f"internal error: {error}")

    # --- worker ---

    def _worker_loop(self) -> None:
        next_refresh = 0.0 if self._config.refresh_hz > 0 else math.inf
        while self._running:
            with self._work_ready:
                if not self._jobs:
                    self._work_ready.wait(timeout=max(0.0, min(0.5, next_refresh - time.monotonic())))
                job = self._current = self._jobs.popleft() if self._jobs else None
            if job is not None:
                self._answer(job)
            elif time.monotonic() >= next_refresh:
                next_refresh = time.monotonic() + 1.0 / self._config.refresh_hz
                self._refresh()
            self.stage = "idle"

    def _answer(self, job: _Job) -> None:
        try:
            result = self._run(job)
        except SessionError as error:
            self._fail(job, error)
        except ValueError as error:  # the sentence is one that the model cannot take
            logger.warning("the query %r was refused: %s", job.expression, error)
            self._fail(job, SessionError(str(error)))
        except Exception as error:  # the node goes on, and the caller learns the cause
            logger.exception("the query %r failed", job.expression)
            self._fail(job, SessionError(f"internal error: {type(error).__name__}: {error}"))
        else:
            self._current = None
            job.future.set_result(result)
        finally:
            self.session.end_query()

    def _fail(self, job: _Job, error: SessionError) -> None:
        with self._work_ready:
            self._current = None
            self._failed.append(QueryStatus(job.query_id, job.expression, QueryState.FAILED, message=str(error)))
        job.future.set_exception(error)

    def _run(self, job: _Job) -> QueryResult:
        grounder = self._grounder
        if grounder is None:
            raise SessionError("no language model is loaded; see the log and diagnostics for the reason")
        self._require_wanted(job)
        snapshot = self.session.begin_query(job.window_seconds)
        clock = StageClock(lambda stage: self._enter(stage, job, snapshot))
        grounding = grounder.ground(snapshot.clip, job.expression, clock)
        if not grounding.objects:
            raise SessionError(f"nothing was found for {job.expression!r}; the objects followed so far are kept")
        newest = snapshot.clip[-1].frame
        name, confident = grounding.attention.object_name, grounding.confident
        record = QueryRecord(job.query_id, job.expression, name, newest.stamp_ns, confident)
        with clock.stage("catch_up"):
            tracks = grounder.build_tracks(grounding, snapshot.clip)
            found = [
                FoundObject(track, item.score, item.tracklets[0].masks_thw[-1])
                for track, item in zip(tracks, grounding.objects, strict=True)
            ]
            segmentation = self.session.join(snapshot, record, found, job.replace)
        newest_values = grounding.attention.heat_thw[-1].numpy()
        self._listener.on_heat_map(HeatMap(newest, record.query_id, newest_values))
        return QueryResult(record, segmentation, grounding, clock.latency_ms)

    def _enter(self, stage: str, job: _Job, snapshot: Snapshot) -> None:
        self._require_wanted(job)
        self.session.check(snapshot)
        self.stage = stage

    def _require_wanted(self, job: _Job) -> None:
        if not self._running:
            raise SessionError("the node is shutting down")
        if job.cancelled:
            raise SupersededError(f"the query {job.expression!r} was cancelled")

    def _refresh(self) -> None:
        """Compute the newest query's heat map anew on the newest frame, and score its objects by it."""
        latest, queries, grounder = self.session.latest, self.session.queries, self._grounder
        if latest is None or not queries or grounder is None:
            return
        query = queries[-1]
        self.stage = "refresh"
        try:
            values = grounder.refresh(latest.frame, query.object_name, query.expression)
        except Exception:
            logger.exception("the heat map could not be refreshed")
            return
        heat = HeatMap(latest.frame, query.query_id, values.numpy())
        self.session.note_heat_map(heat, latest.objects)
        self._listener.on_heat_map(heat)
