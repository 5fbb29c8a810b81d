"""J and F by hand, on masks small enough to count."""

import numpy as np
import pytest

from decaf_ros.evaluation.metrics import boundary_accuracy, boundary_pixels, region_similarity, robustness, score_clip


def box(top: int, left: int, bottom: int, right: int, size_hw: tuple[int, int] = (100, 100)) -> np.ndarray:
    mask = np.zeros(size_hw, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


EMPTY = box(0, 0, 0, 0)
SQUARE = box(20, 30, 40, 50)


@pytest.mark.parametrize(
    ("mask", "truth", "expected"),
    [
        (EMPTY, EMPTY, 1.0),
        (SQUARE, EMPTY, 0.0),
        (EMPTY, SQUARE, 0.0),
        (SQUARE, SQUARE, 1.0),
        (box(0, 0, 1, 2), box(0, 1, 1, 3), 1 / 3),
        (box(20, 40, 40, 60), SQUARE, 200 / 600),
    ],
)
def test_region_similarity(mask, truth, expected):
    assert region_similarity(mask, truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("mask", "truth", "foreground", "expected"),
    [
        (EMPTY, EMPTY, 1000, 1.0),
        (SQUARE, EMPTY, 1000, 0.6),  # 400 pixels too many
        (box(20, 40, 40, 60), SQUARE, 1000, 0.8),  # 200 of them
        (EMPTY, SQUARE, 1000, 1.0),  # nothing is claimed wrongly
        (SQUARE, EMPTY, 100, 0.0),
        (SQUARE, EMPTY, 0, 0.0),
        (EMPTY, EMPTY, 0, 1.0),
    ],
)
def test_robustness(mask, truth, foreground, expected):
    assert robustness(mask, truth, foreground) == pytest.approx(expected)


def test_boundary_of_one_pixel_is_the_corner_between_it_and_its_upper_left_neighbours():
    expected = box(4, 6, 6, 8, (10, 10))  # rows 4..5, columns 6..7: a pixel is the lower right one of its boundary
    assert np.array_equal(boundary_pixels(box(5, 7, 6, 8, (10, 10))), expected)


def test_the_image_border_is_no_boundary():
    assert not boundary_pixels(np.ones((10, 10), dtype=bool)).any()
    half = boundary_pixels(box(0, 0, 10, 5, (10, 10)))
    assert np.array_equal(half, box(0, 4, 10, 5, (10, 10)))


@pytest.mark.parametrize(
    ("mask", "truth", "expected"),
    [(EMPTY, EMPTY, 1.0), (SQUARE, EMPTY, 0.0), (EMPTY, SQUARE, 0.0), (SQUARE, SQUARE, 1.0)],
)
def test_boundary_accuracy_of_empty_and_equal_masks(mask, truth, expected):
    assert boundary_accuracy(mask, truth) == expected


def test_a_boundary_shifted_within_the_tolerance_is_right_and_beyond_it_wrong():
    # 0.008 of the diagonal of 100 x 100 pixels is 1.13, so 2 pixels are allowed.
    left_half = box(0, 0, 100, 50)
    assert boundary_accuracy(box(0, 0, 100, 52), left_half) == 1.0
    assert boundary_accuracy(box(0, 0, 100, 53), left_half) == 0.0


def test_precision_and_recall_are_joined_harmonically():
    # The truth has two straight edges, of which the mask finds one: precision 1, recall 1/2.
    assert boundary_accuracy(box(0, 20, 100, 100), box(0, 20, 100, 70)) == pytest.approx(2 / 3)


def test_tolerance_is_measured_along_a_disc_not_a_square():
    # A tolerance of 2 pixels reaches (2, 0) but not (2, 2); the boundary of a pixel covers 2 x 2 pixels.
    pixel, below, diagonal = box(50, 50, 51, 51), box(53, 50, 54, 51), box(53, 53, 54, 54)
    assert boundary_accuracy(pixel, below) == pytest.approx(1 / 2)
    assert boundary_accuracy(pixel, diagonal) == 0.0


def test_clip_scores_are_means_over_frames():
    scores = score_clip(np.stack([SQUARE, EMPTY, SQUARE]), np.stack([SQUARE, EMPTY, EMPTY]))
    assert (scores.j, scores.f, scores.j_and_f) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_clips_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 100, 100\).*\(1, 100, 100\)"):
        score_clip(np.stack([SQUARE, SQUARE]), SQUARE[None])
