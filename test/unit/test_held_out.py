"""What the evaluation counts, by hand, and which scenes it asks about."""

import numpy as np
import pytest
import torch

from decaf_ros.evaluation.held_out import (
    CLIP_FRAMES,
    TARGET_KINDS,
    QueryScore,
    clip_times_s,
    even_counts,
    kind_rows,
    points_at,
    render_clip,
    sample_queries,
)
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.synthetic.expressions import KINDS
from decaf_ros.synthetic.world import FIRST_TRAINING_SEED


def test_queries_are_as_many_as_asked_for_each_about_another_scene_below_the_training_seeds():
    counts = even_counts(KINDS, 20)
    queries = sample_queries(counts)
    assert {kind: sum(query.expression.kind == kind for query in queries) for kind in KINDS} == counts
    seeds = [query.seed for query in queries]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < FIRST_TRAINING_SEED
    assert queries == sample_queries(counts)


def test_the_truth_of_a_clip_is_the_body_that_is_meant():
    (query,) = sample_queries({"colour_shape": 1})
    clip = render_clip(query)
    assert len(clip.source) == CLIP_FRAMES
    assert clip.truth_thw.shape == (CLIP_FRAMES, 192, 256)
    frames = clip.source.read(0, CLIP_FRAMES)
    assert [frame.stamp_ns for frame in frames] == [round(time_s * 1e9) for time_s in clip_times_s()]
    assert clip.truth_thw.any(axis=(1, 2)).mean() >= 0.5


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ((0, 1, 1), True),  # its centre (15, 15) is in the mask
        ((0, 1, 2), True),  # (25, 15) is 6 pixels right of it
        ((0, 1, 3), False),  # (35, 15) is 16 pixels off
        ((1, 1, 1), False),  # nothing is seen on that frame
    ],
)
def test_pointing_allows_eight_pixels_on_the_frame_of_the_hottest_cell(cell, expected):
    truth = np.zeros((2, 40, 40), dtype=np.bool_)
    truth[0, 10:20, 10:20] = True
    heat = torch.full((2, 4, 4), 0.2)
    heat[cell] = 0.9
    assert points_at(heat, truth) is expected


def test_kinds_below_the_bar_are_marked_and_kept_out_of_the_mean():
    def score(kind: str, pointed: bool) -> QueryScore:
        return QueryScore(kind, pointed, 0.5, True, MaskScores(0.6, 0.8))

    scores = [score(kind, True) for kind in TARGET_KINDS] + [score("motion", False)]
    rows = kind_rows(scores)
    assert [row[0] for row in rows[:2]] == ["colour", "shape"]
    assert rows[-2] == ["motion (not offered)", "1", "0.000", "0.500", "1.000", "0.600", "0.800", "0.700"]
    assert rows[-1][:3] == ["**offered kinds**", str(len(TARGET_KINDS)), "1.000"]


def test_tables_line_up():
    assert len(markdown_table(("a",), [["b | c\n\x1b[2J \\| d"]]).splitlines()) == 3
    assert markdown_table(("a",), [["b|c\nd\\|"]]).splitlines()[2] == r"| b\|c d\\\| |"
    assert markdown_table(("a", "long name"), [["value", "1"]]) == (
        "| a     | long name |\n| ----- | --------- |\n| value | 1         |\n"
    )
