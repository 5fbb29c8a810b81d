"""The two threads of a tracking node, free of ROS: *live* follows frames, the *worker* does its tasks in order of urgency.

Whoever has frames calls :meth:`Engine.submit`; whoever has a sentence calls :meth:`Engine.query` and gets a future. Results
reach a :class:`~decaf_ros.session.listener.Listener` on the thread that made them.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from decaf_ros import limits
from decaf_ros.config import GrounderName, checked_grounder
from decaf_ros.datatypes import Frame, ObjectPrompt
from decaf_ros.session.busy import BusyShare
from decaf_ros.session.errors import SessionError, UnknownIdError
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.jobs import Job, JobQueue, Look, Patience, QueryRequest, QueryState, QueryStatus
from decaf_ros.session.listener import Listener, Teller
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.slot import Slot
from decaf_ros.session.tasks import answering
from decaf_ros.session.tasks.asked import AskedJobs
from decaf_ros.session.tasks.doubts import ObjectsInDoubt
from decaf_ros.session.tasks.heat_maps import HeatMaps
from decaf_ros.session.tasks.read_ahead import ReadAhead, ReadSoFar
from decaf_ros.session.tasks.standing import StandingQueries
from decaf_ros.session.tasks.task import Activity, Desk, Task
from decaf_ros.text import brief, checked_line, with_kind

_STOPPED = "the node is being deactivated or shut down"
_IDLE_SECONDS = 0.25  # how often an idle worker looks whether an object is in doubt
_AFTER_ERROR_SECONDS = 0.05
_ROUNDING = 1e-6  # relative: whoever asks may know a limit as a float32


class Engine:
    """Owns the live thread and the worker. All methods may be called from any thread.

    Args:
        session: what is followed.
        grounder: answers queries; ``None`` until there are models.
        listener: hears of results.
        clock: seconds, for the pauses between refreshes and between attempts to re-acquire.

    Attributes:
        session: what is followed.
    """

    def __init__(
        self,
        session: TrackingSession,
        grounder: Grounder | None,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self._queue = JobQueue()
        self._teller = Teller(listener)
        self._desk = Desk(session, self._queue, self._teller, clock, grounder)
        self._tracking = BusyShare(clock)
        desk = self._desk
        urgent: tuple[Task, ...] = (AskedJobs(desk), ObjectsInDoubt(desk), StandingQueries(desk), HeatMaps(desk))
        self._read_ahead = ReadAhead(self._desk, urgent, self._tracking)
        self._tasks: tuple[Task, ...] = (*urgent, self._read_ahead)
        self._frames: Slot[Callable[[], Frame]] = Slot()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start both threads."""
        self._queue.open()
        self._frames.open()
        for name, step in (("decaf-live", self._follow_next), ("decaf-worker", self._work_next)):
            thread = threading.Thread(target=self._repeat, args=(step,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop both threads and forget everything. Queries that wait or run end with an error; later ones are refused."""
        self._queue.close(_STOPPED)
        self._frames.close()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self.session.reset(_STOPPED)
        self._queue.forget_failed()
        self._tell_events()

    def set_grounder(self, grounder: Grounder | None) -> None:
        """Use another language model from the next query on."""
        self._desk.grounder = grounder

    # --- who has frames ---

    def submit(self, decode: Callable[[], Frame]) -> None:
        """Offer a frame; the latest wins. ``decode`` runs on the live thread, and only if no newer frame comes first.

        After :meth:`stop` none is taken.
        """
        self._frames.put(decode)

    @property
    def frames_superseded(self) -> int:
        """Frames that a newer one replaced before their turn came."""
        return self._frames.superseded

    # --- who asks ---

    def query(
        self,
        request: QueryRequest,
        on_stage: Callable[[str], None] = lambda stage: None,
        on_look: Callable[[Look], None] = lambda look: None,
    ) -> Job:
        """Queue a query.

        Args:
            request: what is asked for.
            on_stage: see :class:`Job`.
            on_look: see :class:`~decaf_ros.session.jobs.Patience`.

        Raises:
            SessionError: the sentence, the window or the grounder is not acceptable, or too many queries wait or are active.
        """
        request = replace(request, expression=self._checked_text(request.expression, "expression"))
        if not request.expression:
            raise SessionError('the expression is empty: say what to look for, such as "the red mug"')
        self._check_window(request.window_seconds)
        grounder = self._checked_grounder(request.grounder)
        self._check_wait(request)
        self.require_room(active=not request.replace)
        query_id = self.session.new_query_id()
        job = Job(
            query_id,
            request.expression,
            lambda job: answering.find(self._desk, job, request),
            on_stage,
            grounder=grounder,
        )
        if request.wait_seconds:
            job.patience = Patience(request.wait_seconds, self._desk.clock() + request.wait_seconds, on_look)
        return self._put(job)

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
        job = Job(query_id, record.expression, lambda job: answering.find_again(self._desk, job, None, add_new=True), on_stage)
        job.grounder = record.asked_grounder
        return self._put(job)

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
        return self._put(Job(query_id, "", lambda job: answering.point_out(self._desk, job, prompt, label, stamp_ns)))

    def _put(self, job: Job) -> Job:
        self._queue.put(job, self.session.config.max_pending_queries, self.session.config.max_standing_queries)
        return job

    def require_room(self, active: bool = True) -> None:
        """Raise :class:`SessionError`, with the limit, unless one more query may wait, and be ``active`` in the end."""
        self._queue.require_room(self.session.config.max_pending_queries)
        if active:
            # Those under way may replace or fail, but then there is room again. One that is asked again has its place.
            known = {record.query_id for record in self.session.queries}
            self.session.require_room_for_query(len(self._queue.under_way() - known))

    def _checked_text(self, given: str, what: str) -> str:
        try:
            limits.EXPRESSION.require(len(given.strip()), f"the {what}", self.session.config.max_expression_length)
            return checked_line(given, what)
        except ValueError as error:
            raise SessionError(str(error)) from error

    def _checked_grounder(self, name: str | None) -> GrounderName | None:
        try:
            return None if name is None else checked_grounder(name)
        except ValueError as error:
            raise SessionError(f"{error}; it may be left empty for the node's parameter") from error

    def _check_window(self, window_seconds: float | None) -> None:
        longest = self.session.config.window_seconds
        if window_seconds is not None and not 0 < window_seconds <= longest * (1 + _ROUNDING):
            raise SessionError(
                f"window_seconds is {window_seconds:g}; it must lie above 0 and within the {longest:g} s "
                "of frames that are kept (parameter window_seconds), or be 0 for all of them"
            )

    def _check_wait(self, request: QueryRequest) -> None:
        longest = limits.WAIT.most
        assert longest is not None, "no parameter sets it"
        if not 0 <= request.wait_seconds <= longest:
            raise SessionError(
                f"wait_seconds is {request.wait_seconds:g}; it must lie between 0, to look once, and {longest:g} s "
                f"(limit {limits.WAIT.name})"
            )
        if not request.wait_seconds:
            return
        grounder = self._desk.grounder
        never_refused = grounder is not None and grounder.config.min_presence <= 0
        if request.accept_doubtful or never_refused:
            cause = "accept_doubtful" if request.accept_doubtful else "the parameter min_presence 0"
            raise SessionError(
                f"with {cause} the best guess is taken at once, so that there is nothing to wait for: "
                "change that, or ask without wait_seconds"
            )

    # --- who has enough ---

    def cancel(self, query_id: int) -> bool:
        """Give up a query that waits or runs, at the next step of its work; objects are as they were. Whether there was one."""
        return self._queue.give_up("the query was cancelled", query_id)

    def remove_object(self, object_id: int) -> None:
        """Stop following one object.

        Raises:
            UnknownIdError: there is no such object; the message lists those there are.
        """
        self.session.remove_object(object_id)
        self._tell_events()

    def remove_query(self, query_id: int) -> tuple[int, ...]:
        """Cancel a query that waits or runs, forget one that failed, or one that was answered with its objects.

        Returns:
            Ids of the objects that went with it.

        Raises:
            UnknownIdError: there is no such query; the message lists those there are.
        """
        under_way = self.cancel(query_id)
        failed = self._queue.forget_failed(query_id)
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
        self._queue.give_up("given up: a reset was asked for")
        self._queue.forget_failed()
        self.session.reset()
        self._tell_events()

    # --- who wants to know ---

    def queries(self) -> tuple[QueryStatus, ...]:
        """All queries that wait, run, stand or are active, and those that failed lately, in the order of their ids."""
        statuses = self._queue.statuses()
        followed = defaultdict(list)
        for object_id, owner in self.session.object_ids.items():
            followed[owner].append(object_id)
        for record in self.session.queries:
            again = statuses.get(record.query_id)  # asked again it keeps its objects, also when that fails
            statuses[record.query_id] = QueryStatus(
                record.query_id,
                record.expression,
                QueryState.ACTIVE if again is None or again.state is QueryState.FAILED else again.state,
                object_name=record.object_name,
                object_ids=tuple(sorted(followed[record.query_id])),
                reference_stamp_ns=record.reference_stamp_ns,
                presence=record.presence,
            )
        return tuple(sorted(statuses.values(), key=lambda status: status.query_id))

    @property
    def pending_queries(self) -> int:
        """Queries that wait for the worker."""
        return self._queue.waiting

    @property
    def standing_queries(self) -> int:
        """Queries that wait for what is not there yet."""
        return len(self._queue.standing)

    @property
    def activity(self) -> Activity:
        """What the worker is at."""
        return self._desk.activity

    @property
    def read_so_far(self) -> ReadSoFar:
        """How far the window has been read ahead."""
        return self._read_ahead.so_far

    def _tell_events(self) -> None:
        self._teller.tell_events(self.session.take_events())

    # --- both threads ---

    def _repeat(self, step: Callable[[], None]) -> None:
        """What a thread does until the engine stops, whatever happens."""
        while self._queue.is_open:
            try:
                step()
            except Exception as error:
                self._teller.complain("internal error", error)
                time.sleep(_AFTER_ERROR_SECONDS)  # it may fail again at once

    def _follow_next(self) -> None:
        decode = self._frames.take()
        if decode is not None:
            self.follow(decode)

    def follow(self, decode: Callable[[], Frame]) -> None:
        """Decode a frame and follow all objects to it; what the live thread does with each."""
        listener = self._teller.listener
        try:
            with self._tracking.busy():
                segmentation = self.session.push(decode())
        except (ValueError, SessionError) as error:  # what came from outside is wrong, or a model is missing
            self._teller.tell(listener.on_rejected_frame, brief(error))
        except Exception as error:  # the node goes on, whatever happens to one frame
            self._teller.complain("a frame could not be followed", error)
            self._teller.tell(listener.on_rejected_frame, f"internal error: {with_kind(error)}")
        else:
            if segmentation is not None:
                self._teller.tell(listener.on_segmentation, segmentation)
                self._tell_events()

    def _work_next(self) -> None:
        if not self.work():
            self._queue.wait(min(_IDLE_SECONDS, *(task.due_in() for task in self._tasks)))

    def work(self) -> bool:
        """Do what is most urgent, if anything; the worker does little else. Whether there was something."""
        task = next((each for each in self._tasks if each.due_in() <= 0), None)
        if task is None:
            return False
        try:
            task.step()
        finally:
            self.session.end_query()
            self._tell_events()
            if self._desk.activity.stage != "idle":
                self._desk.activity = Activity()
        return True
