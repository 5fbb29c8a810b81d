"""The two threads of a tracking node, free of ROS: *live* follows frames, the *worker* answers queries and refreshes heat maps.

Whoever has frames calls :meth:`Engine.submit`; whoever has a sentence calls :meth:`Engine.query` and gets a future. Results
reach a :class:`Listener` on the thread that made them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeVar

from decaf_ros import limits
from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, HeatMap, ObjectPrompt, Segmentation, TrackEvent
from decaf_ros.models.wanted import while_wanted
from decaf_ros.session.errors import SessionError, SupersededError, UnknownIdError
from decaf_ros.session.grounding import Grounder, Grounding
from decaf_ros.session.objects import FoundObject
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.slot import Slot
from decaf_ros.session.stages import StageClock
from decaf_ros.session.stream import Snapshot
from decaf_ros.text import brief, checked_line, quoted, with_kind

_FAILURES_KEPT = 32
_STOPPED = "the node is being deactivated or shut down"
_PAUSE_GROWTH = 1.5
_IDLE_SECONDS = 0.25  # how often an idle worker looks whether an object is in doubt
_POLL_SECONDS = 0.05  # how often a query that waits for a frame looks whether it is still wanted
_ROUNDING = 1e-6  # relative: whoever asks may know a limit as a float32
_QUIET_SECONDS = 60.0  # until the same trouble is told again

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears of results. Every method is called from one of the engine's threads and must not block for long.

    What goes wrong in one of them is logged, and holds up nothing.
    """

    def on_segmentation(self, segmentation: Segmentation) -> None:
        """A frame was followed (live thread)."""

    def on_heat_map(self, heat: HeatMap) -> None:
        """A heat map was computed (worker)."""

    def on_events(self, events: Sequence[TrackEvent]) -> None:
        """Objects were found, lost, seen again, re-acquired or removed (any thread that uses the engine)."""

    def on_rejected_frame(self, reason: str) -> None:
        """A frame could not be decoded or followed (live thread)."""


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
    """

    query_id: int
    expression: str
    state: QueryState
    object_name: str = ""
    message: str = ""
    object_ids: tuple[int, ...] = ()
    reference_stamp_ns: int = 0


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


@dataclass(frozen=True)
class Activity:
    """What the worker is at.

    Attributes:
        stage: "waiting for an image", one of ``stages.STAGES``, "pointing out", "refresh" of the heat maps, one that begins
            with "re-acquire" while objects in doubt are looked for, or "idle".
        since: when it began, in seconds of ``time.monotonic``.
        query_id: whose it is; 0 for none, or all.
    """

    stage: str = "idle"
    since: float = field(default_factory=time.monotonic)
    query_id: int = 0


class _MakingWayError(SessionError):
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
    """

    query_id: int
    expression: str
    work: Callable[[Job], Any] = field(repr=False)
    on_stage: Callable[[str], None] = lambda stage: None
    future: Future[QueryResult] = field(default_factory=Future)
    given_up: str = ""
    makes_way: bool = False


