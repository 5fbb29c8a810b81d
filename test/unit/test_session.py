"""Live tracking with a mask model that only notes which frames each track was carried over."""

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import EventKind, Frame, HeatMap, ObjectPrompt, Visibility
from decaf_ros.models.protocols import TrackOutput
from decaf_ros.session.errors import NoFramesError, SessionError, SupersededError, UnknownIdError
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.objects import FoundObject
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.stream import Snapshot

PERIOD_NS = 100_000_000
SIZE_HW = (6, 8)
RED, BLUE = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


@dataclass(eq=False)
class NotedTrack:
    stamps: list[int] = field(default_factory=list)
    presence: float = 0.9
    mask_hw: np.ndarray = field(default_factory=lambda: np.ones(SIZE_HW, dtype=np.bool_))
    appearance: torch.Tensor = field(default_factory=lambda: RED)


class NotingTracker:
    """Masks are what the track says. Features are the stamp; ``on_step`` runs before each step."""

    def __init__(self) -> None:
        self.encoded: list[int] = []
        self.on_step: Callable[[], None] = lambda: None
        self.on_prompt: Callable[[], None] = lambda: None
        self.presence = 1.0
        self.looks_like = RED

    def encode(self, frame: Frame) -> int:
        self.encoded.append(frame.stamp_ns)
        return frame.stamp_ns

    def step(self, tracks: Sequence[NotedTrack], features: int) -> list[TrackOutput]:
        self.on_step()
        for track in tracks:
            track.stamps.append(features)
        return [TrackOutput(track.mask_hw, track.presence) for track in tracks]

    def appearance(self, features: int, mask_hw: np.ndarray) -> torch.Tensor:
        return self.looks_like

    def prompt(self, features: int, prompt: ObjectPrompt) -> tuple[NotedTrack, TrackOutput]:
        self.on_prompt()
        return NotedTrack([features], mask_hw=prompt.mask_hw), TrackOutput(prompt.mask_hw, self.presence)


def frame(number: int, size_hw: tuple[int, int] = SIZE_HW) -> Frame:
    return Frame(number * PERIOD_NS, "camera", np.zeros((*size_hw, 3), dtype=np.uint8))


def stored_by(tracker: NotingTracker) -> StoredFrame:
    return StoredFrame(frame(0), tracker)


def stamps(*numbers: int) -> list[int]:
    return [number * PERIOD_NS for number in numbers]


@pytest.fixture
def tracker() -> NotingTracker:
    return NotingTracker()


@pytest.fixture
def session(tracker) -> TrackingSession:
    return TrackingSession(tracker)


def found(*tracks: NotedTrack) -> list[FoundObject]:
    mask = np.ones(SIZE_HW, dtype=np.bool_)
    return [FoundObject(track, 1.0 - 0.1 * rank, mask, track.appearance) for rank, track in enumerate(tracks)]


def join(session: TrackingSession, snapshot: Snapshot, *tracks: NotedTrack, replace: bool = True) -> QueryRecord:
    record = QueryRecord(session.new_query_id(), "the mug", "mug", snapshot.clip[-1].frame.stamp_ns, True)
    session.join(snapshot, record, found(*tracks), replace)
    session.end_query()
    return record


def follow(session: TrackingSession, *tracks: NotedTrack, replace: bool = True) -> QueryRecord:
    """Push a frame if there is none yet, and let objects join at the newest one."""
    if session.latest is None:
        session.push(frame(0))
    return join(session, session.begin_query(), *tracks, replace=replace)


