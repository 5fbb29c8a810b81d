"""What the evaluation counts, by hand."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.bench.figures import named
from decaf_ros.evaluation.held_out import AT_REST
from decaf_ros.evaluation.metrics import MaskScores, region_similarity
from decaf_ros.evaluation.quality import (
    ALL,
    DESCRIPTIONS,
    EVENTS,
    HEADER,
    NAMES,
    QueryScore,
    TokenGrids,
    ceiling_masks,
    cells,
    coverage,
    points_at,
    rows_of,
)
from decaf_ros.evaluation.tables import markdown_table


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


class TestCeiling:
    def test_a_token_is_covered_as_far_as_the_mask_covers_it_in_space_and_time(self):
        truth = np.zeros((3, 8, 12), dtype=np.bool_)
        truth[0, :4, :4] = True  # the first of 2 x 3 cells of 4 x 4 pixels
        truth[0, 4:, 6:8] = True  # half of the middle one below
        truth[2, :2, 8:] = True  # half of the last one above
        assert coverage(truth, (3, 2, 3))[0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]
        # Two frames a step; the third frame stands for the missing fourth as well.
        assert coverage(truth, (2, 2, 3)).tolist() == [
            [[0.5, 0.0, 0.0], [0.0, 0.25, 0.0]],
            [[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]],
        ]

    def test_a_finer_grid_has_a_higher_ceiling_and_one_path_has_its_own(self):
        truth = np.zeros((4, 48, 64), dtype=np.bool_)
        truth[:, 18:31, 20:34] = True

        def ceiling(**grids: tuple[int, int, int]) -> float:
            return region_similarity(ceiling_masks(truth, TokenGrids(grids, 2))[0], truth[0])

        coarse, both, fine = (4, 6, 8), (4, 12, 16), (4, 24, 32)
        assert ceiling(frame=coarse) < ceiling(frame=both) < ceiling(frame=fine)
        assert ceiling(video=(2, 6, 8)) < ceiling(video=(2, 6, 8), frame=fine)
        assert ceiling(frame=fine) > 0.6


def score(row: str, pointed: bool = True, contested: bool = False, coarse: float = 0.3, ceiling: float = 0.4) -> QueryScore:
    return QueryScore(row, contested, pointed, coarse, ceiling, True, False, MaskScores(0.6, 0.8))


class TestRows:
    def test_means_by_kind(self):
        scores = [score("moved", True, True), score("moved", False, True, coarse=0.1, ceiling=0.6), score("moved")]
        row = rows_of(scores)["moved"]
        assert list(row) == list(NAMES)
        assert row["pointing"] == pytest.approx(2 / 3)
        assert row["coarse_iou_of_ceiling"] == pytest.approx(0.7 / 1.4)
        assert (row["contested_queries"], row["contested_pointing"]) == (2, 0.5)
        assert (row["answer"], row["name"], row["j_and_f"]) == pytest.approx((1.0, 0.0, 0.7))

    def test_only_offered_descriptions_count_as_such_all_events_do_and_what_rests_in_none(self):
        scores = [
            score("colour"),
            *[score("relation", False)] * 2,
            score("held"),
            score("pushed", False),
            score(AT_REST, False),
        ]
        rows = rows_of(scores)
        assert list(rows) == ["colour", "relation", "held", "pushed", AT_REST, DESCRIPTIONS, EVENTS, ALL]
        assert {name: rows[name]["queries"] for name in (DESCRIPTIONS, EVENTS, ALL)} == {DESCRIPTIONS: 1, EVENTS: 2, ALL: 5}
        assert rows[EVENTS]["pointing"] == 0.5

    def test_cells_stand_below_their_header_and_are_empty_where_nothing_is_told(self):
        row = dict(zip(HEADER, cells(rows_of([score("colour")])["colour"]), strict=True))
        assert (row["queries"], row["pointing"], row["of the ceiling"], row["pointing there"]) == ("1", "1.000", "0.750", "")

    def test_figures_have_stable_names(self):
        figures = named(
            {"`~/mask`": {"p50_ms": 2.5}, "all six, as from the node": 1, "curve": {"near_miss": {"auc": math.nan}}}
        )
        assert {name: figures[name] for name in ("mask.p50_ms", "all_six_as_from_the_node")} == {
            "mask.p50_ms": 2.5,
            "all_six_as_from_the_node": 1,
        }
        assert math.isnan(figures["curve.near_miss.auc"])


def test_tables_line_up():
    assert len(markdown_table(("a",), [["b | c\n\x1b[2J \\| d"]]).splitlines()) == 3
    assert markdown_table(("a",), [["b|c\nd\\|"]]).splitlines()[2] == r"| b\|c d\\\| |"
    assert markdown_table(("a", "long name"), [["value", "1"]]) == (
        "| a     | long name |\n| ----- | --------- |\n| value | 1         |\n"
    )