class Engine:
    """Owns the live thread and the worker. All methods may be called from any thread.

    Args:
        session: what is followed.
        grounder: answers queries; ``None`` until there are models.
        listener: hears of results.
        clock: seconds, for the pauses between refreshes and between attempts to re-acquire.

    Attributes:
        session: what is followed.
        activity: what the worker is at.
    """

    def __init__(
        self,
        session: TrackingSession,
        grounder: Grounder | None,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self.activity = Activity()
        self._grounder = grounder
        self._listener = listener
        self._clock = clock
        self._last_refresh = -math.inf
        self._frames: Slot[Callable[[], Frame]] = Slot()
        self._jobs: deque[Job] = deque()
        self._current: Job | None = None
        self._upkeep: Job | None = None
        self._said = ("", -math.inf)
        self._failed: deque[QueryStatus] = deque(maxlen=_FAILURES_KEPT)
        self._attempts: defaultdict[int, _Attempts] = defaultdict(_Attempts)
        self._refreshed: tuple[int, tuple[int, ...]] | None = None
        self._work_ready = threading.Condition()
        self._stopped = False
        self._threads: list[threading.Thread] = []

    @property
    def _config(self) -> SessionConfig:
        return self.session.config

    def start(self) -> None:
        """Start both threads."""
        self._stopped = False
        self._frames.open()
        for name, step in (("decaf-live", self._follow_next), ("decaf-worker", self._work_next)):
            thread = threading.Thread(target=self._repeat, args=(step,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop both threads and forget everything. Queries that wait or run end with an error; later ones are refused."""
        with self._work_ready:
            self._stopped = True
            self._work_ready.notify_all()
        self._frames.close()
        self._give_up(_STOPPED)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self.session.reset(_STOPPED)
        with self._work_ready:
            self._failed.clear()
        self._tell_events()

    def submit(self, decode: Callable[[], Frame]) -> None:
        """Offer a frame; the latest wins. ``decode`` runs on the live thread, and only if no newer frame comes first.

        After :meth:`stop` none is taken.
        """
        self._frames.put(decode)

    @property
    def frames_superseded(self) -> int:
        """Frames that a newer one replaced before their turn came."""
        return self._frames.superseded

    def query(
        self,
        expression: str,
        window_seconds: float | None = None,
        replace: bool = True,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> Job:
        """Queue a query.

        Args:
            expression: what to look for.
            window_seconds: how far back to look; ``None`` for the session's window.
            replace: whether it takes the place of all earlier queries when it succeeds.
            on_stage: see :class:`Job`.

        Raises:
            SessionError: the sentence or the window is not acceptable, or too many queries wait or are active.
        """
        expression, window_seconds = self.checked_expression(expression), self._checked_window(window_seconds)
        self.require_room(active=not replace)
        query_id = self.session.new_query_id()
        return self._queue(Job(query_id, expression, lambda job: self._ground(job, window_seconds, replace), on_stage))

    def ask_again(self, query_id: int, on_stage: Callable[[str], None] = lambda stage: None) -> Job:
        """Queue a query that was answered before: objects that are found again keep their ids, others are added.

        Raises:
            UnknownIdError: there is no such query.
            SessionError: it was not asked by a sentence, or too many queries wait.
        """
        record = next((each for each in self.session.queries if each.query_id == query_id), None)
        if record is None:
            raise self._unknown(query_id)
        if not record.expression:
            raise SessionError(f"query {query_id} is an object that was pointed out: there is no sentence to ask again")
        return self._queue(Job(query_id, record.expression, lambda job: self._ground_again(job, None, add_new=True), on_stage))

    def add_object(self, prompt: ObjectPrompt, label: str, stamp_ns: int | None = None) -> Job:
        """Queue an object that somebody points out, on the newest frame or on one of the past that is kept.

        Args:
            prompt: where it is.
            label: what to call it.
            stamp_ns: stamp of the frame that the prompt is about; the newest frame when ``None``.

        Raises:
            SessionError: the label is not acceptable, or too many queries wait or are active.
        """
        label = self._checked_text(label, "label")
        self.require_room()
        query_id = self.session.new_query_id()
        return self._queue(Job(query_id, "", lambda job: self._point_out(job, prompt, label, stamp_ns)))

    def _queue(self, job: Job) -> Job:
        with self._work_ready:
            self._require_queue()
            self._jobs.append(job)
            self._work_ready.notify()
        return job

    def _require_queue(self) -> None:
        if self._stopped:
            raise SessionError(_STOPPED)
        if len(self._jobs) >= self._config.max_pending_queries:
            raise SessionError(
                f"{len(self._jobs)} queries are waiting already (parameter max_pending_queries): try again later"
            )

    def require_room(self, active: bool = True) -> None:
        """Raise :class:`SessionError`, with the limit, unless one more query may wait, and be ``active`` in the end."""
        with self._work_ready:
            self._require_queue()
        if active:
            self._require_room_for_query()

    def _require_room_for_query(self) -> None:
        # Those under way may replace or fail, but then there is room again. One that is asked again has its place.
        active = {record.query_id for record in self.session.queries}
        with self._work_ready:
            under_way = {job.query_id for job in (*self._jobs, self._current) if job is not None}
        self.session.require_room_for_query(len(under_way - active))

    def set_grounder(self, grounder: Grounder | None) -> None:
        """Use another language model from the next query on."""
        self._grounder = grounder

    def remove_object(self, object_id: int) -> None:
        """Stop following one object.

        Raises:
            UnknownIdError: there is no such object; the message lists those there are.
        """
        self.session.remove_object(object_id)
        self._tell_events()

    def cancel(self, query_id: int) -> bool:
        """Give up a query that waits or runs, at the next step of its work; objects are as they were. Whether there was one."""
        return self._give_up("the query was cancelled", query_id)

    def _give_up(self, reason: str, query_id: int | None = None) -> bool:
        """Give up all queries that wait or run, or those of one id. Who waits is answered at once; whether there was any."""
        with self._work_ready:
            under_way = [*self._jobs, self._current]
            unwanted = [job for job in under_way if job is not None and query_id in (None, job.query_id)]
            for job in unwanted:
                job.given_up = reason
            if self._upkeep is not None and query_id in (None, self._upkeep.query_id):
                self._upkeep.given_up = reason
            waiting = [job for job in self._jobs if job.given_up]
            self._jobs = deque(job for job in self._jobs if not job.given_up)
        for job in waiting:
            job.future.set_exception(SupersededError(reason))
        return bool(unwanted)

    def remove_query(self, query_id: int) -> tuple[int, ...]:
        """Cancel a query that waits or runs, forget one that failed, or one that was answered with its objects.

        Returns:
            Ids of the objects that went with it.

        Raises:
            UnknownIdError: there is no such query; the message lists those there are.
        """
        under_way = self.cancel(query_id)
        with self._work_ready:
            failed = [status for status in self._failed if status.query_id == query_id]
            for status in failed:
                self._failed.remove(status)
        try:
            removed = self.session.remove_query(query_id)
        except UnknownIdError:
            if under_way or failed:
                return ()
            raise self._unknown(query_id) from None
        self._tell_events()
        return removed

    def _unknown(self, query_id: int) -> UnknownIdError:
        known = [status.query_id for status in self.queries()]
        return UnknownIdError(f"no query has id {query_id}; known are: {', '.join(map(str, known)) or 'none'}")

    def reset(self) -> None:
        """Forget all objects, queries and frames; queries that wait or run are given up."""
        self._give_up("given up: a reset was asked for")
        with self._work_ready:
            self._failed.clear()
        self.session.reset()
        self._tell_events()

    def queries(self) -> tuple[QueryStatus, ...]:
        """All queries that wait, run or are active, and those that failed lately, in the order of their ids."""
        with self._work_ready:
            statuses = {status.query_id: status for status in self._failed}
            under_way = {job.query_id: (job, QueryState.QUEUED) for job in self._jobs}
            if self._current is not None:
                under_way[self._current.query_id] = (self._current, QueryState.RUNNING)
        statuses |= {job.query_id: QueryStatus(job.query_id, job.expression, state) for job, state in under_way.values()}
        followed = defaultdict(list)
        for object_id, owner in self.session.object_ids.items():
            followed[owner].append(object_id)
        for record in self.session.queries:
            _, state = under_way.get(record.query_id, (None, QueryState.ACTIVE))  # one that is asked again keeps its objects
            statuses[record.query_id] = QueryStatus(
                record.query_id,
                record.expression,
                state,
                object_name=record.object_name,
                object_ids=tuple(sorted(followed[record.query_id])),
                reference_stamp_ns=record.reference_stamp_ns,
            )
        return tuple(sorted(statuses.values(), key=lambda status: status.query_id))

    @property
    def pending_queries(self) -> int:
        """Queries that wait for the worker."""
        return len(self._jobs)

    def checked_expression(self, expression: str) -> str:
        """The expression without surrounding white space, if it is one.

        Raises:
            SessionError: it is empty, too long, or holds characters that cannot be printed.
        """
        text = self._checked_text(expression, "expression")
        if not text:
            raise SessionError('the expression is empty: say what to look for, such as "the red mug"')
        return text

    def _checked_text(self, given: str, what: str) -> str:
        try:
            limits.EXPRESSION.require(len(given.strip()), f"the {what}", self._config.max_expression_length)
            return checked_line(given, what)
        except ValueError as error:
            raise SessionError(str(error)) from error

    def _checked_window(self, window_seconds: float | None) -> float | None:
        longest = self._config.window_seconds
        if window_seconds is not None and not 0 < window_seconds <= longest * (1 + _ROUNDING):
            raise SessionError(
                f"window_seconds is {window_seconds:g}; it must lie above 0 and within the {longest:g} s "
                "of frames that are kept (parameter window_seconds), or be 0 for all of them"
            )
        return window_seconds

    # --- both threads ---

    def _repeat(self, step: Callable[[], None]) -> None:
        """What a thread does until the engine stops, whatever happens."""
        while not self._stopped:
            try:
                step()
            except Exception as error:
                self._complain("internal error", error)
                time.sleep(_POLL_SECONDS)  # it may fail again at once

    def _tell(self, hear: Callable[[T], None], what: T) -> None:
        """Let somebody hear of something. What goes wrong there must cost no query its answer and no thread its life."""
        try:
            hear(what)
        except Exception as error:
            self._complain(f"{getattr(hear, '__qualname__', hear)} failed", error)

    def _complain(self, trouble: str, error: Exception) -> None:
        """Log what goes wrong, once a minute as long as it is the same: it may do so on every frame."""
        cause = f"{trouble}: {with_kind(error)}"
        said, quiet_until = self._said
        if cause != said or time.monotonic() >= quiet_until:
            self._said = cause, time.monotonic() + _QUIET_SECONDS
            expected = isinstance(error, ValueError)  # something that models or settings cannot do
            logger.log(logging.WARNING if expected else logging.ERROR, "%s", cause, exc_info=not expected)

    def _tell_events(self) -> None:
        events = self.session.take_events()
        if events:
            self._tell(self._listener.on_events, events)

    # --- live thread ---

    def _follow_next(self) -> None:
        decode = self._frames.take()
        if decode is not None:
            self.follow(decode)

    def follow(self, decode: Callable[[], Frame]) -> None:
        """Decode a frame and follow all objects to it; what the live thread does with each."""
        try:
            segmentation = self.session.push(decode())
        except (ValueError, SessionError) as error:  # what came from outside is wrong, or a model is missing
            self._tell(self._listener.on_rejected_frame, brief(error))
        except Exception as error:  # the node goes on, whatever happens to one frame
            self._complain("a frame could not be followed", error)
            self._tell(self._listener.on_rejected_frame, f"internal error: {with_kind(error)}")
        else:
            if segmentation is not None:
                self._tell(self._listener.on_segmentation, segmentation)
                self._tell_events()

    # --- worker ---

    def _work_next(self) -> None:
        with self._work_ready:
            if not self._jobs and not self._stopped:
                self._work_ready.wait(timeout=min(_IDLE_SECONDS, max(0.0, self._next_refresh() - self._clock())))
        self.work()

    def work(self) -> None:
        """Do what is most urgent, if anything: a query, an object in doubt, or the heat maps; the worker does little else."""
        with self._work_ready:
            job = self._current = self._jobs.popleft() if self._jobs else None
        try:
            if job is not None:
                self._answer(job)
            elif (record := self._query_to_ask_again()) is not None:
                self._reacquire(record)
            elif self._clock() >= self._next_refresh():
                self._refresh()
        finally:
            if self.activity.stage != "idle":
                self.activity = Activity()

    def _next_refresh(self) -> float:
        """When the heat maps are due, by the engine's clock."""
        return self._last_refresh + 1.0 / self._config.refresh_hz if self._config.refresh_hz > 0 else math.inf

    def _answer(self, job: Job) -> None:
        try:
            with while_wanted(lambda: self._require_wanted(job)):
                result = job.work(job)
        except SessionError as error:
            self._fail(job, error)
        except ValueError as error:  # the sentence or the prompt is one that the model cannot take
            logger.warning("the query %s was refused: %s", quoted(job.expression), brief(error))
            self._fail(job, SessionError(brief(error)))
        except Exception as error:  # the node goes on, and the caller learns the cause
            logger.exception("the query %s failed", quoted(job.expression))
            self._fail(job, SessionError(f"internal error: {with_kind(error)}"))
        else:
            self._current = None
            job.future.set_result(result)
        finally:
            self.session.end_query()
            self._tell_events()

    def _fail(self, job: Job, error: SessionError) -> None:
        with self._work_ready:
            if self._current is job:
                self._current = None
            if not job.given_up:  # else somebody wanted it gone
                self._failed.append(QueryStatus(job.query_id, job.expression, QueryState.FAILED, message=str(error)))
        job.future.set_exception(error)

    def _ground(self, job: Job, window_seconds: float | None, replace: bool) -> QueryResult:
        """Answer a new query."""
        return self._grounded(
            job,
            window_seconds,
            lambda snapshot, record, found, check: self.session.join(snapshot, record, found, replace, check),
        )

    def _ground_again(self, job: Job, window_seconds: float | None, add_new: bool) -> QueryResult:
        """Answer a query anew, with the objects it has."""
        return self._grounded(
            job,
            window_seconds,
            lambda snapshot, record, found, check: self.session.rejoin(snapshot, record, found, add_new, check),
        )

    def _grounded(
        self,
        job: Job,
        window_seconds: float | None,
        arrive: Callable[[Snapshot, QueryRecord, list[FoundObject], Callable[[], None]], Segmentation],
    ) -> QueryResult:
        if self._grounder is None:
            raise SessionError("no language model is loaded; see the log and diagnostics for the reason")
        self._await_frame(job)
        snapshot = self.session.begin_query(window_seconds)
        grounder = self._grounder
        if grounder is None or grounder.tracker is not snapshot.clip[-1].tracker:
            raise SupersededError("given up: the models are being changed; ask again")

        def check() -> None:
            self._require_wanted(job)
            self.session.check(snapshot)

        with while_wanted(check):
            return self._grounded_in(snapshot, job, grounder, StageClock(lambda stage: self._enter(stage, job), check), arrive)

    def _grounded_in(
        self,
        snapshot: Snapshot,
        job: Job,
        grounder: Grounder,
        clock: StageClock,
        arrive: Callable[[Snapshot, QueryRecord, list[FoundObject], Callable[[], None]], Segmentation],
    ) -> QueryResult:
        grounding = grounder.ground(snapshot.clip, job.expression, clock)
        if not grounding.objects:
            raise SessionError(f"nothing was found for {quoted(job.expression)}; the objects followed so far are kept")
        newest = snapshot.clip[-1].frame
        name, confident = grounding.attention.object_name, grounding.confident
        record = QueryRecord(job.query_id, job.expression, name, newest.stamp_ns, confident)
        heat = HeatMap(newest, job.query_id, grounding.attention.heat_thw[-1].numpy())
        with clock.stage("catch_up"):
            tracks = grounder.build_tracks(grounding, snapshot.clip, clock)
            appearances = grounder.appearances(grounding, snapshot.clip)
            found = [
                FoundObject(track, item.score, item.tracklets[0].masks_thw[-1], appearance)
                for track, item, appearance in zip(tracks, grounding.objects, appearances, strict=True)
            ]
            segmentation = arrive(snapshot, record, found, clock.check)
        self._tell(self._listener.on_heat_map, heat)
        return QueryResult(record, segmentation, grounding, clock.latency_ms)

    def _point_out(self, job: Job, prompt: ObjectPrompt, label: str, stamp_ns: int | None) -> QueryResult:
        """Follow an object that somebody points out."""
        self._await_frame(job)
        self.activity = Activity("pointing out", query_id=job.query_id)
        clock = StageClock(lambda stage: self._tell(job.on_stage, stage), lambda: self._require_wanted(job))
        record = QueryRecord(job.query_id, "", label, stamp_ns or 0, confident=True)
        with clock.stage("prompting"):
            segmentation = self.session.add(record, prompt, stamp_ns, clock.check)
        return QueryResult(record, segmentation, None, clock.latency_ms)

    def _await_frame(self, job: Job) -> None:
        """Give a camera time for the first image, unless nobody wants the result any more.

        Whoever resets the node asks again at once, and that is before the next image.
        """
        deadline = time.monotonic() + self._config.frame_wait_seconds
        self._require_wanted(job)
        self.activity = Activity("waiting for an image", query_id=job.query_id)
        while not self.session.wait_for_frame(min(_POLL_SECONDS, deadline - time.monotonic())):
            self._require_wanted(job)
            if time.monotonic() >= deadline:
                break

    def _enter(self, stage: str, job: Job) -> None:
        self.activity = Activity(f"re-acquire: {stage}" if job.makes_way else stage, query_id=job.query_id)
        self._tell(job.on_stage, stage)

    def _require_wanted(self, job: Job) -> None:
        if self._stopped:
            raise SessionError(_STOPPED)
        if job.given_up:
            raise SupersededError(job.given_up)
        if job.makes_way and self._jobs:
            raise _MakingWayError("a query is waiting")

    def _query_to_ask_again(self) -> QueryRecord | None:
        """A query with an object in doubt that an attempt is due for: the one that waits longest."""
        for query_id in self._attempts.keys() - self.session.unsettled_queries():
            del self._attempts[query_id]
        due = [each for each in self.session.queries_in_doubt() if self._is_due(self._attempts[each.query_id])]
        return min(due, key=lambda each: self._attempts[each.query_id].ended, default=None)

    def _is_due(self, attempts: _Attempts) -> bool:
        """Whether the last one is long enough ago, and there is something new to see since then.

        Each costs as much as a query, and what is gone may be gone for hours: the pause between them grows.
        """
        pause = self._config.reacquire_seconds * _PAUSE_GROWTH ** min(attempts.count, 100)
        pause = min(pause, max(self._config.reacquire_seconds, self._config.reacquire_longest_pause_seconds))
        return self._clock() - attempts.ended >= pause and attempts.stamp_ns != self._newest_stamp_ns()

    def _newest_stamp_ns(self) -> int | None:
        latest = self.session.latest
        return None if latest is None else latest.frame.stamp_ns

    def _reacquire(self, record: QueryRecord) -> None:
        """Ask a query again on the last moments, for objects of it that were lost, unless a query comes meanwhile."""
        window_seconds = min(self._config.reacquire_window_seconds, self._config.window_seconds)
        job = Job(
            record.query_id,
            record.expression,
            lambda job: self._ground_again(job, window_seconds, add_new=False),
            makes_way=True,
        )
        stamp_ns = self._newest_stamp_ns()
        if self._keep_up(job, f"query {record.query_id} could not be asked again"):
            attempts = self._attempts[record.query_id]  # forgotten once all is well again
            attempts.count, attempts.ended, attempts.stamp_ns = attempts.count + 1, self._clock(), stamp_ns

    def _keep_up(self, job: Job, failure: str) -> bool:
        """Do work of the worker's own, unless somebody asks for something meanwhile. Whether it ended, well or not.

        Args:
            job: the work.
            failure: what to say when it cannot be done.
        """
        with self._work_ready:
            self._upkeep = job
        try:
            with while_wanted(lambda: self._require_wanted(job)):
                job.work(job)
        except _MakingWayError:  # as if it had not begun
            return False
        except SessionError as error:
            logger.debug("%s: %s", failure, brief(error))
        except Exception as error:
            self._complain(failure, error)
        finally:
            self._upkeep = None
            self.session.end_query()
            self._tell_events()
        return True

    def _refresh(self) -> None:
        """Refresh the heat maps, now if nobody asks for anything, or else when there is time again."""
        last, self._last_refresh = self._last_refresh, self._clock()
        if not self._keep_up(Job(0, "", self._refresh_maps, makes_way=True), "the heat maps could not be refreshed"):
            self._last_refresh = last

    def _refresh_maps(self, _: Job) -> None:
        """Compute the heat maps of all queries anew on the newest frame, and score their objects by them."""
        queries = [record for record in self.session.queries if record.expression]
        newest, grounder = self.session.newest, self._grounder
        if newest is None or not queries or grounder is None:
            return
        stored, segmentation = newest
        subject = (stored.frame.stamp_ns, tuple(record.query_id for record in queries))
        if subject == self._refreshed:  # no new frame came: the maps would be the same
            return
        self.activity = Activity("refresh")
        maps = grounder.attention.refresh(stored.frame, [(record.expression, record.object_name) for record in queries])
        for record, values in zip(queries, maps, strict=True):
            heat = HeatMap(stored.frame, record.query_id, values.numpy())
            self.session.note_heat_map(heat, segmentation.objects, stored)
            self._tell(self._listener.on_heat_map, heat)
        self._refreshed = subject
        if self.session.suspects():  # one heat map may err: look again at once
            self._last_refresh = -math.inf
