"""Sentences about the robot's table: true of exactly one thing, by a second opinion that was written apart from the first."""

from collections import Counter
from functools import cache

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from table_truth import SecondOpinion

from decaf_ros.synthetic.table.episodes import Episode, sample_episode
from decaf_ros.synthetic.table.events import EventKind
from decaf_ros.synthetic.table.scene import Action, Camera, Look, Scene, Thing
from decaf_ros.synthetic.table.sentences import sentences_of, times_to_ask
from decaf_ros.synthetic.table.window import Window
from decaf_ros.synthetic.table.wordings import ANYTHING, EVENT_KINDS, NOTHING, SENTENCE_KINDS, Sentence, vocabulary

CAMERA = Camera(target=(0.05, 0.0, 0.04), distance=0.85, azimuth=0.0, elevation=0.8, fov_y=0.78)


def play(*things: tuple[str, str, float, float], actions: tuple[Action, ...] = (), seconds: float = 5.0, scales=()) -> Episode:
    made = [
        Thing(kind, colour, scales[i] if scales else 1.0, (x, y), 0.0, seed=2) for i, (kind, colour, x, y) in enumerate(things)
    ]
    return Episode(Scene(tuple(made), actions, CAMERA, Look(noise=0.0), seconds))


def said(episode: Episode, end_s: float | None = None, seconds: float = 4.0) -> list[Sentence]:
    """Everything in several wordings, so that none is missed by chance."""
    end_s = episode.scene.duration_s if end_s is None else end_s
    return [each for seed in range(8) for each in sentences_of(episode, end_s, np.random.default_rng(seed), seconds)]


def targets(sentences: list[Sentence], kind: str) -> set[int | None]:
    return {each.target for each in sentences if each.kind == kind}


@cache
def two_mugs_one_moved() -> Episode:
    things = (("mug", "red", 0.0, -0.15), ("mug", "blue", 0.1, 0.15), ("can", "red", 0.2, -0.05))
    actions = (Action("wait", seconds=2.2), Action("pick", 0), Action("place", xy=(0.15, -0.2)))
    return play(*things, actions=actions, seconds=6.0)


@pytest.mark.parametrize("seed", [2001, 2004, 2007, 2010, 2013, 2019])
def test_a_second_opinion_agrees_with_every_sentence(seed):
    episode = sample_episode(seed)
    duration = episode.scene.duration_s
    for end_s in (0.55 * duration, 0.8 * duration, duration):
        opinion = SecondOpinion(episode, max(0.0, end_s - 4.0), end_s)
        for sentence in sentences_of(episode, end_s, np.random.default_rng(seed)):
            meant = opinion.things_meant(sentence.text) - set(opinion.barely_in_view)
            expected = set() if sentence.target is None else {sentence.target} - set(opinion.barely_in_view)
            assert meant == expected, (sentence, [(t.kind, t.colour) for t in episode.scene.things], end_s)


def test_sentences_are_made_of_the_vocabulary_and_name_their_target():
    words = set(vocabulary())
    for sentence in said(two_mugs_one_moved()):
        assert set(sentence.text.split()) <= words
        assert sentence.kind in SENTENCE_KINDS
        if sentence.target is None:
            assert sentence.answer == NOTHING
        else:
            assert sentence.answer == two_mugs_one_moved().scene.things[sentence.target].kind
        assert 2.0 - 1e-6 <= sentence.evidence_s[0] <= sentence.evidence_s[1] <= 6.0 + 1e-6


def test_one_of_two_mugs_was_moved():
    sentences = said(two_mugs_one_moved())
    assert targets(sentences, "moved") == {0}
    assert targets(sentences, "untouched") == {1}  # among the mugs; the can was not moved either
    assert targets(sentences, "put_down") == {0}
    assert targets(sentences, "category") == {2}  # there are two mugs
    assert targets(sentences, "colour") == {1}  # there are two red things
    assert targets(sentences, "colour_category") == {0, 1, 2}
    assert targets(sentences, "held") == set()
    texts = {sentence.text for sentence in sentences if sentence.kind == "untouched"}
    assert all("mug" in text for text in texts)
    assert any("mug" in sentence.text for sentence in sentences if sentence.kind == "moved")


