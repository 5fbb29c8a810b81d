"""Areas under the curve by hand, and what is asked."""

import math

import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.evaluation.held_out import AT_REST, ROWS
from decaf_ros.evaluation.presence import PresenceScore, area_under_curve, curves_of, presence_counts, shares_of


def test_the_area_counts_pairs_in_the_right_order_and_ties_by_half():
    # Of 3 x 2 pairs: .9 beats both, .5 beats one and ties with the other, .1 beats none.
    assert area_under_curve([0.9, 0.5, 0.1], [0.5, 0.2]) == pytest.approx((2 + 1.5 + 0) / 6)
    assert area_under_curve([0.8, 0.9], [0.1]) == 1.0
    assert math.isnan(area_under_curve([0.8], []))


def test_present_sentences_of_all_kinds_stand_against_each_kind_of_absent_ones():
    scores = [PresenceScore("held", 0.9), PresenceScore("colour", 0.4)]
    scores += [PresenceScore("absent", 0.1), PresenceScore("near_miss", 0.6)]
    assert {name: (row["queries"], row["auc"]) for name, row in curves_of(scores).items()} == {
        "absent": (1, 1.0),
        "near_miss": (1, 0.5),
        "all": (2, 0.75),
    }
    assert {kind: row["yes"] for kind, row in shares_of(scores).items()} == {
        "colour": 0.0,
        "held": 1.0,
        "absent": 0.0,
        "near_miss": 1.0,
    }


def test_half_of_what_is_asked_is_true_of_nothing_and_half_of_that_a_near_miss():
    counts = presence_counts(100)
    assert (counts["absent"], counts["near_miss"]) == (50, 50)
    assert sum(counts[row] for row in ROWS if row != AT_REST) == 100
    assert AT_REST not in counts
