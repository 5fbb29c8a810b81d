"""What the worker does between queries, in a time of the test's own: the engine's threads are not started."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_session import PERIOD_NS, NotedTrack, NotingTracker, follow, frame

from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.datatypes import EventKind, Frame, FrameWindow, HeatMap, ObjectPrompt, Segmentation, TrackEvent, Visibility
from decaf_ros.models.errors import NoBoxesError
from decaf_ros.models.wanted import require_wanted
from decaf_ros.session.engine import Engine
from decaf_ros.session.errors import Guess, NoFramesError, NotThereError, SessionError, UnknownIdError
from decaf_ros.session.jobs import Job, QueryRequest, QueryState
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.stages import StageClock

GUESS = Guess((0, 0, 8, 6), 0.9, 0)
PROMPT = ObjectPrompt(mask_hw=np.ones((6, 8), dtype=np.bool_))


class StubGrounder:
    """Finds nothing, or what it is told to; maps that agree with every mask, unless told otherwise."""

    def __init__(self, engine_time: list[float], tracker: NotingTracker) -> None:
        self.attention, self.tracker = self, tracker
        self.asked: list[float] = []
        self.grounders: list[str | None] = []
        self.refreshed: list[tuple[int, int]] = []
        self.finds: list[NotedTrack] = []
        self.map = torch.tensor([[1.0, 0.9, 0.0]])
        self.config, self.presence, self.presence_by_name = GroundingConfig(min_presence=0.5), math.nan, 0.0
        self.meanwhile: Callable[[], object] = lambda: None
        self.reads_ahead, self.reading_takes = False, 0.0
        self.read: list[int] = []
        self._time = engine_time

    def ground(self, clip: Sequence, expression: str, clock: StageClock, grounder: str | None) -> SimpleNamespace:
        self.asked.append(self._time[0])
        self.grounders.append(grounder)
        with clock.stage("prefill"):
            self.meanwhile()
            clock.check()
        objects = [SimpleNamespace(score=1.0, tracklets=[SimpleNamespace(masks_thw=[each.mask_hw])]) for each in self.finds]
        attention = SimpleNamespace(object_name="mug", heat_thw=self.map[None], presence=self.presence)
        doubted, guess = self.presence < 0.5, GUESS if objects else None
        told = {"window": clip, "confident": True, "doubted": doubted, "guess": guess, "grounder": "box"}
        return SimpleNamespace(objects=objects, attention=attention, **told)

    def build_tracks(self, *_: object) -> list[NotedTrack]:
        return self.finds

    def appearances(self, *_: object) -> list[torch.Tensor]:
        return [each.appearance for each in self.finds]

    def presences(self, window: Sequence, expressions: Sequence[str]) -> list[float]:
        assert list(expressions) == ["the mug"]
        return [self.presence_by_name]

    def refresh(self, image: Frame, queries: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        self.refreshed.append((image.stamp_ns, len(queries)))
        self.meanwhile()
        require_wanted()  # as every layer of a model does
        return [self.map] * len(queries)

    def unread(self, window: FrameWindow) -> tuple[Frame, ...]:
        return tuple(each for each in window.frames if each.stamp_ns not in self.read) if self.reads_ahead else ()

    def prepare(self, window: FrameWindow, frame: Frame) -> None:
        self._time[0] += self.reading_takes
        self.meanwhile()
        require_wanted()
        self.read.append(frame.stamp_ns)


class Ears:
    """Notes what is said."""

    def __init__(self) -> None:
        self.maps: list[HeatMap] = []
        self.events: list[TrackEvent] = []
        self.rejections: list[str] = []

    def on_segmentation(self, segmentation: Segmentation) -> None:
        require_wanted()

    def on_heat_map(self, heat: HeatMap) -> None:
        self.maps.append(heat)

    def on_events(self, events: Sequence[TrackEvent]) -> None:
        self.events += events

    def on_rejected_frame(self, reason: str) -> None:
        self.rejections.append(reason)


class BrokenEars:
    """Can do nothing with what it hears."""

    def hear(self, _: object) -> None:
        raise RuntimeError("cannot publish data")

    on_segmentation = on_heat_map = on_events = on_rejected_frame = hear


class World:
    """A camera at 10 Hz, whose frames are all key frames unless told otherwise, and a worker that has time after each."""

    def __init__(self, window_hz: float = 10.0) -> None:
        self.time = [0.0]
        tracker = NotingTracker()
        self.ears, self.grounder = Ears(), StubGrounder(self.time, tracker)
        self.session = TrackingSession(tracker, SessionConfig(window_hz=window_hz))
        self.engine = Engine(self.session, self.grounder, self.ears, clock=lambda: self.time[0])
        self.track = NotedTrack(mask_hw=np.ones((6, 8), dtype=np.bool_))
        follow(self.session, self.track)

    def pass_time(self, seconds: float) -> None:
        self.time[0] = round(self.time[0] + seconds, 6)

    def film(self, frames: int) -> None:
        for _ in range(frames):
            self.pass_time(0.1)
            self.engine.follow(lambda: frame(round(self.time[0] * 10)))
            self.engine.work()
        assert self.ears.rejections == []


@pytest.fixture
def world() -> World:
    return World()


def test_attempts_to_re_acquire_come_less_and_less_often_up_to_a_limit_and_end_when_the_object_is_seen(world):
    world.track.presence = 0.1
    world.film(600)
    pauses = np.diff(world.grounder.asked)
    assert world.grounder.asked[0] == pytest.approx(0.6)  # lost on the frame of 0.1 s, for half a second
    assert (pauses[:5] >= [0.75, 1.125, 1.6875, 2.53125, 3.796875]).all()
    assert (pauses[:5] < np.array([0.75, 1.125, 1.6875, 2.53125, 3.796875]) + 0.11).all()  # on the next frame
    assert pauses[6:] == pytest.approx(5.0, abs=0.11), "the longest pause"
    world.track.presence = 0.9
    attempts = len(world.grounder.asked)
    world.film(100)
    assert len(world.grounder.asked) == attempts
    world.track.presence = 0.1
    world.film(20)
    assert np.diff(world.grounder.asked[attempts:])[0] < 1.0, "from the beginning"


def test_an_object_looked_for_in_vain_stays_as_it_is_and_its_query_stays_active(world):
    world.track.presence = 0.1
    world.film(50)
    (tracked,) = world.session.latest.objects
    assert (tracked.object_id, tracked.visibility) == (1, Visibility.LOST)
    (status,) = world.engine.queries()
    assert (status.state, status.object_ids) == (QueryState.ACTIVE, (1,))
    assert [event.kind for event in world.ears.events] == [EventKind.FOUND, EventKind.LOST]


def test_one_frame_is_read_once_for_all_queries_and_not_again_while_none_comes(world):
    follow(world.session, NotedTrack(), replace=False)
    world.film(1)
    assert world.grounder.refreshed == [(PERIOD_NS, 2)]
    assert [(heat.query_id, heat.frame.stamp_ns) for heat in world.ears.maps] == [(1, PERIOD_NS), (2, PERIOD_NS)]
    world.time[0] += 60.0  # the camera stands still
    world.engine.work()
    assert len(world.grounder.refreshed) == 1
    world.film(1)
    assert len(world.grounder.refreshed) == 2, "at once"


@pytest.mark.parametrize(("hz", "takes_s", "period_s"), [(1.0, 0.3, 1.0), (1.0, 0.8, 1.6), (5.0, 0.35, 0.7)])
def test_heat_maps_rest_as_long_as_they_took(world, hz, takes_s, period_s):
    world.session.config = SessionConfig(refresh_hz=hz)
    world.grounder.meanwhile = lambda: world.pass_time(takes_s)
    world.film(60)
    periods = np.diff([stamp_ns for stamp_ns, _ in world.grounder.refreshed]) / 1e9
    assert len(periods) > 5
    assert (periods >= period_s - 1e-6).all()
    assert (periods < period_s + 0.11).all(), "on the next frame"


def test_a_mask_that_a_heat_map_disagrees_with_is_looked_at_again_after_that_rest(world):
    world.session.config = SessionConfig(reacquire_after_refreshes=3)
    world.grounder.map = torch.tensor([[1.0, 0.0, 0.0]])
    began: list[float] = []
    world.grounder.meanwhile = lambda: (began.append(world.time[0]), world.pass_time(0.3))
    while not world.grounder.asked:
        world.film(1)
    assert np.diff(began[:3]) == pytest.approx(0.6, abs=0.11), "not a second"


def test_heat_maps_are_of_key_frames_and_score_the_masks_that_were_on_them():
    world = World(window_hz=2.0)
    world.grounder.map = torch.tensor([[1.0, 0.0]])
    follow(world.session, drifting := NotedTrack())
    for number in range(1, 8):
        drifting.mask_hw = np.broadcast_to((np.arange(8) < 4) == (number == 5), (6, 8))  # left, and right later and before
        world.engine.follow(lambda number=number: frame(number))
    world.engine.work()
    assert [heat.frame.stamp_ns for heat in world.ears.maps] == [5 * PERIOD_NS]
    world.engine.follow(lambda: frame(8))
    assert [each.attention_consistency for each in world.session.latest.objects] == [1.0]


def test_the_worker_rests_until_something_is_due(world):
    assert world.engine.work(), "heat maps"
    assert not world.engine.work()
    world.engine.query(QueryRequest("the mug"))
    assert world.engine.work()
    assert not world.engine.work()
    world.track.presence = 0.1
    world.film(6)  # lost, and looked for in vain
    assert not world.engine.work()
    world.time[0] += 0.9
    assert world.engine.work(), "heat maps"
    assert not world.engine.work()


def test_a_query_that_waits_is_cancelled_at_once_and_one_asked_again_keeps_its_objects(world):
    job = world.engine.query(QueryRequest("the mug"))
    again = world.engine.ask_again(1)
    assert [(each.query_id, each.state, each.object_ids) for each in world.engine.queries()] == [
        (1, QueryState.QUEUED, (1,)),
        (job.query_id, QueryState.QUEUED, ()),
    ]
    assert world.engine.cancel(job.query_id)
    with pytest.raises(SessionError, match="was cancelled"):
        job.future.result(timeout=0)
    world.engine.work()
    with pytest.raises(SessionError, match="nothing was found"):
        again.future.result(timeout=0)
    assert world.session.object_ids == {1: 1}


def test_a_query_is_asked_again_by_the_grounder_that_it_was_asked_by(world):
    found = NotedTrack(mask_hw=np.ones((6, 8), dtype=np.bool_))
    world.grounder.finds = [found]
    asked = world.engine.query(QueryRequest("the mug", grounder="both"))
    world.engine.work()
    assert asked.future.result(timeout=0).record.grounder == "box"
    world.engine.ask_again(asked.query_id)
    world.engine.work()
    found.presence = 0.1
    world.film(12)
    assert len(world.grounder.grounders) > 2, "the object was lost, and looked for"
    assert set(world.grounder.grounders) == {"both"}


def test_a_grounder_that_is_none_or_that_the_model_cannot_be_is_refused(world):
    with pytest.raises(SessionError, match=r"grounder must be one of decaf, box, both, got 'boxes'.*left empty"):
        world.engine.query(QueryRequest("the mug", grounder="boxes"))

    def refuse() -> None:
        raise NoBoxesError("it was not taught to")

    world.grounder.meanwhile = refuse
    job = world.engine.query(QueryRequest("the mug", grounder="box"))
    world.engine.work()
    with pytest.raises(SessionError, match=r"^it was not taught to$"):
        job.future.result(timeout=0)


def test_what_is_not_there_changes_no_track_and_the_best_guess_is_followed_on_request(world):
    world.grounder.finds, world.grounder.presence = [NotedTrack(mask_hw=np.ones((6, 8), dtype=np.bool_))], 0.03
    refused = world.engine.query(QueryRequest("the purple elephant"))
    world.engine.work()
    error = refused.future.exception(timeout=0)
    assert isinstance(error, NotThereError)
    assert (error.presence, error.guess) == (0.03, GUESS)
    assert "nothing in view fits 'the purple elephant'" in str(error)
    assert "3.0%" in str(error)
    assert world.session.object_ids == {1: 1}
    assert [each.kind for each in world.ears.events] == [EventKind.FOUND], "of the first object alone"
    _, listed = world.engine.queries()
    assert (listed.state, listed.presence, listed.object_ids) == (QueryState.FAILED, 0.03, ())

    taken = world.engine.query(QueryRequest("the purple elephant", replace=False, accept_doubtful=True))
    world.engine.work()
    assert taken.future.result(timeout=0).record.doubted
    assert world.session.object_ids == {1: 1, 2: taken.query_id}
    assert world.engine.queries()[-1].presence == 0.03


@pytest.mark.parametrize(
    ("presence", "by_name", "reacquired"), [(0.49, 0.49, 0), (0.49, 0.5, 1), (0.5, 0.0, 1), (math.nan, math.nan, 1)]
)
def test_an_object_is_found_again_only_where_there_is_such_a_thing(world, presence, by_name, reacquired):
    """By its sentence, or by its name, for what the sentence tells of may be over."""
    world.grounder.finds = [NotedTrack(mask_hw=np.ones((6, 8), dtype=np.bool_))]
    world.grounder.presence, world.grounder.presence_by_name = presence, by_name
    world.track.presence = 0.1
    world.film(12)
    assert len(world.grounder.asked) > 0
    assert world.session.reacquired == reacquired


def test_a_query_that_failed_is_listed_until_it_is_removed(world):
    job = world.engine.query(QueryRequest("the mug"))
    world.engine.work()
    assert [(each.query_id, each.state) for each in world.engine.queries()] == [(1, QueryState.ACTIVE), (2, QueryState.FAILED)]
    assert job.future.exception(timeout=0) is not None
    assert world.engine.remove_query(2) == ()
    with pytest.raises(UnknownIdError, match="no query has id 2; known are: 1"):
        world.engine.remove_query(2)


@pytest.mark.parametrize(
    "ask", [lambda engine: engine.query(QueryRequest("the mug")), lambda engine: engine.add_object(PROMPT, "mug")]
)
def test_what_is_asked_right_after_a_reset_waits_for_the_next_frame(world, ask):
    world.session.config = SessionConfig(frame_wait_seconds=60.0)
    world.engine.reset()
    world.grounder.finds = [world.track]
    job = ask(world.engine)
    camera = threading.Timer(0.2, lambda: world.engine.follow(lambda: frame(7)))
    camera.start()
    world.engine.work()
    assert job.future.result(timeout=0).segmentation.frame.stamp_ns == 7 * PERIOD_NS
    camera.join()


def test_without_a_camera_it_waits_as_long_as_it_is_told_and_no_longer_than_anybody_wants_the_answer(world):
    world.engine.reset()
    world.session.config = SessionConfig(frame_wait_seconds=0.1)
    job = world.engine.query(QueryRequest("the mug"))
    begin = time.monotonic()
    world.engine.work()
    assert time.monotonic() - begin >= 0.1
    with pytest.raises(NoFramesError):
        job.future.result(timeout=0)
    world.session.config = SessionConfig(frame_wait_seconds=60.0)
    job = world.engine.query(QueryRequest("the mug"))
    threading.Timer(0.1, lambda: world.engine.cancel(job.query_id)).start()
    world.engine.work()
    with pytest.raises(SessionError, match="was cancelled"):
        job.future.result(timeout=0)


def test_a_query_that_is_removed_while_its_objects_catch_up_is_cancelled(world):
    world.grounder.finds = [NotedTrack()]
    world.grounder.meanwhile = lambda: [world.engine.follow(lambda number=number: frame(number)) for number in range(1, 6)]
    job = world.engine.query(QueryRequest("the mug", replace=True))
    removed = []

    def step() -> None:
        if len(world.grounder.finds[0].stamps) == 4:  # about to be carried over the last frame
            removed.append(world.engine.remove_query(job.query_id))

    world.grounder.tracker.on_step = step
    world.engine.work()
    assert removed == [()]
    with pytest.raises(SessionError, match="was cancelled"):
        job.future.result(timeout=0)
    assert [(each.query_id, each.state) for each in world.engine.queries()] == [(1, QueryState.ACTIVE)]
    assert world.session.object_ids == {1: 1}


def test_whoever_waits_for_an_answer_when_the_engine_stops_learns_that_and_nothing_is_left(world):
    world.engine.query(QueryRequest("the mug"))
    world.engine.work()  # fails
    job = world.engine.query(QueryRequest("the mug"))
    world.grounder.meanwhile = world.engine.stop
    world.engine.work()
    with pytest.raises(SessionError, match="deactivated or shut down"):
        job.future.result(timeout=0)
    assert world.engine.queries() == ()


def test_the_rate_of_heat_maps_changes_at_once(world):
    world.session.config = SessionConfig(refresh_hz=0.001)
    world.film(2)
    refreshed = len(world.grounder.refreshed)
    world.film(50)
    assert len(world.grounder.refreshed) == refreshed
    world.session.config = SessionConfig(refresh_hz=5.0)
    world.film(10)
    assert len(world.grounder.refreshed) == refreshed + 5
    world.session.config = SessionConfig(refresh_hz=0.0)
    world.film(50)
    assert len(world.grounder.refreshed) == refreshed + 5


def test_a_query_that_runs_takes_a_place_too(world):
    world.session.config = SessionConfig(max_queries=2)
    world.grounder.finds = [world.track]
    refused = []

    def ask() -> None:
        with pytest.raises(SessionError, match="max_queries"):
            world.engine.query(QueryRequest("the cup", replace=False))
        refused.append(True)

    world.grounder.meanwhile = ask
    world.engine.query(QueryRequest("the mug", replace=False))
    world.engine.work()
    assert refused
    assert len(world.session.queries) == 2
    world.grounder.meanwhile = lambda: None
    world.engine.ask_again(1)
    with pytest.raises(SessionError, match="2 queries are active already"):
        world.engine.query(QueryRequest("the cup", replace=False))


def test_an_object_pointed_out_is_listed_with_the_frame_it_was_pointed_out_on(world):
    world.engine.add_object(PROMPT, "mug")
    world.film(1)
    assert world.engine.queries()[-1].reference_stamp_ns == world.session.latest.frame.stamp_ns


def test_too_many_queries_are_refused_with_the_way_out(world):
    world.session.config = type(world.session.config)(max_queries=1)
    with pytest.raises(SessionError, match=r"1 queries are active already \(parameter max_queries\): remove one"):
        world.engine.query(QueryRequest("the mug", replace=False))
    world.engine.query(QueryRequest("the mug", replace=True))


def test_a_limit_that_was_rounded_to_float32_is_within_itself(world):
    world.session.config = SessionConfig(window_seconds=4.3)
    world.engine.query(QueryRequest("the mug", window_seconds=float(np.float32(4.3))))
    with pytest.raises(SessionError, match=r"within the 4.3 s"):
        world.engine.query(QueryRequest("the mug", window_seconds=4.301))


def test_a_mask_that_attention_keeps_disputing_makes_attempts_as_rare_until_attention_agrees(world):
    world.grounder.finds = [world.track]  # the answer is each time where the object is followed
    agreeing, world.grounder.map = world.grounder.map, torch.tensor([[1.0, 0.0, 0.0]])
    world.film(600)
    pauses = np.diff(world.grounder.asked)
    assert (pauses[:5] >= [0.75, 1.125, 1.6875, 2.53125, 3.796875]).all()
    assert (pauses[5:] >= 4.9).all()
    attempts = len(world.grounder.asked)
    world.grounder.map, disputing = agreeing, world.grounder.map
    world.film(60)
    world.grounder.map = disputing
    world.film(60)
    assert np.diff(world.grounder.asked[attempts:])[1] < 4.0, "from the beginning"


def test_no_attempt_is_made_on_the_frames_of_the_last_one(world):
    world.track.presence = 0.1
    world.film(6)
    assert len(world.grounder.asked) == 1
    world.time[0] += 60.0  # the camera stands still
    world.engine.work()
    assert len(world.grounder.asked) == 1
    world.film(1)
    assert len(world.grounder.asked) == 2


def test_an_attempt_makes_way_for_a_query_and_is_made_again_after_it(world):
    world.track.presence = 0.1
    world.film(5)
    jobs: list[Job] = []
    world.grounder.meanwhile = lambda: jobs or jobs.append(world.engine.query(QueryRequest("the cup")))
    world.film(1)
    assert len(world.grounder.asked) == 1
    assert not jobs[0].future.done()
    world.engine.work()
    assert jobs[0].future.done()
    world.engine.work()
    assert len(world.grounder.asked) == 3, "at once, and on the same frame"
    world.film(7)
    assert len(world.grounder.asked) == 3, "the pause is that after one attempt"
    world.film(2)
    assert len(world.grounder.asked) == 4


def test_a_reset_answers_queries_that_wait_at_once_and_lists_none(world):
    running, waiting = world.engine.query(QueryRequest("the mug")), world.engine.query(QueryRequest("the cup"))
    world.grounder.meanwhile = world.engine.reset
    world.engine.work()
    for job in (running, waiting):
        with pytest.raises(SessionError, match="a reset was asked for"):
            job.future.result(timeout=0)
    assert world.engine.pending_queries == 0
    assert world.engine.queries() == ()


def test_after_a_stop_nothing_is_taken_before_the_next_start(world):
    late = world.engine.query(QueryRequest("the mug"))
    stale: list[int] = []
    world.engine.submit(lambda: stale.append(1) or frame(1))
    world.engine.stop()
    world.engine.submit(lambda: stale.append(2) or frame(2))
    for ask in (lambda: world.engine.query(QueryRequest("the cup")), late.future.result):
        with pytest.raises(SessionError, match="deactivated or shut down"):
            ask()
    world.engine.start()
    followed = threading.Event()
    world.ears.on_segmentation = lambda _: followed.set()
    world.engine.submit(lambda: frame(3))
    assert followed.wait(30.0)
    world.engine.stop()
    assert (stale, world.engine.frames_superseded) == ([], 0)


def test_a_listener_that_fails_costs_neither_answers_nor_threads():
    tracker = NotingTracker()
    session, grounder = TrackingSession(tracker), StubGrounder([0.0], tracker)
    grounder.finds = [NotedTrack()]
    engine = Engine(session, grounder, BrokenEars())
    engine.start()
    try:
        for number in range(2):
            decoded = threading.Event()
            engine.submit(lambda number=number, decoded=decoded: decoded.set() or frame(number))
            assert decoded.wait(30.0)
            while session.latest is None:
                time.sleep(0.001)
            answer = engine.query(QueryRequest("the mug"), on_stage=BrokenEars().hear).future.result(timeout=30.0)
            assert session.object_ids == {number + 1: answer.record.query_id}
    finally:
        engine.stop()


def test_heat_maps_make_way_for_a_query_and_come_right_after_it(world):
    jobs: list[Job] = []
    world.grounder.meanwhile = lambda: jobs or jobs.append(world.engine.query(QueryRequest("the cup")))
    world.film(1)
    assert (len(world.grounder.refreshed), world.ears.maps) == (1, [])
    assert not jobs[0].future.done()
    world.engine.work()
    assert jobs[0].future.done()
    world.engine.work()
    assert [heat.frame.stamp_ns for heat in world.ears.maps] == [PERIOD_NS], "though they were due a second after the first try"


@pytest.mark.parametrize("give_up", [Engine.reset, Engine.stop, lambda engine: engine.remove_query(1)])
def test_work_of_the_worker_s_own_is_given_up_at_its_next_step(world, give_up):
    steps = []

    def attempt() -> None:
        if len(world.grounder.asked) == 1 and not steps:
            steps.append("before")
            give_up(world.engine)
            require_wanted()
            steps.append("after")

    world.track.presence = 0.1
    world.grounder.meanwhile = attempt
    world.film(6)
    assert steps == ["before"]
    assert world.session.object_ids == {}
    assert EventKind.REACQUIRED not in [event.kind for event in world.ears.events]


def require_no_next_layer(world: World, interrupt: Callable[[Job], object], cause: str) -> None:
    """What happens while a model computes a layer of a query ends the query before the next one."""
    job = world.engine.query(QueryRequest("the cup"))

    def layer() -> None:
        interrupt(job)
        require_wanted()
        pytest.fail("the next layer")

    world.grounder.meanwhile = layer
    world.engine.work()
    with pytest.raises(SessionError, match=cause):
        job.future.result(timeout=0)


def test_a_query_is_given_up_deep_in_a_model(world):
    require_no_next_layer(world, lambda job: world.engine.cancel(job.query_id), "was cancelled")


def test_a_jump_of_the_stamps_ends_a_query_at_its_next_step(world):
    world.film(30)
    require_no_next_layer(world, lambda job: world.engine.follow(lambda: frame(1)), "stamps went back")


def test_what_the_worker_is_at_has_a_name_and_an_owner(world):
    seen: list[tuple[str, int]] = []

    def look() -> None:
        seen.append((world.engine.activity.stage, world.engine.activity.query_id))
        assert 0 <= time.monotonic() - world.engine.activity.since < 60

    world.grounder.meanwhile = look
    world.engine.query(QueryRequest("the cup"))
    world.film(2)  # the query, then the heat maps
    world.grounder.tracker.on_prompt = look
    world.engine.add_object(PROMPT, "mug")
    world.engine.work()
    world.track.presence = 0.1
    world.film(7)
    assert seen[:3] == [("prefill", 2), ("refresh", 0), ("pointing out", 3)]
    assert ("re-acquire: prefill", 1) in seen
    assert world.engine.activity.stage == "idle"
    world.engine.reset()
    world.session.config = SessionConfig(frame_wait_seconds=60.0)
    job = world.engine.query(QueryRequest("the cup"))
    threading.Timer(0.1, lambda: (look(), world.engine.cancel(job.query_id))).start()
    world.engine.work()
    assert seen[-1] == ("waiting for an image", job.query_id)


def test_trouble_that_stays_is_told_once(world, caplog):
    def fail() -> None:
        raise RuntimeError("out of \x1b[31mmemory")

    world.grounder.meanwhile = fail
    world.film(50)
    assert len(world.grounder.refreshed) >= 5
    (record,) = [each for each in caplog.records if "heat maps" in each.getMessage()]
    assert "out of \\x1b[31mmemory" in record.getMessage()


def test_numbers_of_the_model_that_are_none_cost_an_object_its_sight_and_nothing_else(world):
    world.track.presence = float("nan")
    world.film(1)
    (tracked,) = world.session.latest.objects
    assert (tracked.visibility, tracked.presence, tracked.pixel_count) == (Visibility.LOST, 0.0, 0)
    world.grounder.tracker.presence = float("nan")
    job = world.engine.add_object(PROMPT, "mug")
    world.engine.work()
    with pytest.raises(SessionError, match=r"not finite: .*parameter dtype"):
        job.future.result(timeout=0)


def test_texts_are_measured_before_they_are_looked_at(world):
    for ask in (lambda text: world.engine.query(QueryRequest(text)), lambda text: world.engine.add_object(PROMPT, text)):
        with pytest.raises(SessionError, match=r"has 1000000 characters, at most 500 are allowed \(parameter"):
            ask("\x07" * 1_000_000)


def test_a_full_queue_refuses_an_object_before_its_mask_is_decoded(world):
    world.session.config = SessionConfig(max_pending_queries=1)
    world.engine.require_room()
    world.engine.query(QueryRequest("the mug"))
    with pytest.raises(SessionError, match="max_pending_queries"):
        world.engine.require_room()


def test_key_frames_are_read_ahead_the_newest_first_and_each_once():
    world = World(window_hz=4.0)
    world.session.config = replace(world.session.config, read_ahead="on", refresh_hz=0.0)
    world.film(20)
    assert world.grounder.read == [], "nobody says that this would help"
    world.grounder.reads_ahead = True
    while world.engine.work():
        pass
    stamps = [each.frame.stamp_ns for each in world.session.key_frames]
    assert world.grounder.read == stamps[::-1]
    assert (world.engine.read_so_far.frames, world.engine.read_so_far.of) == (len(stamps), len(stamps))
    world.film(20)
    assert world.grounder.read[len(stamps) :] == [each.frame.stamp_ns for each in world.session.key_frames][-8:]


def test_where_nothing_is_kept_reading_ahead_rests(world):
    world.session.config = replace(world.session.config, read_ahead="on", refresh_hz=0.0)
    world.grounder.reads_ahead = True
    world.grounder.unread = lambda window: window.frames
    world.film(600)
    assert len(world.grounder.read) == 2, "one try in half a minute"
    world.grounder.unread = lambda window: [each for each in window.frames if each.stamp_ns not in world.grounder.read]
    world.film(320)
    assert len(world.grounder.read) > 10, "and it goes on once there is room"


def test_with_room_for_a_few_frames_the_newest_are_read_as_they_come_and_none_twice(world):
    world.session.config = replace(world.session.config, read_ahead="on", refresh_hz=0.0)
    world.film(20)
    world.grounder.unread = lambda window: (
        [*window.frames[:-3]] + [each for each in window.frames[-3:] if each.stamp_ns not in world.grounder.read]
    )
    while world.engine.work():  # also of older ones, in vain
        pass
    world.film(20)
    assert len(set(world.grounder.read)) == len(world.grounder.read)
    newest = [each.frame.stamp_ns for each in world.session.key_frames][-3:]
    assert set(newest) <= set(world.grounder.read)


def test_reading_ahead_makes_way_for_a_query_and_for_heat_maps_and_is_done_later(world):
    world.session.config = replace(world.session.config, read_ahead="on", refresh_hz=0.0)
    world.film(10)
    world.grounder.reads_ahead = True
    world.grounder.meanwhile = lambda: world.engine.query(QueryRequest("the mug")) if not world.engine.pending_queries else None
    world.engine.work()
    assert world.grounder.read == []
    world.grounder.meanwhile = lambda: None
    world.engine.work()
    assert len(world.grounder.asked) == 1
    assert world.grounder.read == [], "the query comes first"

    world.grounder.reading_takes = 1.0
    world.grounder.meanwhile = lambda: setattr(
        world.session, "config", replace(world.session.config, refresh_hz=10.0)
    )  # a heat map is due while a frame is read
    world.engine.work()
    assert world.grounder.read == []
    world.grounder.meanwhile = lambda: None
    world.engine.work()
    assert world.grounder.refreshed
    world.session.config = replace(world.session.config, refresh_hz=0.0)
    world.engine.work()
    assert len(world.grounder.read) == 1


@pytest.mark.parametrize(("takes", "share"), [(0.1, 0.5), (0.4, 0.5), (1.5, 0.5), (2.5, 0.1)])
def test_left_to_itself_the_node_reads_in_half_of_the_time_and_not_what_would_be_gone(world, takes, share):
    world.session.config = replace(world.session.config, read_ahead="auto", refresh_hz=0.0)
    world.grounder.reads_ahead, world.grounder.reading_takes = True, takes
    began = world.time[0]
    world.film(600)
    spent = takes * len(world.grounder.read)
    assert spent <= share * (world.time[0] - began) + takes
    assert world.grounder.read, "at least it is tried"


def test_off_means_off(world):
    world.session.config = replace(world.session.config, read_ahead="off", refresh_hz=0.0)
    world.grounder.reads_ahead = True
    world.film(20)
    assert world.grounder.read == []


def test_a_query_without_memory_on_the_device_fails_with_what_to_change_and_frees_it(world):
    world.film(2)
    freed = []
    world.grounder.forget = lambda: freed.append(True)

    def run_out():
        raise torch.OutOfMemoryError("CUDA out of memory")

    world.grounder.meanwhile = run_out
    job = world.engine.query(QueryRequest("the mug"))
    world.engine.work()
    with pytest.raises(SessionError, match=r"batch_tokens.*prefix_cache_mb"):
        job.future.result(0)
    assert freed
    world.grounder.meanwhile = lambda: None
    world.film(2)
    assert world.session.latest.objects[0].object_id == 1, "it is followed on"