class TestCatchingUp:
    def test_a_track_sees_every_frame_once_from_the_snapshot_on(self, session):
        for number in range(3):
            session.push(frame(number))
        snapshot, track = session.begin_query(), NotedTrack()
        for number in range(3, 9):
            session.push(frame(number))
        join(session, snapshot, track)
        session.push(frame(9))
        assert track.stamps == stamps(*range(3, 10))

    @pytest.mark.parametrize("camera_pause_s", [0.0, 0.0005, 0.003])
    def test_frames_that_arrive_while_catching_up_are_neither_missed_nor_repeated(self, session, tracker, camera_pause_s):
        session.push(frame(0))
        snapshot, track = session.begin_query(), NotedTrack()
        tracker.on_step = lambda: time.sleep(0.001)

        def film() -> None:
            for number in range(1, 61):
                session.push(frame(number))
                time.sleep(camera_pause_s)

        camera = threading.Thread(target=film)
        camera.start()
        join(session, snapshot, track)
        camera.join()
        assert track.stamps == sorted(set(track.stamps))
        assert len(track.stamps) + session.counters.catch_up_skipped == 60
        assert track.stamps[-1] == stamps(60)[0]

    def test_a_slow_query_costs_frames_in_between_but_never_order_or_the_newest(self, tracker):
        session = TrackingSession(tracker, SessionConfig(catch_up_frames=4))
        session.push(frame(0))
        snapshot, track = session.begin_query(), NotedTrack()
        for number in range(1, 31):
            session.push(frame(number))
        join(session, snapshot, track)
        assert track.stamps == sorted(set(track.stamps))
        assert len(track.stamps) + session.counters.catch_up_skipped == 30
        assert track.stamps[-1] == session.latest.frame.stamp_ns, "the camera may have stopped"
        session.push(frame(31))
        assert track.stamps[-1] == stamps(31)[0]

    @pytest.mark.parametrize("passed", range(1, 40))
    def test_the_answer_is_about_the_newest_frame_whatever_was_skipped(self, tracker, passed):
        session = TrackingSession(tracker, SessionConfig(catch_up_frames=4))
        session.push(frame(0))
        snapshot, track = session.begin_query(), NotedTrack()
        for number in range(1, passed + 1):
            session.push(frame(number))
        join(session, snapshot, track)
        assert track.stamps[-1] == session.latest.frame.stamp_ns == passed * PERIOD_NS
        assert len(track.stamps) + session.counters.catch_up_skipped == passed

    def test_a_query_that_nobody_wants_any_more_changes_nothing_however_far_it_got(self, session):
        session.push(frame(0))
        snapshot, old, new = session.begin_query(), NotedTrack(), NotedTrack()
        join(session, snapshot, old)
        snapshot = session.begin_query()
        for number in range(1, 4):
            session.push(frame(number))

        def check() -> None:
            if len(new.stamps) == 3:  # the last step is done
                raise SupersededError("not wanted")

        record = QueryRecord(session.new_query_id(), "the mug", "mug", 0, True)
        with pytest.raises(SupersededError, match="not wanted"):
            session.join(snapshot, record, found(new), replace=True, check=check)
        assert session.object_ids == {1: 1}

    def test_tracks_are_carried_by_the_model_that_they_are_of(self, session, tracker):
        session.push(frame(0))
        snapshot, track = session.begin_query(), NotedTrack()
        session.push(frame(1))
        other = NotingTracker()
        tracker.on_step = lambda: session.set_tracker(other)
        other.on_step = lambda: pytest.fail("it cannot read tracks of another model")
        session.push(frame(2))
        session.push(frame(3))
        with pytest.raises(SupersededError, match="another mask model was loaded"):
            join(session, snapshot, track)
        assert track.stamps == stamps(1, 2, 3)

    def test_joining_objects_are_on_the_newest_frame(self, session):
        session.push(frame(0))
        snapshot = session.begin_query()
        session.push(frame(1))
        join(session, snapshot, NotedTrack())
        assert session.latest.frame.stamp_ns == PERIOD_NS
        assert [each.object_id for each in session.latest.objects] == [1]

    def test_nothing_is_kept_when_no_query_runs(self, session):
        session.push(frame(0))
        session.begin_query()
        session.end_query()
        session.push(frame(1))
        track = NotedTrack()
        join(session, session.begin_query(), track)
        assert track.stamps == []

    @pytest.mark.parametrize(("followed", "over"), [(False, (1, 5, 9, 13, 17, 21, 24)), (True, range(1, 25))])
    def test_frames_are_encoded_as_they_come_and_some_ten_a_second_if_only_for_this(self, tracker, followed, over):
        session = TrackingSession(tracker, SessionConfig(window_hz=0.1))
        if followed:
            follow(session, NotedTrack())
        session.push(frame(0))
        snapshot, track = session.begin_query(), NotedTrack()
        for number in range(1, 25):  # at 50 Hz
            session.push(dataclasses.replace(frame(0), stamp_ns=number * PERIOD_NS // 5))
        before = len(tracker.encoded)
        join(session, snapshot, track)
        assert track.stamps == [number * PERIOD_NS // 5 for number in over]
        assert len(tracker.encoded) - before == (0 if followed else 1), "the newest"
        assert len(track.stamps) + session.counters.catch_up_skipped == 24


class TestTimeToCatchUp:
    """Steps of a known cost, by a clock of the test's own."""

    FRAMES = 60

    def catch_up(self, tracker: NotingTracker, seconds: float, step_s: float, camera_s: float = math.inf) -> list[int]:
        """The numbers of the frames that a track was carried over; ``camera_s`` is when a frame comes meanwhile."""
        self.time, due = 0.0, camera_s
        session = TrackingSession(tracker, SessionConfig(catch_up_seconds=seconds), clock=lambda: self.time)
        session.push(frame(0))
        snapshot, track, number = session.begin_query(), NotedTrack(), itertools.count(1)
        for _ in range(self.FRAMES):
            session.push(frame(next(number)))
        with ThreadPoolExecutor(1) as camera:

            def step() -> None:
                nonlocal due
                self.time += step_s
                while due <= self.time:
                    due += camera_s
                    wait([camera.submit(session.push, frame(next(number)))], timeout=0.5)  # but for those of the hand-over

            tracker.on_step = step
            record = QueryRecord(session.new_query_id(), "the mug", "mug", 0, True)
            segmentation = session.join(snapshot, record, found(track), replace=True)
            tracker.on_step = lambda: None
            over = [each // PERIOD_NS for each in track.stamps if each <= segmentation.frame.stamp_ns]
        assert over == sorted(set(over))
        assert over[-1] == segmentation.frame.stamp_ns // PERIOD_NS, "up to the newest"
        assert len(over) + session.counters.catch_up_skipped == over[-1]
        return over

    @pytest.mark.parametrize(
        ("seconds", "step_s"), [(1.0, 0.005), (1.0, 0.02), (1.0, 0.05), (0.4, 0.05), (1.0, 0.3), (0.05, 9.0)]
    )
    def test_steps_are_as_many_as_there_is_time_for_and_evenly_spaced(self, tracker, seconds, step_s):
        over = self.catch_up(tracker, seconds, step_s)
        most = min(self.FRAMES, max(8, round(seconds / 2 / step_s)))  # the first of them tells what one takes
        assert most - 1 <= len(over) <= most
        gaps = np.diff(over)
        assert gaps.max() - gaps.min() <= 1

    @pytest.mark.parametrize("camera_s", [0.3, 0.1, 0.04])
    @pytest.mark.parametrize("step_s", [0.01, 0.05, 0.15])
    def test_it_is_over_in_time_however_fast_the_camera_is(self, tracker, step_s, camera_s):
        self.catch_up(tracker, 1.0, step_s, camera_s)
        allowed_s = max(1.0, 8 * step_s)
        assert self.time <= allowed_s + 3 * step_s + 1e-9, "a step that was begun, and the hand-over"


class TestStamps:
    def test_late_frames_that_do_not_advance_are_no_start(self, session):
        session.push(frame(9))
        for number in (8, 8, 7, 6, 5, 8, 3, 8, 8, 2):
            assert session.push(frame(number)) is None
        assert (session.counters.late, session.counters.discontinuities) == (10, 0)

    def test_a_bag_shorter_than_a_jump_that_starts_over_again_and_again_is_followed(self, session):
        pushed = [session.push(frame(number)) for _ in range(20) for number in range(9)]  # 0.9 s at 10 Hz, a jump is 1 s
        followed = sum(segmentation is not None for segmentation in pushed)
        assert followed >= 20 * 9 / 2
        assert session.counters.discontinuities == 19
        assert followed + session.counters.late + session.counters.repeated == 20 * 9

    def test_late_and_repeated_frames_are_dropped_and_counted(self, session):
        track = NotedTrack()
        session.push(frame(5))
        follow(session, track)
        assert session.push(frame(5)) is None
        assert session.push(frame(4)) is None
        session.push(frame(6))
        assert track.stamps == stamps(6)
        assert (session.counters.repeated, session.counters.late, session.counters.processed) == (1, 1, 2)

    @pytest.mark.parametrize(
        ("newcomer", "cause"), [(frame(3), "stamps went back"), (frame(101, size_hw=(12, 16)), "image size changed")]
    )
    def test_a_new_start_gives_up_running_queries_and_goes_on(self, session, newcomer, cause):
        session.push(frame(100))
        snapshot = session.begin_query()
        assert session.push(newcomer) is not None
        with pytest.raises(SupersededError, match=cause):
            join(session, snapshot, NotedTrack())
        assert session.counters.discontinuities == 1
        assert [stored.frame.stamp_ns for stored in session.begin_query().clip] == [newcomer.stamp_ns]

    def test_objects_are_followed_over_a_new_start(self, session):
        track = NotedTrack()
        session.push(frame(100))
        follow(session, track)
        session.push(frame(0))
        assert track.stamps == stamps(0)

    def test_a_failed_join_changes_nothing(self, session):
        first = NotedTrack()
        session.push(frame(100))
        follow(session, first)
        snapshot = session.begin_query()
        session.push(frame(0))
        with pytest.raises(SupersededError):
            join(session, snapshot, NotedTrack())
        assert session.object_ids == {1: 1}


class TestObjects:
    def test_a_query_replaces_or_adds(self, session):
        follow(session, NotedTrack(), NotedTrack())
        second = follow(session, NotedTrack(), replace=False)
        assert session.object_ids == {1: 1, 2: 1, 3: 2}
        assert [each.object_id for each in session.push(frame(1)).objects] == [1, 2, 3]
        third = follow(session, NotedTrack())
        assert session.object_ids == {4: third.query_id}
        assert session.queries == (third,)
        assert second.query_id < third.query_id

    def test_ids_are_never_used_again(self, session):
        follow(session, NotedTrack())
        session.remove_object(1)
        follow(session, NotedTrack())
        session.reset()
        record = follow(session, NotedTrack())
        assert session.object_ids == {3: record.query_id}
        assert record.query_id == 3

    def test_removed_objects_are_gone_at_once_and_stay_gone(self, session):
        follow(session, NotedTrack(), NotedTrack())
        session.remove_object(1)
        assert [each.object_id for each in session.latest.objects] == [2]
        assert [each.object_id for each in session.push(frame(1)).objects] == [2]

    def test_removing_a_query_takes_its_objects(self, session):
        follow(session, NotedTrack())
        follow(session, NotedTrack(), NotedTrack(), replace=False)
        assert session.remove_query(2) == (2, 3)
        assert session.object_ids == {1: 1}

    def test_unknown_ids_are_refused_with_the_known_ones(self, session):
        follow(session, NotedTrack(), NotedTrack())
        with pytest.raises(UnknownIdError, match="id 7; followed are: 1, 2"):
            session.remove_object(7)
        with pytest.raises(UnknownIdError, match="id 9; known are: 1"):
            session.remove_query(9)

    def test_when_room_is_short_the_best_are_kept(self, tracker):
        session = TrackingSession(tracker, SessionConfig(max_objects=2))
        follow(session, NotedTrack(), NotedTrack(), NotedTrack())
        assert [each.score for each in session.push(frame(1)).objects] == [1.0, 0.9]
        with pytest.raises(SessionError, match="no room"):
            follow(session, NotedTrack(), replace=False)

    def test_an_absent_object_is_lost_without_a_mask_and_found_again_under_its_id(self, session):
        track = NotedTrack()
        follow(session, track)
        track.presence = 0.4
        (lost,) = session.push(frame(1)).objects
        track.presence = 0.6
        (back,) = session.push(frame(2)).objects
        assert (lost.visibility, lost.pixel_count) == (Visibility.LOST, 0)
        assert (back.visibility, back.pixel_count) == (Visibility.VISIBLE, 48)
        assert lost.object_id == back.object_id == 1

    def test_a_heat_map_scores_the_objects_of_its_query(self, session, tracker):
        follow(session, NotedTrack())
        follow(session, NotedTrack(), replace=False)
        latest = session.push(frame(1))
        heat = HeatMap(latest.frame, 1, np.float32([[1.0, 0.0]]))
        session.note_heat_map(heat, latest.objects, stored_by(tracker))
        first, second = session.push(frame(2)).objects
        assert first.attention_consistency == pytest.approx(0.0)  # a full mask: one cell attended, one paid for
        assert np.isnan(second.attention_consistency)


class TestNewestKeyFrame:
    """What heat maps are made of and compared with; here every fifth frame."""

    def seen(self, session: TrackingSession) -> tuple[int, list[int]] | None:
        newest = session.newest_key_frame
        if newest is None:
            return None
        stored, segmentation = newest
        assert segmentation.frame is stored.frame
        return stored.frame.stamp_ns // PERIOD_NS, [each.object_id for each in segmentation.objects]

    @pytest.fixture
    def session(self, tracker) -> TrackingSession:
        return TrackingSession(tracker, SessionConfig(window_hz=2.0))

    def test_it_comes_with_the_masks_that_were_published_for_it(self, session):
        assert self.seen(session) is None
        follow(session, NotedTrack())
        published = session.push(frame(5))
        session.push(frame(6))
        assert session.newest_key_frame[1] is published

    def test_objects_that_joined_later_are_on_the_next_one_only(self, session):
        follow(session, NotedTrack())
        assert self.seen(session) == (0, [1]), "it was the newest frame, too"
        session.push(frame(1))
        follow(session, NotedTrack(), replace=False)
        session.push(frame(2))
        assert self.seen(session) is None
        session.push(frame(5))
        assert self.seen(session) == (5, [1, 2])
        session.remove_object(1)
        assert self.seen(session) == (5, [2])

    def test_a_new_start_and_a_reset_begin_with_none(self, session):
        session.push(frame(52))
        session.push(frame(53))
        session.push(frame(1))
        assert self.seen(session) == (1, [])
        session.reset()
        assert self.seen(session) is None


def left() -> np.ndarray:
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    mask[:, :4] = True
    return mask


def events(session: TrackingSession) -> list[tuple[EventKind, int, int]]:
    return [(event.kind, event.object_id, event.stamp_ns) for event in session.take_events()]


class TestLossAndReturn:
    """An object that is lost, or that attention disagrees with, and what a new answer to its query does about it."""

    def lose(self, session: TrackingSession) -> tuple[QueryRecord, NotedTrack]:
        track = NotedTrack()
        record = follow(session, track)
        track.presence = 0.1
        for number in range(1, 8):
            session.push(frame(number))
        return record, track

    def rejoin(self, session: TrackingSession, record: QueryRecord, *tracks: NotedTrack, add_new: bool = False) -> list[int]:
        snapshot = session.begin_query()
        segmentation = session.rejoin(snapshot, record, found(*tracks), add_new)
        session.end_query()
        return [tracked.object_id for tracked in segmentation.objects if tracked.visibility is Visibility.VISIBLE]

    def test_the_life_of_an_object_in_events(self, session):
        _, track = self.lose(session)
        track.presence = 0.9
        session.push(frame(8))
        session.remove_object(1)
        kinds = [EventKind.FOUND, EventKind.LOST, EventKind.SEEN_AGAIN, EventKind.REMOVED]
        assert events(session) == [(kind, 1, number * PERIOD_NS) for kind, number in zip(kinds, (0, 1, 8, 8), strict=True)]
        assert events(session) == []

    def test_a_query_is_in_doubt_once_an_object_is_lost_for_long_enough(self, session):
        track = NotedTrack()
        record = follow(session, track)
        track.presence = 0.1
        doubted = []
        for number in range(1, 9):
            session.push(frame(number))
            doubted.append(session.queries_in_doubt() == (record,))
        assert doubted == [False] * 5 + [True] * 3  # lost on frame 1; half a second at 10 Hz

    def test_a_lost_object_goes_on_under_its_id_with_the_track_that_was_found(self, session):
        record, old = self.lose(session)
        new = NotedTrack()
        assert self.rejoin(session, record, new) == [1]
        session.push(frame(8))
        assert (old.stamps[-1], new.stamps[-1]) == (7 * PERIOD_NS, 8 * PERIOD_NS)
        assert events(session)[-1] == (EventKind.REACQUIRED, 1, 7 * PERIOD_NS)
        assert session.queries_in_doubt() == ()

    def test_lost_before_the_stamps_went_back_is_lost_since_then(self, session):
        track = NotedTrack(presence=0.1)
        session.push(frame(100))
        record = follow(session, track)
        session.push(frame(101))
        doubted = []
        for number in range(7):
            session.push(frame(number))
            doubted.append(session.queries_in_doubt() == (record,))
        assert doubted == [False] * 5 + [True] * 2  # half a second at 10 Hz

    def test_what_looks_like_another_thing_is_not_it(self, session):
        record, old = self.lose(session)
        assert self.rejoin(session, record, NotedTrack(appearance=BLUE)) == []
        session.push(frame(8))
        assert old.stamps[-1] == 8 * PERIOD_NS
        assert session.object_ids == {1: 1}

    def test_asked_again_by_a_person_another_thing_is_a_new_object(self, session):
        record, _ = self.lose(session)
        assert self.rejoin(session, record, NotedTrack(appearance=BLUE), add_new=True) == [2]
        assert session.object_ids == {1: 1, 2: 1}

    def test_a_find_where_an_object_is_followed_well_changes_nothing(self, session):
        track = NotedTrack()
        record = follow(session, track)
        assert self.rejoin(session, record, NotedTrack(), add_new=True) == [1]
        session.push(frame(1))
        assert track.stamps == [PERIOD_NS]
        assert session.object_ids == {1: 1}

    def test_a_mask_that_attention_keeps_disagreeing_with_is_in_doubt_and_moves_to_what_was_found(self, session, tracker):
        drifted = NotedTrack(mask_hw=left())
        record = follow(session, drifted)
        elsewhere = HeatMap(session.latest.frame, record.query_id, np.float32([[0.0, 1.0]]))
        for _ in range(2):
            assert session.queries_in_doubt() == ()
            session.note_heat_map(elsewhere, session.push(frame(len(drifted.stamps) + 1)).objects, stored_by(tracker))
        assert session.queries_in_doubt() == (record,)
        right = NotedTrack(mask_hw=~left())
        assert self.rejoin(session, record, right) == [1]
        (tracked,) = session.push(frame(5)).objects
        np.testing.assert_array_equal(tracked.mask_hw, ~left())

    def test_what_a_drifted_mask_covers_is_not_what_the_object_looks_like(self, session, tracker):
        drifted = NotedTrack(mask_hw=left())
        record = follow(session, drifted)
        tracker.looks_like = BLUE
        elsewhere = HeatMap(session.latest.frame, record.query_id, np.float32([[0.0, 1.0]]))
        for number in (1, 2):
            session.note_heat_map(elsewhere, session.push(frame(number)).objects, stored_by(tracker))
        self.rejoin(session, record, NotedTrack(mask_hw=~left(), appearance=BLUE))
        assert EventKind.REACQUIRED not in [kind for kind, *_ in events(session)]
        for number in (3, 4):
            session.note_heat_map(elsewhere, session.push(frame(number)).objects, stored_by(tracker))
        self.rejoin(session, record, NotedTrack(mask_hw=~left(), appearance=RED))
        assert events(session) == [(EventKind.REACQUIRED, 1, 4 * PERIOD_NS)]

    def test_a_query_that_was_removed_meanwhile_stays_removed(self, session):
        record, _ = self.lose(session)
        snapshot = session.begin_query()
        session.remove_query(record.query_id)
        with pytest.raises(UnknownIdError):
            session.rejoin(snapshot, record, found(NotedTrack()), add_new=True)
        assert session.object_ids == {}


class TestPointedOut:
    """Objects that somebody points out instead of describing them."""

    def record(self, session: TrackingSession) -> QueryRecord:
        return QueryRecord(session.new_query_id(), "", "a thing", 0, True)

    def test_on_the_newest_frame(self, session):
        session.push(frame(0))
        added = session.add(self.record(session), ObjectPrompt(mask_hw=left()))
        assert [(each.object_id, each.label, each.pixel_count) for each in added.objects] == [(1, "a thing", 24)]
        assert [each.object_id for each in session.push(frame(1)).objects] == [1]

    @pytest.mark.parametrize(
        ("number", "seen"), [(14, (14, 16, 18, 20, 22, 24, 26, 28, 29)), (23, (23, 24, 26, 28, 29)), (29, (29,))]
    )
    def test_on_a_frame_of_the_past_the_track_sees_the_key_frames_since(self, tracker, number, seen):
        session = TrackingSession(tracker, SessionConfig(window_hz=5.0))
        for each in range(30):
            session.push(frame(each))
        session.add(self.record(session), ObjectPrompt(mask_hw=left()), number * PERIOD_NS)
        tracks: list[NotedTrack] = []
        step = tracker.step
        tracker.step = lambda given, features: tracks.extend(given) or step(given, features)
        session.push(frame(30))
        assert tracks[0].stamps == stamps(*seen, 30)

    @pytest.mark.parametrize(("stamp_ns", "nearest"), [(15 * PERIOD_NS, 16 * PERIOD_NS), (23 * PERIOD_NS - 1, 23 * PERIOD_NS)])
    def test_a_frame_that_is_not_kept_is_named_with_the_nearest(self, tracker, stamp_ns, nearest):
        session = TrackingSession(tracker, SessionConfig(window_hz=5.0))
        for number in range(30):
            session.push(frame(number))
        with pytest.raises(SessionError, match=f"no frame of stamp {stamp_ns} ns is kept; .* after it is {nearest}"):
            session.add(self.record(session), ObjectPrompt(mask_hw=left()), stamp_ns)

    def test_without_a_sentence_nothing_is_asked_again(self, session, tracker):
        session.push(frame(0))
        session.add(self.record(session), ObjectPrompt(mask_hw=left()))
        tracker.step = lambda tracks, features: [TrackOutput(each.mask_hw, presence=0.0) for each in tracks]
        for number in range(2, 20):
            session.push(frame(number))
        assert session.latest.objects[0].visibility is Visibility.LOST
        assert session.queries_in_doubt() == ()


class TestWithoutWork:
    def test_only_key_frames_are_encoded_while_nothing_is_followed_and_as_they_arrive(self, tracker):
        session = TrackingSession(tracker, SessionConfig(window_hz=2.0))
        for number in range(50):  # at 10 Hz
            session.push(frame(number))
        assert tracker.encoded == stamps(*range(0, 50, 5))

    def test_a_frame_is_encoded_once_for_live_and_worker(self, session, tracker):
        follow(session, NotedTrack())
        session.push(frame(1))
        for stored in session.begin_query().clip:
            stored.features()
        assert sorted(tracker.encoded) == sorted(set(tracker.encoded))

    def test_a_query_before_any_frame_or_after_a_reset_is_refused(self, session):
        with pytest.raises(NoFramesError):
            session.begin_query()
        session.push(frame(0))
        session.reset()
        with pytest.raises(NoFramesError):
            session.begin_query()

    def test_without_a_mask_model_the_cause_is_named(self):
        with pytest.raises(SessionError, match="no mask model"):
            TrackingSession(None).push(frame(0))


def test_whoever_asks_what_there_is_does_not_wait_for_the_masks_of_a_frame(session, tracker):
    record = follow(session, NotedTrack())
    computing, release = threading.Event(), threading.Event()
    tracker.on_step = lambda: (computing.set(), release.wait(30.0))
    live = threading.Thread(target=session.push, args=(frame(1),))
    live.start()
    assert computing.wait(30.0)

    def ask() -> list[object]:
        known = [session.queries, session.object_ids, session.new_query_id()]
        for remove in (session.remove_query, session.remove_object):
            with pytest.raises(UnknownIdError):
                remove(99)
        return known

    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.extend(ask()), daemon=True)
    asking.start()
    asking.join(10.0)
    assert answers == [(record,), {1: record.query_id}, record.query_id + 1]
    release.set()
    live.join(30.0)
