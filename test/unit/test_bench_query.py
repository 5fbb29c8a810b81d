"""``decaf bench --parts query``: what it measures answers alike under all conditions, and it tells when that is not so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")

from filmed_table import EXPRESSION, OTHER_EXPRESSION, TABLE

from decaf_ros.bench.part import Run
from decaf_ros.bench.parts import query
from decaf_ros.bench.parts.query import Row, Subject, report, rows_in_turn
from decaf_ros.datatypes import Frame
from decaf_ros.evaluation.setups import Setup
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.attention import Attention
from decaf_ros.session.stages import STAGES

QUERIES = [(EXPRESSION, "mug"), (OTHER_EXPRESSION, "box"), ("the blue bowl", "bowl"), ("the box", "box")]


def subject(key_frames: int) -> Subject:
    times_s = [0.25 * index for index in range(key_frames + 1)]
    frames = [Frame(1 + round(time_s * 1e9), "camera", TABLE.view(time_s).image_rgb) for time_s in times_s]
    return Subject(frames, QUERIES)


class Recalled:
    """Attention that looks at one spot; what it remembers of a frame may be wrong."""

    def __init__(self, off: float = 0.0, name: str = "mug", spot: tuple[int, int] = (4, 5)) -> None:
        self._off, self._name, self._spot = off, name, spot
        self.prepared: list[int] = []

    def attend(self, window, expression, clock, grounder="decaf"):
        heat_thw = torch.full((len(window), 9, 12), self._off)
        heat_thw[(slice(None), *self._spot)] = 1.0
        with clock.stage("prefill"):
            return Attention(heat_thw, self._name, ())

    def refresh(self, frame, queries):
        return [torch.full((9, 12), self._off) for _ in queries]

    def prepare(self, window, frame):
        assert frame in window.frames
        self.prepared.append(frame.stamp_ns)


@pytest.fixture(scope="module")
def tracker() -> Sam2Tracker:
    return Sam2Tracker.load("embedded")


def test_all_conditions_of_the_embedded_models_answer_alike() -> None:
    rows = query.measured_rows(Setup(), subject(2), repetitions=1)
    measured = report(Run(Setup(), 500_000, 1), rows)
    assert measured.figures["largest.map_difference"] <= 1e-4
    assert measured.figures["largest.pixel_difference"] <= 1e-3
    assert measured.figures["largest.same_objects"] == 1
    for name in ("cold_cache_off", "cold", "warm", "second_query_same_window", "re_query"):
        assert 0 < sum(measured.figures[f"{name}.{stage}_ms"] for stage in STAGES) <= measured.figures[f"{name}.p50_ms"]
    assert "| refresh, queries: 4, cache off" in measured.page


@pytest.mark.parametrize(
    ("wrong", "differences"),
    [({}, (0, True)), ({"off": 0.25}, (0.25, True)), ({"name": "box"}, (0, False)), ({"spot": (7, 1)}, (1, None))],
)
def test_a_cache_that_changes_what_comes_out_is_told(tracker: Sam2Tracker, wrong: dict, differences: tuple) -> None:
    made = []

    def make(cache_mb: int) -> Recalled:
        made.append(Recalled(**wrong) if cache_mb else Recalled())
        return made[-1]

    rows = rows_in_turn(make, tracker, subject(1), repetitions=1)
    assert [row.map_difference for name, row in rows.items() if "cache off" in name] == [0, 0, 0, 0]
    map_difference, same_objects = differences
    assert rows["warm"].map_difference == rows["re-query"].map_difference == map_difference
    if same_objects is None:  # another spot gives other objects, or the same number of others
        assert not rows["cold"].same_objects or rows["cold"].pixel_difference > 0
    else:
        assert rows["warm"].same_objects == same_objects
    assert [each.prepared for each in made if each.prepared] == [[1]], "the window is read ahead, the frame after it is not"


def test_ratios_are_to_the_row_of_reference_and_medians_are_of_all_repetitions() -> None:
    def row(reference: str, *walls_ms: float) -> Row:
        return Row(reference, [query.Time(wall_ms, wall_ms / 2) for wall_ms in walls_ms])

    off = query.CACHE_OFF
    rows = {off: row(off, 100, 200, 900), "warm": row(off, 40, 50, 60), query.READ_AHEAD: row("", 7)}
    figures = report(Run(Setup(), 500_000, 1), rows).figures
    assert (figures["cold_cache_off.p50_ms"], figures["warm.ratio"], figures["warm.cpu_ratio"]) == (200, 0.25, 0.25)
    assert figures["warm.p95_ms"] == pytest.approx(59)
    assert "a_key_frame_read_ahead.ratio" not in figures


def test_masks_are_compared_by_the_share_of_pixels_that_differ() -> None:
    masks = np.zeros((2, 1, 10, 10), np.bool_)
    other = masks.copy()
    other[1, 0, 0, :3] = True  # 3 of the second object's 100 pixels
    row, maps, time = Row(""), torch.zeros(1), query.Time(1, 1)
    row.add(query.Answer(time, {}, maps, "mug", other), query.Answer(time, {}, maps, "mug", masks))
    assert (row.pixel_difference, row.same_objects) == (pytest.approx(0.03), True)
    row.add(query.Answer(time, {}, maps, "mug", masks[:1]), query.Answer(time, {}, maps, "mug", masks))
    assert not row.same_objects


def test_a_scene_gives_a_window_one_frame_more_and_enough_to_ask() -> None:
    found = query.subject_from(500_000)
    assert np.diff([frame.stamp_ns for frame in found.frames]).tolist() == [250_000_000] * 16
    assert len({text for text, _ in found.queries}) == len(found.queries) >= 4
