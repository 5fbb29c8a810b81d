"""How a query is answered: look, find, catch up, join. What the worker does for a :class:`~decaf_ros.session.jobs.Job`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeAlias

from decaf_ros.datatypes import FrameWindow, HeatMap, ObjectPrompt, Segmentation
from decaf_ros.models.errors import NoBoxesError
from decaf_ros.models.wanted import while_wanted
from decaf_ros.session.errors import NothingFoundError, NotThereError, SessionError, SupersededError
from decaf_ros.session.grounding import Grounder, Grounding
from decaf_ros.session.jobs import Job, QueryRequest, QueryResult
from decaf_ros.session.objects import FoundObject
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.stages import StageClock
from decaf_ros.session.stream import Snapshot
from decaf_ros.session.tasks.task import Activity, Desk
from decaf_ros.text import quoted

_MARGIN_SECONDS = 0.05  # for a frame that comes between; less than lies between key frames
_POLL_SECONDS = 0.05  # how often a query that waits for a frame looks whether it is still wanted

_Arrive: TypeAlias = Callable[[Snapshot, QueryRecord, list[FoundObject], Callable[[], None]], Segmentation]


def find(desk: Desk, job: Job, request: QueryRequest) -> QueryResult:
    """Answer a new query.

    Args:
        desk: of the worker.
        job: the query.
        request: what is asked for.

    Raises:
        NotThereError: by the language model nothing fits, and the request does not take what is doubtful.
        SessionError: there is nothing to look at or with, nothing was found, or nobody wants the answer any more.
    """

    def join(snapshot: Snapshot, record: QueryRecord, found: list[FoundObject], check: Callable[[], None]) -> Segmentation:
        return desk.session.join(snapshot, record, found, request.replace, check)

    window_seconds = request.window_seconds
    if job.patience is not None and job.patience.since_ns is not None:
        window_seconds = _seconds_since(desk, job.patience.since_ns)
    return _ground(desk, job, window_seconds, request.accept_doubtful, join)


def _seconds_since(desk: Desk, stamp_ns: int) -> float:
    """How far back a window reaches that begins with a key frame: a little further, for it may not be lost."""
    latest = desk.session.latest
    return max(0.0, (latest.frame.stamp_ns - stamp_ns) / 1e9 if latest is not None else 0.0) + _MARGIN_SECONDS


def find_again(desk: Desk, job: Job, window_seconds: float | None, add_new: bool) -> QueryResult:
    """Answer a query anew, with the objects it has; others become its objects, too, if ``add_new``. Else as :func:`find`.

    What is doubtful it takes if it did so when it was asked first.
    """

    def rejoin(snapshot: Snapshot, record: QueryRecord, found: list[FoundObject], check: Callable[[], None]) -> Segmentation:
        return desk.session.rejoin(snapshot, record, found, add_new, check)

    accept_doubtful = any(each.query_id == job.query_id and each.accept_doubtful for each in desk.session.queries)
    return _ground(desk, job, window_seconds, accept_doubtful, rejoin)


def point_out(desk: Desk, job: Job, prompt: ObjectPrompt, label: str, stamp_ns: int | None) -> QueryResult:
    """Follow an object that somebody points out; arguments as those of :meth:`~decaf_ros.session.engine.Engine.add_object`."""
    _await_frame(desk, job)
    desk.activity = Activity("pointing out", query_id=job.query_id)
    clock = StageClock(lambda stage: desk.teller.tell(job.on_stage, stage), lambda: desk.queue.require_wanted(job))
    record = QueryRecord(job.query_id, "", label, stamp_ns or 0, confident=True)
    with clock.stage("prompting"):
        segmentation = desk.session.add(record, prompt, stamp_ns, clock.check)
    return QueryResult(record, segmentation, None, clock.latency_ms)


def _ground(desk: Desk, job: Job, window_seconds: float | None, accept_doubtful: bool, arrive: _Arrive) -> QueryResult:
    if desk.grounder is None:
        raise SessionError("no language model is loaded; see the log and diagnostics for the reason")
    _await_frame(desk, job)
    snapshot = desk.session.begin_query(window_seconds)
    grounder = desk.grounder
    if grounder is None or grounder.tracker is not snapshot.clip[-1].tracker:
        raise SupersededError("given up: the models are being changed; ask again")

    def check() -> None:
        desk.queue.require_wanted(job)
        desk.session.check(snapshot)

    def enter(stage: str) -> None:
        is_own = job.makes_way and job.patience is None
        desk.activity = Activity(f"re-acquire: {stage}" if is_own else stage, query_id=job.query_id)
        desk.teller.tell(job.on_stage, stage)

    with while_wanted(check):
        return _ground_in(desk, snapshot, job, grounder, StageClock(enter, check), accept_doubtful, arrive)


def _ground_in(
    desk: Desk,
    snapshot: Snapshot,
    job: Job,
    grounder: Grounder,
    clock: StageClock,
    accept_doubtful: bool,
    arrive: _Arrive,
) -> QueryResult:
    try:
        grounding = grounder.ground(snapshot.clip, job.expression, clock, job.grounder)
    except NoBoxesError as error:
        raise SessionError(str(error)) from error
    presence, doubted = grounding.attention.presence, grounding.doubted
    if doubted and not accept_doubtful:
        presence = _presence_otherwise(desk, job, grounder, grounding)
        doubted = not presence >= grounder.config.min_presence
    if doubted and not accept_doubtful:
        raise _not_there(grounding, job.expression)
    if not grounding.objects:
        raise NothingFoundError(f"nothing was found for {quoted(job.expression)}; the objects followed so far are kept")
    newest = snapshot.clip[-1].frame
    record = QueryRecord(
        job.query_id,
        job.expression,
        grounding.attention.object_name,
        newest.stamp_ns,
        grounding.confident,
        presence,
        accept_doubtful,
        doubted,
        grounding.grounder,
        job.grounder,
    )
    heat = HeatMap(newest, job.query_id, grounding.attention.heat_thw[-1].numpy())
    with clock.stage("catch_up"):
        tracks = grounder.build_tracks(grounding, snapshot.clip, clock)
        appearances = grounder.appearances(grounding, snapshot.clip)
        found = [
            FoundObject(track, item.score, item.tracklets[0].masks_thw[-1], appearance)
            for track, item, appearance in zip(tracks, grounding.objects, appearances, strict=True)
        ]
        segmentation = arrive(snapshot, record, found, clock.check)
    desk.teller.tell(desk.teller.listener.on_heat_map, heat)
    return QueryResult(record, segmentation, grounding, clock.latency_ms)


def _presence_otherwise(desk: Desk, job: Job, grounder: Grounder, grounding: Grounding) -> float:
    """How likely it is that there is such a thing, where more is known of it than its sentence; NaN for any other job.

    An object that is looked for again is there by the name that it got: what happened to it may be over, and its sentence true
    of nothing any more. Whether a find is it, its looks will tell. What one frame showed to have come is there if the newest
    one shows it, too: for the video path it is too new.
    """
    if job.patience is not None and job.patience.since_ns is not None:
        return grounder.attention.presences(FrameWindow(grounding.window.frames[-1:]), [job.expression])[0]
    known = (each.object_name for each in desk.session.queries if job.makes_way and each.query_id == job.query_id)
    names = [f"the {name}" for name in known if name]
    return grounder.attention.presences(grounding.window, names)[0] if names else math.nan


def _not_there(grounding: Grounding, expression: str) -> NotThereError:
    presence = grounding.attention.presence
    return NotThereError(
        f"nothing in view fits {quoted(expression)}: by the language model it is {presence:.1%} likely that there is such a "
        "thing, less than parameter min_presence; ask with accept_doubtful to follow the best guess",
        presence,
        grounding.guess,
    )


def _await_frame(desk: Desk, job: Job) -> None:
    """Give a camera time for the first image, unless nobody wants the result any more.

    Whoever resets the node asks again at once, and that is before the next image.
    """
    deadline = time.monotonic() + desk.session.config.frame_wait_seconds
    desk.queue.require_wanted(job)
    desk.activity = Activity("waiting for an image", query_id=job.query_id)
    while not desk.session.wait_for_frame(min(_POLL_SECONDS, deadline - time.monotonic())):
        desk.queue.require_wanted(job)
        if time.monotonic() >= deadline:
            break
