"""What the demo asks: what it means is there, is one of several, and stays in view; what is absent is not."""

import pytest

from decaf_ros.cli.demo_scenes import choose_queries, require_kinds
from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.synthetic.table.events import EventKind
from decaf_ros.synthetic.table.sampling import FIRST_TRAINING_SEED
from decaf_ros.synthetic.table.wordings import NOTHING

KINDS = ("put_down", "colour_category", "near_miss")


def test_the_questions_suit_the_scenes():
    event, other, absent = choose_queries(16, KINDS, shown_s=10.0)  # a seed that needs no long search
    for query in (event, other):
        episode, sentence = sample_episode(query.seed), query.sentence
        assert sentence.answer in sentence.text
        assert [thing.kind for thing in episode.scene.things].count(sentence.answer) > 1
        for later in (0.0, 5.0, 9.5):
            assert episode.render(query.end_s + later).mask_of(sentence.target).sum() > 30
    released = [each for each in sample_episode(event.seed).history.events if each.kind is EventKind.PUT_DOWN]
    assert event.sentence.target in [each.thing for each in released if event.end_s - 4.0 < each.end_s < event.end_s]
    assert (absent.seed, absent.end_s, absent.sentence.target) == (other.seed, other.end_s, None)
    assert absent.sentence.answer == NOTHING
    assert (event, other, absent) == choose_queries(16, KINDS, shown_s=10.0)


@pytest.mark.parametrize("seed", [FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + 5])
def test_scenes_that_models_were_trained_on_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed {seed} is not held out"):
        choose_queries(seed, KINDS, shown_s=1.0)


def test_the_kinds_are_those_that_were_asked_for():
    kinds = ("colour", "category", "absent")
    assert tuple(query.sentence.kind for query in choose_queries(16, kinds, shown_s=1.0)) == kinds


@pytest.mark.parametrize("kinds", [("colour", "absent"), ("colour", "shape", "absent"), ("colour", "size", "position")])
def test_kinds_that_cannot_be_asked_are_told_with_those_that_can(kinds):
    with pytest.raises(ValueError, match=r"two of category, .*taken_away, and one of absent, near_miss"):
        require_kinds(kinds)
