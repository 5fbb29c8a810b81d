"""Which scenes the evaluation asks about, at what times, and what is true of its clips."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from test_session import NotingTracker

from decaf_ros.evaluation import held_out
from decaf_ros.evaluation.held_out import (
    AT_REST,
    CLIP_FRAMES,
    KEY_INDICES,
    MOST_A_SCENE,
    HeldOutQuery,
    even_counts,
    key_window,
    middle_frame,
    queries_of,
    render_clip,
    render_film,
    sample_queries,
)
from decaf_ros.session.session import TrackingSession
from decaf_ros.synthetic.table.episodes import Episode
from decaf_ros.synthetic.table.sampling import FIRST_TRAINING_SEED
from decaf_ros.synthetic.table.scene import Action, Camera, Look, Scene, Thing
from decaf_ros.synthetic.table.wordings import Sentence

RARE_EVERY = 5


def scenes(work, seeds):
    """Every scene allows six kinds, several times; each fifth a rare one, too."""
    for seed in seeds:
        rows = [f"kind {number}" for number in range(6)] + ["rare"] * (seed % RARE_EVERY == 0)
        yield [
            HeldOutQuery(seed, end_s, Sentence("", row, 0, "", (0.0, 1.0)), row, False) for row in rows for end_s in (4.0, 5.0)
        ]


class TestSampling:
    def test_queries_are_as_many_as_asked_for_and_what_is_rare_is_taken_where_it_occurs(self):
        counts = {f"kind {number}": 5 for number in range(6)} | {"rare": 6, "none": 0}
        queries = sample_queries(counts, 100, scenes)
        assert Counter(query.row for query in queries) == Counter(counts) - Counter({"none": 0})
        assert {query.seed for query in queries if query.row == "rare"} == {100, 105, 110, 115, 120, 125}
        of_a_scene = Counter(query.seed for query in queries)
        assert max(of_a_scene.values()) == MOST_A_SCENE
        assert max(Counter((query.seed, query.row) for query in queries).values()) == 1
        assert {query.end_s for query in queries} == {4.0, 5.0}, "not the first time only"
        assert queries == sample_queries(counts, 100, scenes)

    @pytest.mark.parametrize("first_seed", [-1, FIRST_TRAINING_SEED, FIRST_TRAINING_SEED - 2])
    def test_seeds_that_models_were_trained_on_are_refused_and_never_reached(self, first_seed):
        seen = []

        def watched(work, seeds):
            seen.extend(seed for seed in seeds if seed >= FIRST_TRAINING_SEED)
            return scenes(work, seeds)

        with pytest.raises(ValueError, match="is not held out: those are 0 to 999999"):
            sample_queries({"rare": 3}, first_seed, watched)
        assert not seen

    def test_what_is_left_over_goes_to_the_first(self):
        assert even_counts(("a", "b", "c"), 8) == {"a": 3, "b": 3, "c": 2}


@pytest.fixture(scope="module")
def staged():
    """A mug is carried from 1 s on, and left alone for the last seconds; another mug and a can are not touched."""
    looks = (("mug", "red", 0.0, -0.15), ("mug", "blue", 0.05, 0.15), ("can", "green", 0.2, 0.0))
    things = tuple(Thing(kind, colour, 1.0, (x, y), 0.0, seed=2) for kind, colour, x, y in looks)
    actions = (Action("wait", seconds=1.0), Action("pick", 0), Action("wait", seconds=0.8), Action("place", xy=(0.12, -0.2)))
    camera = Camera(target=(0.05, 0.0, 0.04), distance=0.85, azimuth=0.0, elevation=0.8, fov_y=0.78)
    return Episode(Scene(things, actions, camera, Look(noise=0.0), 10.3))


@pytest.fixture
def queries(staged, monkeypatch) -> list[HeldOutQuery]:
    monkeypatch.setattr(held_out, "sample_episode", lambda seed: staged)
    held_out.episode_of.cache_clear()
    yield queries_of(7)
    held_out.episode_of.cache_clear()


class TestQueriesOfAScene:
    def test_windows_lie_within_the_scene_and_each_event_is_asked_for_at_several_times(self, staged, queries):
        assert all(query.times_s[0] >= -1e-9 and query.times_s[-1] <= staged.scene.duration_s for query in queries)
        assert all(query.times_s[-1] - query.times_s[0] == pytest.approx(31 / 8) for query in queries)
        for row in ("moved", "held", "put_down", AT_REST):
            assert len({query.end_s for query in queries if query.row == row}) > 1, row

    def test_only_what_could_be_another_is_contested(self, queries):
        """Two mugs, one of which was moved; the can is one of its kind, and was not touched."""
        assert {query.contested for query in queries if query.sentence.kind in ("moved", "put_down", "held")} == {True}
        assert {query.contested for query in queries if query.sentence.kind in ("category", "colour", "near_miss")} == {False}

    def test_at_rest_nothing_has_moved_for_a_second_and_the_mug_is_told_apart_by_what_happened_before(self, staged, queries):
        positions, step_s = staged.recording.positions_tn3, float(staged.recording.times_s[1])

        def way(start_s: float, end_s: float) -> float:
            track = positions[round(start_s / step_s) : round(end_s / step_s) + 1]
            return float(np.linalg.norm(track - track[0], axis=-1).max())

        asked = {True: set(), False: set()}
        for query in queries:
            if query.row == AT_REST or query.sentence.kind == "moved":
                asked[query.row == AT_REST].add(query.end_s)
            if query.row == AT_REST:
                assert "mug" in query.sentence.text
                assert query.sentence.target == 0
                assert way(query.end_s - 1.0, query.end_s) < 0.01 < 0.04 < way(query.end_s - 3.75, query.end_s)
        assert min(asked[True]) > min(asked[False]), "while it moves, nothing rests"

    def test_who_asks_during_a_film_asks_about_the_window_of_the_clip_and_sees_what_happens_later(self, staged, queries):
        query = next(each for each in queries if each.row == "held")
        film, window, session = render_film(query, 0.5), key_window(query), TrackingSession(NotingTracker())
        frames = film.source.read(0, len(film.source))
        assert [frame.stamp_ns for frame in frames] == [125_000_000 * index for index in range(30 + 1 + 4)]
        for frame in frames[:31]:
            session.push(frame)
        seen = [each.frame.image_rgb for each in session.begin_query().clip]
        assert np.array_equal(seen, [each.image_rgb for each in window.frames])
        assert np.array_equal(film.truth_thw[-1], staged.render(query.end_s + 0.5).mask_of(query.sentence.target))

    def test_a_clip_shows_the_window_and_the_truth_is_the_thing_that_is_meant(self, staged, queries):
        query = next(each for each in queries if each.row == "put_down")
        clip, window = render_clip(query), key_window(query)
        frames = clip.source.read(0, CLIP_FRAMES)
        stamps_s = np.array([frame.stamp_ns for frame in frames]) * 1e-9
        assert stamps_s[-1] == pytest.approx(query.end_s)
        assert np.diff(stamps_s) == pytest.approx([1 / 8] * (CLIP_FRAMES - 1))
        key_s = np.array([frame.stamp_ns for frame in window.frames]) * 1e-9
        assert key_s == pytest.approx(query.end_s - np.arange(15, -1, -1) / 4)
        assert [frame.stamp_ns for frame in window.frames] == [frames[index].stamp_ns for index in KEY_INDICES]
        middle = middle_frame(query)
        assert middle.stamp_ns == window.frames[8].stamp_ns
        assert np.array_equal(middle.image_rgb, window.frames[8].image_rgb)
        for index in (0, 17, 31):
            view = staged.render(stamps_s[index])
            assert np.array_equal(frames[index].image_rgb, view.image_rgb)
            assert np.array_equal(clip.truth_thw[index], view.instances_hw == 1)
        nothing = next(each for each in queries if each.row == "near_miss")
        assert not render_clip(nothing).truth_thw.any()