def test_the_kind_of_the_only_one_of_its_kind_is_not_told_with_its_event():
    things = (("can", "red", 0.05, 0.0), ("mug", "blue", 0.15, 0.2), ("book", "green", 0.0, -0.2))
    episode = play(*things, actions=(Action("pick", 0),), seconds=4.0)
    events = [each for each in said(episode) if each.kind in EVENT_KINDS]
    assert {each.kind for each in events} >= {"held", "picked_up", "moved"}
    for sentence in events:
        assert sentence.target == 0
        assert "can" not in sentence.text.split()
        assert set(sentence.text.split()) & {*ANYTHING, "what"}


def test_near_misses_are_made_of_what_is_there_and_true_of_nothing():
    episode = play(("can", "red", 0.05, -0.1), ("mug", "blue", 0.05, 0.12))
    texts = {each.text for each in said(episode) if each.kind == "near_miss"}
    assert any("red" in text and "mug" in text for text in texts)
    assert any("blue" in text and "can" in text for text in texts)
    assert any("holding" in text or "gripper" in text or "holds" in text for text in texts)  # it holds nothing
    assert not any("red" in text and "can" in text for text in texts)
    for sentence in said(episode):
        if sentence.kind == "absent":
            assert not set(sentence.text.split()) & {"can", "mug", "red", "blue"}


def test_what_happened_before_the_window_has_not_happened_for_it():
    episode = two_mugs_one_moved()
    sentences = said(episode, seconds=0.5)
    assert {each.kind for each in sentences}.isdisjoint({"moved", "untouched", "picked_up", "put_down"})
    assert any(each.kind == "near_miss" and "put down" in each.text for each in sentences)


def test_what_is_held_is_told_until_it_is_let_go():
    things = (("mug", "red", 0.0, -0.1), ("mug", "blue", 0.1, 0.15))
    actions = (Action("pick", 0), Action("wait", seconds=1.5), Action("place", xy=(0.15, -0.2)))
    episode = play(*things, actions=actions, seconds=7.0)
    picked, put = episode.history.events
    assert targets(said(episode, picked.end_s + 1.0), "held") == {0}
    assert targets(said(episode, put.end_s + 0.5), "held") == set()
    assert targets(said(episode, put.end_s + 0.5), "put_down") == {0}
    assert not any(each.kind == "near_miss" and "put down" in each.text for each in said(episode, put.end_s + 0.5))


def test_what_is_held_out_of_view_is_not_asked_for():
    things = (("can", "red", 0.05, 0.0), ("can", "blue", 0.1, 0.2))
    episode = play(*things, actions=(Action("pick", 0), Action("place", xy=(-0.3, 0.72))), seconds=6.0)
    gone = next(event for event in episode.history.events if event.kind is EventKind.TAKEN_AWAY).end_s
    assert episode.history.held_at(gone) == [0]
    assert targets(said(episode, gone), "held") == set()
    assert targets(said(episode, gone), "taken_away") == {0}
    assert targets(said(episode, episode.history.events[0].end_s + 0.4), "held") == {0}


def test_pushed_and_fallen_are_told_apart():
    things = (("bottle", "green", 0.0, -0.15), ("bottle", "blue", 0.0, 0.15), ("can", "red", 0.22, 0.0))
    actions = (Action("push", 1, (0.12, 0.15)), Action("topple", 0, (0.12, -0.15)))
    episode = play(*things, actions=actions, seconds=8.0)
    pushed, fell = (event.end_s for event in episode.history.events)
    first, second = said(episode, pushed + 0.2), said(episode, fell + 0.5, seconds=2.0)
    assert targets(first, "pushed") == {1}
    assert targets(first, "fell_over") == set()
    assert any(each.kind == "near_miss" and ("over" in each.text) for each in first)
    assert targets(second, "fell_over") == {0}
    assert targets(second, "pushed") == set()
    # In a window of both, what fell was shoved, too, one might say: nothing is said of pushes.
    assert targets(said(episode, fell + 0.5, seconds=fell), "pushed") == set()


def test_what_moved_a_little_spoils_what_is_said_of_motion():
    things = (("can", "red", 0.0, -0.2), ("mug", "blue", 0.0, 0.1), ("mug", "green", 0.2, 0.2))
    actions = (Action("push", 0, (0.12, -0.2)), Action("push", 1, (0.022, 0.1)))
    episode = play(*things, actions=actions, seconds=8.0)
    way = episode.history.moved_metres(0.0, 8.0)
    assert way[0] > 0.1
    assert 0.011 < way[1] < 0.035  # more than nothing, less than a move
    sentences = said(episode, seconds=8.0)
    assert {kind: targets(sentences, kind) for kind in ("moved", "untouched", "pushed")} == {
        "moved": set(), "untouched": set(), "pushed": set(),
    }  # fmt: skip


