"""Grounders side by side, by hand."""

import numpy as np
import pytest

from decaf_ros.datatypes import BoxPrompt, PointPrompt, Tracklet
from decaf_ros.evaluation.grounders import GrounderScore, points_at_truth, side_by_side
from decaf_ros.evaluation.metrics import MaskScores


def test_figures_stand_by_grounder_and_kind_and_of_all():
    scores = [
        GrounderScore("colour", "decaf", "decaf", True, MaskScores(0.8, 0.6), 2.0),
        GrounderScore("colour", "box", "", False, MaskScores(0.0, 0.0), 1.0),
        GrounderScore("moved", "decaf", "decaf", False, MaskScores(0.2, 0.0), 4.0),
        GrounderScore("moved", "decaf", "decaf", True, MaskScores(0.5, 0.3), 9.0),
        GrounderScore("moved", "box", "box", True, MaskScores(1.0, 0.8), 3.0),
        GrounderScore("colour", "both", "box", True, MaskScores(1.0, 1.0), 5.0),
    ]
    figures = side_by_side(scores)
    assert list(figures) == ["decaf", "box", "both"]
    assert [list(figures[name]) for name in figures] == [
        ["colour", "moved", "all"],
        ["colour", "moved", "all"],
        ["colour", "all"],
    ]
    expected = {"queries": 3, "found": 1, "pointing": 2 / 3, "j": 0.5, "f": 0.3, "j_and_f": 0.4, "seconds": 4.0, "by_box": 0}
    assert figures["decaf"]["all"] == pytest.approx(expected)
    assert figures["decaf"]["moved"]["seconds"] == pytest.approx(6.5)
    assert [figures["box"]["all"][key] for key in ("found", "pointing", "by_box")] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (PointPrompt(1, (12.0, 12.0), 1.0), True),
        (PointPrompt(0, (12.0, 12.0), 1.0), False),  # on this frame the thing is not to be seen
        (PointPrompt(1, (24.0, 12.0), 1.0), False),  # 9 pixels from the last one of the mask
        (PointPrompt(1, (23.0, 12.0), 1.0), True),
        (BoxPrompt(1, (2.0, 0.0, 22.0, 24.0), 1.0), True),  # its centre is in the mask
        (BoxPrompt(1, (12.0, 12.0, 40.0, 30.0), 1.0), False),
    ],
)
def test_a_prompt_points_at_the_thing_where_it_lies_on_it_or_close_by(prompt, expected):
    truth = np.zeros((2, 30, 40), dtype=np.bool_)
    truth[1, 10:16, 10:16] = True
    assert points_at_truth(Tracklet(prompt, truth, 0.9, 1.0, 0.9), truth) is expected
