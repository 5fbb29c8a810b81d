"""Motion of a box, and the parts of a mask that do not belong to it."""

from __future__ import annotations

import numpy as np
import pytest

from decaf_ros.datatypes import BoolArray
from decaf_ros.evaluation.scripted import FIRST_DOUBLE_SEED, crossing, keeps_identity
from decaf_ros.models.sam2_motion import BoxMotion, motion_after, stray_parts
from decaf_ros.models.sam2_stream import Sam2Tracker


def drawn(*boxes_xywh: tuple[int, int, int, int]) -> BoolArray:
    mask = np.zeros((40, 60), dtype=np.bool_)
    for x, y, width, height in boxes_xywh:
        mask[y : y + height, x : x + width] = True
    return mask


def watched(frames: list[BoolArray]) -> BoxMotion | None:
    motion = None
    for mask in frames:
        motion = motion_after(motion, mask)
    return motion


STEADY = [drawn((5 + index, 10, 8, 6)) for index in range(20)]


@pytest.mark.parametrize(
    "meanwhile",
    [
        [drawn()] * 10,  # out of sight
        [drawn((24 - index, 10, 9 + 2 * index, 6)) for index in range(1, 11)],  # one mask with something that passes
        [drawn((45, 30, 8, 6))] * 10,  # on another thing
    ],
)
def test_an_object_is_expected_where_it_was_heading(meanwhile):
    motion = watched(STEADY + meanwhile)
    assert motion.expected_xyxy == pytest.approx([35, 10, 43, 16], abs=1.0)


def test_nothing_is_expected_at_first_and_after_a_long_absence_it_is_looked_at_afresh():
    assert watched(STEADY[:4]).expected_xyxy is None
    assert watched([*STEADY, *[drawn()] * 61]) is None
    begun = watched([*STEADY, *[drawn((45, 30, 8, 6))] * 61])
    assert (begun.seen, begun.centre_xy.tolist()) == (1, [49, 33])


@pytest.mark.parametrize(
    ("mask", "strays"),
    [
        (drawn((10, 10, 8, 6), (30, 10, 8, 6)), drawn((30, 10, 8, 6))),  # its double beside it
        (drawn((10, 10, 3, 6), (15, 10, 3, 6)), drawn()),  # a pole before it
        (drawn((28, 10, 8, 6), (40, 10, 8, 6)), drawn()),  # not where it was expected, who knows what is what
        (drawn((10, 10, 1, 1), (30, 10, 8, 6)), drawn()),  # a speck there is no object
        (drawn((30, 10, 8, 6)), drawn()),
        (drawn(), drawn()),
    ],
)
def test_what_lies_apart_is_stray_when_the_object_is_where_it_is_expected(mask, strays):
    np.testing.assert_array_equal(stray_parts(mask, np.array([10.0, 10.0, 18.0, 16.0])), strays)


@pytest.mark.parametrize("motion_gating", [False, True])
def test_an_object_that_its_double_passes_is_still_itself(motion_gating):
    tracker = Sam2Tracker.load("embedded", motion_gating=motion_gating)
    assert keeps_identity(crossing(FIRST_DOUBLE_SEED + 2), tracker, None) == motion_gating
