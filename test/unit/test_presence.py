"""How answers become one presence, what a threshold makes of it, and how both are chosen: all by hand."""

import math
import shutil
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest

from decaf_ros.method.presence import combined_presence

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.bench.part import Run
from decaf_ros.bench.parts import presence as part
from decaf_ros.config import GroundingConfig
from decaf_ros.evaluation.held_out import AT_REST, ROWS
from decaf_ros.evaluation.presence import (
    Answers,
    PresenceScore,
    area_under_curve,
    cost_of,
    curves_of,
    decisions_of,
    is_right,
    presence_counts,
    shares_of,
    wrong_of,
)
from decaf_ros.evaluation.setups import Setup
from decaf_ros.synthetic.table.sampling import FIRST_SCORED_SEED
from tools import fit_presence

KINDS = ("held", "colour", "colour", "absent", "near_miss", "near_miss")
PRESENCES = (0.9, 0.4, 0.8, 0.1, 0.6, 0.2)


def test_presence_is_the_mean_of_the_paths_log_odds():
    # Odds of 9 and of 4: their geometric mean is 6.
    assert combined_presence([0.9], [0.8], 0.5, 1.0) == pytest.approx(6 / 7)
    assert combined_presence([0.9], [0.8], 1.0, 1.0) == pytest.approx(0.9)
    # The likeliest two of four frames have a mean of .8.
    assert combined_presence([0.5], [0.1, 0.9, 0.7, 0.2], 0.0, 0.5) == pytest.approx(0.8)
    assert combined_presence([0.5], [0.1, 0.9, 0.7, 0.2], 0.0, 0.05) == pytest.approx(0.9), "one at least"


def test_a_path_that_was_not_asked_has_no_say():
    assert combined_presence([0.3], [], video_share=0.0) == pytest.approx(0.3)
    assert combined_presence([], [0.2], video_share=1.0) == pytest.approx(0.2)
    assert math.isnan(combined_presence([], []))


def test_no_path_is_so_sure_that_the_other_does_not_matter():
    assert 0.0 < combined_presence([0.0], [0.0]) < combined_presence([0.0], [0.5]) < combined_presence([0.0], [0.9999]) < 1.0
    assert combined_presence([1.0], [0.0], 0.5, 1.0) == pytest.approx(0.5)


def test_the_area_counts_pairs_in_the_right_order_and_ties_by_half():
    # Of 3 x 2 pairs: .9 beats both, .5 beats one and ties with the other, .1 beats none.
    assert area_under_curve([0.9, 0.5, 0.1], [0.5, 0.2]) == pytest.approx((2 + 1.5 + 0) / 6)
    assert area_under_curve([0.8, 0.9], [0.1]) == 1.0
    assert math.isnan(area_under_curve([0.8], []))


def test_present_sentences_of_all_kinds_stand_against_each_kind_of_absent_ones():
    curves = curves_of(("held", "colour", "absent", "near_miss"), (0.9, 0.4, 0.1, 0.6))
    assert {name: (row["queries"], row["auc"]) for name, row in curves.items()} == {
        "absent": (1, 1.0),
        "near_miss": (1, 0.5),
        "all": (2, 0.75),
    }


def test_a_threshold_refuses_some_that_are_there_and_accepts_some_that_are_not():
    decided = decisions_of(KINDS, PRESENCES, 0.5)
    assert decided == pytest.approx(
        {
            "balanced_accuracy": (2 / 3 + 2 / 3) / 2,
            "present_refused": 1 / 3,
            "absent_accepted": 0.0,
            "near_misses_accepted": 0.5,
        }
    )
    assert decisions_of(KINDS, PRESENCES, 0.4)["present_refused"] == 0.0, "a value of the threshold itself is enough"
    shares = shares_of(KINDS, PRESENCES, 0.5)
    assert (shares["colour"]["accepted"], shares["colour"]["probability"]) == (0.5, pytest.approx(0.6))


def score(presence: float, right: bool, seconds: float = 1.0, asking_seconds: float = 0.02) -> PresenceScore:
    return PresenceScore(Answers("held", (), ()), presence, right, seconds, asking_seconds)


def test_what_is_refused_is_not_followed_wrongly():
    scores = [score(0.9, right=True), score(0.9, right=False), score(0.1, right=False), score(0.1, right=True)]
    assert wrong_of(scores, 0.5) == {"without": 0.5, "with": 0.25, "ratio": 0.5}
    costs = [score(0.9, True, 1.0, 0.01), score(0.9, True, 2.0, 0.06), score(0.9, True, 4.0, 0.2)]
    assert cost_of(costs) == pytest.approx({"ms": 60.0, "share": 0.03})