def test_sizes_and_places_are_compared_by_a_clear_margin():
    things = (("cube", "red", -0.12, -0.2), ("cube", "blue", 0.05, 0.0), ("cube", "green", 0.1, 0.2))
    clear = said(play(*things, scales=(0.75, 1.0, 1.25)))
    assert targets(clear, "size") == {0, 2}
    assert targets(clear, "position") >= {0, 2}
    same = said(play(*things, scales=(1.0, 1.05, 1.0)))
    assert targets(same, "size") == set()
    # The camera faces the robot, so y grows to the right of the image.
    left = [each for each in clear if "left" in each.text and each.kind == "position"]
    assert {each.target for each in left} == {0}
    near = [each for each in clear if "robot" in each.text and each.kind == "position" and "farthest" not in each.text]
    assert {each.target for each in near} == {0}


def test_relations_are_those_that_the_camera_sees():
    things = (
        ("bowl", "white", 0.0, 0.0),
        ("mug", "red", 0.0, 0.13),
        ("mug", "blue", 0.05, -0.28),
        ("mug", "green", -0.14, 0.0),
    )
    sentences = [each for each in said(play(*things)) if each.kind == "relation"]
    # The green mug stands between bowl and robot, farther from the camera.
    assert {each.target for each in sentences if "behind" in each.text} == {3}
    assert {each.target for each in sentences if "right of" in each.text} == {1}
    assert not [each for each in sentences if "next to" in each.text]  # two mugs are close to the bowl
    fewer = [each for each in said(play(*things[:3])) if each.kind == "relation"]
    assert {each.target for each in fewer if "next to" in each.text} == {1}
    row = (("bowl", "white", 0.05, -0.2), ("mug", "red", 0.05, 0.0), ("can", "green", 0.05, 0.2), ("mug", "blue", 0.25, 0.0))
    between = [each for each in said(play(*row)) if "between" in each.text]
    assert {each.target for each in between} == {1}


def test_uses_are_told_unless_one_could_argue():
    drink = {"something to drink from", "what one drinks from"}
    clear = said(play(("mug", "red", 0.0, -0.1), ("book", "blue", 0.1, 0.15)))
    assert {each.target for each in clear if each.text in drink} == {0}
    argued = said(play(("mug", "red", 0.0, -0.1), ("bottle", "blue", 0.1, 0.15)))
    assert not [each for each in argued if each.text in drink]
    fruit = said(play(("apple", "red", 0.0, -0.1), ("mug", "blue", 0.1, 0.15)))
    assert {each.target for each in fruit if "fruit" in each.text} == {0}


def test_what_is_hidden_is_not_spoken_of_and_what_is_out_of_view_is_no_rival():
    camera = Camera((0.05, 0.0, 0.03), 0.8, 0.0, 0.2, 0.75)
    box, hidden = Thing("box", "orange", 1.15, (0.15, 0.0), 0.0, 1), Thing("cube", "blue", 0.75, (0.05, 0.0), 0.0, 1)
    far = Thing("box", "green", 1.0, (-0.3, 0.7), 0.0, 1)
    episode = Episode(Scene((box, hidden, far), (), camera, Look(noise=0.0), 2.0))
    sentences = said(episode, seconds=2.0)
    assert targets(sentences, "category") == {0}  # the other box is out of the image, the cube behind the first
    assert not any(each.target in (1, 2) for each in sentences)


@pytest.mark.parametrize(("start_s", "end_s"), [(-1.0, 2.0), (2.0, 2.0), (3.0, 99.0)])
def test_a_window_outside_of_the_episode_is_refused(start_s, end_s):
    with pytest.raises(ValueError, match=r"a window lies within 0 to 6\.0 s"):
        Window(two_mugs_one_moved(), start_s, end_s)


def test_one_asks_soon_after_what_happens_and_at_other_times():
    episode = two_mugs_one_moved()
    times = times_to_ask(episode, np.random.default_rng(0), 60)
    assert times == sorted(times)
    assert len(times) == 60
    assert all(1.0 <= time_s <= 6.0 for time_s in times)
    picked = episode.history.events[0].end_s
    assert np.mean([time_s > picked for time_s in times]) > 0.6
    assert min(times) < picked
    assert len(times_to_ask(play(("mug", "red", 0.0, 0.0)), np.random.default_rng(0), 3)) == 3  # where nothing happens


def test_wordings_are_many():
    texts = Counter(each.text for each in said(two_mugs_one_moved()) if each.kind == "moved")
    assert len(texts) >= 5
