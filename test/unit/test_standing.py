"""Queries that stand until what they ask for is there, in a time of the test's own: the engine's threads are not started."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from test_engine import StubGrounder, World
from test_session import PERIOD_NS, NotedTrack

from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.datatypes import EventKind, Frame, FrameWindow
from decaf_ros.session import scene
from decaf_ros.session.engine import Engine
from decaf_ros.session.errors import NoFramesError, NotThereError, SessionError, SupersededError
from decaf_ros.session.jobs import Job, Look, QueryRequest, QueryState
from decaf_ros.session.stages import StageClock


class ShyGrounder(StubGrounder):
    """Finds its track where there is such a thing, and tells by :attr:`there` how likely that is."""

    def __init__(self, world: World) -> None:
        super().__init__(world.time, world.grounder.tracker)
        self.config = GroundingConfig()
        self.finds = [NotedTrack()]
        self.there: dict[str, float] = {}
        self.on_frame: dict[int, float] = {}
        self.clips: list[int] = []
        self.looks: list[tuple[float, int, tuple[str, ...]]] = []  # when, at how many frames, for which sentences

    def presences(self, window: FrameWindow, expressions: Sequence[str]) -> list[float]:
        self.looks.append((self._time[0], len(window), tuple(expressions)))
        self.meanwhile()
        return [self.on_frame.get(window.frames[-1].stamp_ns, self.there.get(each, 0.1)) for each in expressions]

    def ground(self, clip: Sequence, expression: str, clock: StageClock, grounder: str | None = None) -> SimpleNamespace:
        self.clips.append(len(clip))
        self.presence = self.there.get(expression, 0.1)
        grounding = super().ground(clip, expression, clock, grounder)
        grounding.window = FrameWindow(tuple(stored.frame for stored in clip))
        return grounding


class Table(World):
    """A world without queries, filmed in one grey after another."""

    def __init__(self) -> None:
        super().__init__()
        self.engine.reset()
        self.shy = ShyGrounder(self)
        self.grounder = self.shy
        self.session.config = SessionConfig(window_hz=10.0, refresh_hz=0.0, reacquire=False)
        self.engine = Engine(self.session, self.shy, self.ears, clock=lambda: self.time[0])
        self.grey = 0
        self.ears.events.clear()

    def film(self, frames: int) -> None:
        for _ in range(frames):
            self.shoot()
            self.engine.work()

    def shoot(self) -> None:
        self.pass_time(0.1)
        image_rgb = np.full((6, 8, 3), self.grey, dtype=np.uint8)
        self.engine.follow(lambda: Frame(round(self.time[0] * 10) * PERIOD_NS, "camera", image_rgb))

    def stand(self, expression: str = "the mug", seconds: float = 60.0, on_look: Callable[[Look], None] = print) -> Job:
        return self.engine.query(QueryRequest(expression, replace=False, wait_seconds=seconds), on_look=on_look)

    @property
    def states(self) -> dict[int, QueryState]:
        return {each.query_id: each.state for each in self.engine.queries()}


@pytest.fixture
def table() -> Table:
    return Table()


def test_the_change_of_a_scene_is_that_of_the_cell_where_most_happens():
    before = np.full((24, 32, 3), 100, dtype=np.uint8)  # cells of 2 by 2 pixels
    after = before.copy()
    after[10, 20, 1] = 202  # one of four pixels, by 102 of 255
    assert scene.change(scene.thumbnail(before), scene.thumbnail(after)) == pytest.approx(0.1)
    after[11, 20, 1] = 151  # another one, by 51
    assert scene.change(scene.thumbnail(before), scene.thumbnail(after)) == pytest.approx(0.15)
    after[0:2, 0:2, 2] = 49  # a cell elsewhere, darker by 51 of 255
    assert scene.change(scene.thumbnail(before), scene.thumbnail(after)) == pytest.approx(0.2)


def test_what_is_not_there_yet_is_found_on_the_key_frame_on_which_it_is_and_told_as_any_find(table):
    looks: list[Look] = []
    job = table.stand(on_look=looks.append)
    table.film(5)
    (status,) = table.engine.queries()
    assert (status.state, Look(status.last_look_ns, status.presence)) == (QueryState.WAITING, looks[-1])
    assert "nothing in view fits" in status.message
    assert not job.future.done()
    assert table.ears.events == []
    table.grey, table.shy.there["the mug"] = 50, 0.9
    table.film(1)
    assert looks[-1] == Look(table.session.latest.frame.stamp_ns, 0.9)
    assert job.future.result(timeout=0).record.query_id == job.query_id
    assert table.states == {job.query_id: QueryState.ACTIVE}
    assert [(event.kind, event.query_id) for event in table.ears.events] == [(EventKind.FOUND, job.query_id)]
    asked = len(table.shy.looks)
    table.grey = 0
    table.film(20)
    assert len(table.shy.looks) == asked, "nobody waits any more"


def test_pauses_grow_while_nothing_changes_and_end_when_something_does(table):
    table.stand()
    table.film(100)
    # The first look comes a frame after the query; pauses of 0.5 s, 0.75 s, and so on, each until the next frame.
    assert [when for when, *_ in table.shy.looks] == pytest.approx([0.2, 0.7, 1.5, 2.7, 4.4, 7.0])
    table.grey = 7  # of 255: 0.027
    table.film(3)
    assert len(table.shy.looks) == 6
    table.grey = 8  # 0.031
    table.film(1)
    assert table.shy.looks[-1][0] == pytest.approx(10.4)
    table.film(5)
    assert table.shy.looks[-1][0] == pytest.approx(10.9), "from the beginning"
    table.film(300)
    assert np.diff([when for when, *_ in table.shy.looks])[-2:] == pytest.approx(5.0, abs=0.11), "the longest pause"


def test_all_share_a_look_at_one_key_frame_and_when_the_scene_has_come_to_rest_at_the_window(table):
    mug, can = table.stand("the mug"), table.stand("the can")
    table.film(3)
    table.grey = 50
    table.film(1)
    table.grey = 100
    table.film(20)
    assert {asked for *_, asked in table.shy.looks} == {("the mug", "the can")}
    seen = [(when, frames) for when, frames, _ in table.shy.looks]
    assert seen == pytest.approx(np.array([(0.3, 1), (0.4, 1), (0.5, 1), (1.0, 10), (1.8, 1)]))
    table.shy.there["the can"] = 0.9
    table.grey = 0
    table.film(2)
    assert table.states == {mug.query_id: QueryState.WAITING, can.query_id: QueryState.ACTIVE}
    assert len(table.shy.clips) == 3, "only the one that may be answered is asked again"
    assert table.shy.clips == [1, 2, 1], "about what has been seen since the look"


@pytest.mark.parametrize(
    ("then", "state"), [(0.9, QueryState.ACTIVE), (GroundingConfig.min_presence - 0.1, QueryState.WAITING)]
)
def test_what_has_just_come_is_there_if_two_frames_say_so_though_the_window_does_not(table, then, state):
    job = table.stand()
    table.film(3)
    table.grey = 90
    table.shy.on_frame = {4 * PERIOD_NS: 0.9, 5 * PERIOD_NS: then}  # all frames together say 0.1
    table.shy.meanwhile = lambda: len(table.shy.clips) == 1 and table.time[0] == pytest.approx(0.4) and table.shoot()
    table.film(1)  # a frame comes during the look
    assert len(table.shy.clips) == 2
    assert table.states == {job.query_id: state}


def test_nothing_is_kept_of_frames_that_went(table):
    table.stand()
    table.film(5)
    frames = [weakref.ref(each.frame) for each in table.session.key_frames]
    table.film(50)
    assert set(table.states.values()) == {QueryState.WAITING}
    gc.collect()
    assert [each() for each in frames] == [None] * 5


def test_looks_take_half_of_the_time_at_most(table):
    table.stand()
    table.film(1)
    table.shy.meanwhile = lambda: table.pass_time(0.4)
    for number in range(50):
        table.grey = 100 * (number % 2)
        table.film(1)
    assert len(table.shy.looks) > 5
    assert np.diff([when for when, *_ in table.shy.looks]) == pytest.approx(0.8, abs=0.11)


def test_a_sentence_that_is_refused_at_a_closer_look_is_asked_less_and_less_often(table):
    table.stand()
    table.shy.there["the mug"] = 0.9
    table.shy.ground = lambda *_: (table.shy.asked.append(table.time[0]), refuse())

    def refuse() -> None:
        raise NotThereError("nothing in view fits", 0.2, None)

    for number in range(100):
        table.grey = 100 * (number % 2)
        table.film(1)
    pauses = np.diff(table.shy.asked)[1:6]  # the first was the query itself
    assert pauses == pytest.approx([0.5, 0.75, 1.125, 1.6875, 2.53125], abs=0.21), "on the next frame, after a look"


def test_who_waits_in_vain_is_told_when_the_time_is_over_and_how_sure_it_is(table):
    job = table.stand(seconds=3.0)
    table.film(29)
    assert not job.future.done()
    table.film(1)
    with pytest.raises(NotThereError, match="waited 3 s in vain: nothing in view fits 'the mug'") as caught:
        job.future.result(timeout=0)
    assert caught.value.presence == 0.1
    assert table.states == {job.query_id: QueryState.FAILED}


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (lambda engine, job: engine.cancel(job.query_id), "was cancelled"),
        (lambda engine, job: engine.remove_query(job.query_id), "was cancelled"),
        (lambda engine, job: engine.reset(), "a reset was asked for"),
        (lambda engine, job: engine.stop(), "deactivated or shut down"),
    ],
)
@pytest.mark.parametrize("during", ["a pause", "a look", "a query"])
def test_who_stands_learns_at_once_that_it_is_over(table, end, cause, during):
    job = table.stand()
    table.film(1)
    table.shy.there["the mug"] = 0.9
    calls: list[int] = []

    def meanwhile() -> None:
        calls.append(len(calls))
        if len(calls) == (1 if during == "a look" else 2):
            end(table.engine, job)

    table.shy.meanwhile = meanwhile
    if during == "a pause":
        end(table.engine, job)
    else:
        table.film(1)
        assert calls
    with pytest.raises(SupersededError if during != "a query" else SessionError, match=cause):
        job.future.result(timeout=0)
    assert table.states == {}
    assert not table.session.object_ids


def test_a_query_that_is_asked_again_makes_way_for_others_and_stands(table):
    job = table.stand()
    table.film(1)
    table.shy.there["the mug"] = 0.9
    other: list[Job] = []

    def interrupt() -> None:
        if len(table.shy.clips) > 1 and not other:
            other.append(table.engine.query(QueryRequest("the can", replace=False)))

    table.shy.meanwhile = interrupt
    table.film(1)  # a look that says yes, and the query
    assert table.states == {job.query_id: QueryState.WAITING, other[0].query_id: QueryState.QUEUED}
    table.film(1)
    assert other[0].future.exception(timeout=0) is not None
    table.grey = 90
    table.film(2)
    assert job.future.result(timeout=0).record.expression == "the mug"


def test_it_stands_while_there_is_no_camera_and_when_the_stamps_go_back(table):
    table.session.config = SessionConfig(window_hz=10.0, frame_wait_seconds=0.0, refresh_hz=0.0, time_jump_seconds=0.05)
    job = table.stand(seconds=5.0)
    table.engine.work()
    assert table.states == {job.query_id: QueryState.WAITING}
    table.film(1)
    calls: list[int] = []

    def jump() -> None:
        calls.append(len(calls))
        if len(calls) == 2:  # the query, after a look
            table.engine.follow(lambda: Frame(0, "camera", np.zeros((6, 8, 3), dtype=np.uint8)))

    table.shy.there["the mug"], table.grey, table.shy.meanwhile = 0.9, 90, jump
    table.film(1)
    assert len(calls) == 2
    assert table.states == {job.query_id: QueryState.WAITING}
    table.film(2)
    assert job.future.result(timeout=0).record.expression == "the mug"
    blind = Table()
    blind.session.config = SessionConfig(frame_wait_seconds=0.0)
    job = blind.stand(seconds=5.0)
    blind.engine.work()
    blind.pass_time(5.0)
    blind.engine.work()
    with pytest.raises(NoFramesError, match="waited 5 s in vain: there is no camera frame"):
        job.future.result(timeout=0)


def test_what_nobody_may_wait_for_is_refused_with_the_way_out(table):
    for seconds in (-1.0, float("nan"), float("inf"), 86_401.0):
        with pytest.raises(SessionError, match=r"between 0, to look once, and 86400 s \(limit max_wait_seconds\)"):
            table.stand(seconds=seconds)
    table.session.config = SessionConfig(max_standing_queries=2)
    table.stand()
    table.film(1)
    table.stand()
    with pytest.raises(SessionError, match=r"2 queries wait .* \(parameter max_standing_queries\): remove one"):
        table.stand()
    table.engine.query(QueryRequest("the mug", replace=False))
    table.shy.config = GroundingConfig(min_presence=0.0)
    with pytest.raises(SessionError, match=r"with the parameter min_presence 0 .* nothing to wait for"):
        table.stand()
    with pytest.raises(SessionError, match=r"with accept_doubtful .* nothing to wait for"):
        table.engine.query(QueryRequest("the mug", accept_doubtful=True, wait_seconds=1.0))