def test_an_object_is_right_where_it_covers_what_is_meant_over_all_frames():
    truth = np.zeros((2, 4, 4), np.bool_)
    truth[:, :2, :2] = True
    half = truth.copy()
    half[1] = False  # 4 of 8 pixels
    less = half.copy()
    less[0, 3, 3] = True  # 4 of 9

    def found(masks: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(objects=[SimpleNamespace(tracklets=[SimpleNamespace(masks_thw=masks)])])

    assert is_right(found(half), truth)
    assert not is_right(found(less), truth)
    assert not is_right(found(half), np.zeros_like(truth)), "nothing is meant"
    assert not is_right(SimpleNamespace(objects=[]), truth)


def test_the_page_is_about_what_queries_decide(monkeypatch):
    """Of two sentences that are true the default refuses one; of two that are not it accepts one, which is wrong."""
    least = GroundingConfig.min_presence
    said = [("held", 0.999, 0.9), ("colour", least / 2, 0.8), ("absent", least / 3, 0.1), ("near_miss", 0.99, 0.2)]
    scores = [
        PresenceScore(Answers(kind, (video,), (0.1, video)), presence, kind == "held", 1.0, 0.04)
        for kind, presence, video in said
    ]
    query = SimpleNamespace(seed=FIRST_SCORED_SEED)
    monkeypatch.setattr(part, "draw_queries", lambda counts, first_seed, processes: [query] * 4)
    monkeypatch.setattr(part, "score_presences", lambda setup, queries, processes: iter(scores))
    page, figures, _ = part.measure(Run(Setup(), FIRST_SCORED_SEED, 1), 2)
    assert figures["default.min_presence"] == least
    assert figures["default.balanced_accuracy"] == 0.5
    assert (figures["default.present_refused"], figures["default.near_misses_accepted"]) == (0.5, 1.0)
    assert (figures["wrong.without"], figures["wrong.with"]) == (0.75, 0.25)
    assert figures["cost.share"] == pytest.approx(0.04)
    assert (figures["curve.all.auc"], figures["path.video_path.all"]) == (0.75, 1.0)
    assert f"| **{least:g}** " in page


def test_half_of_what_is_asked_is_true_of_nothing_and_half_of_that_a_near_miss():
    counts = presence_counts(100)
    assert (counts["absent"], counts["near_miss"]) == (50, 50)
    assert sum(counts[row] for row in ROWS if row != AT_REST) == 100
    assert AT_REST not in counts


def test_the_path_that_knows_decides_and_the_threshold_lies_between():
    """The video path is sure of all, one frame of four of each present thing; else frames say anything."""
    rng = np.random.default_rng(0)
    there = [Answers("held", (0.9,), tuple(rng.random(4))) for _ in range(50)]
    nothing = [Answers("near_miss", (0.3,), tuple(rng.random(4))) for _ in range(50)]
    chosen = fit_presence.fit(there + nothing)
    kinds = [each.kind for each in chain(there, nothing)]
    presences = fit_presence.presences_of(there + nothing, chosen.video_share, chosen.likeliest_share)
    assert decisions_of(kinds, presences, chosen.min_presence)["balanced_accuracy"] >= 1.0 - fit_presence.AS_GOOD


def test_the_threshold_is_the_mildest_of_those_that_are_about_as_good():
    kinds = ["held"] * 100 + ["absent"] * 100
    presences = [0.505] + [0.905] * 99 + [0.455] + [0.405] * 99  # from 0.46 to 0.5 all is told apart
    assert fit_presence.threshold(kinds, presences) == 0.41, "one absent of 100 is accepted"
    presences[100:110] = [0.455] * 10
    assert fit_presence.threshold(kinds, presences) == 0.46, "ten are too many"


def test_what_is_chosen_is_written_where_it_is_read(tmp_path):
    for name in fit_presence.WRITTEN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(fit_presence.ROOT / name, tmp_path / name)
    fit_presence.write(fit_presence.Fit(0.75, 0.125, 0.42), tmp_path)
    method, config, example = ((tmp_path / name).read_text() for name in fit_presence.WRITTEN)
    assert "\nVIDEO_SHARE = 0.75\n" in method
    assert "\nLIKELIEST_SHARE = 0.125\n" in method
    assert "\n    min_presence: float = 0.42\n" in config
    assert "\n    min_presence: 0.42\n" in example
    assert f"min_presence: {GroundingConfig.min_presence}\n" in (fit_presence.ROOT / "config/decaf.yaml").read_text()
