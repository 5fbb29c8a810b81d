"""COCO's run lengths, against masks encoded by hand and by COCO's own library."""

import numpy as np
import pytest

from decaf_ros.evaluation.rle import decode_rle, encode_rle


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        # By hand: down the columns 0 1 1 0 0 0 is the runs 1 2 3, each one character, code 48 + run.
        (["010", "100"], "123"),
        (["110"], "021"),  # begins with foreground: a background run of 0
        (["000", "000"], "6"),
        (["111", "111"], "06"),
        # Runs 0 1 1 1 1 1: from the fourth on the difference to the run before the last, 1 - 1 = 0.
        (["10101"], "011000"),
    ],
)
def test_small_masks_by_hand(rows, counts):
    mask = np.array([[pixel == "1" for pixel in row] for row in rows])
    assert encode_rle(mask) == {"size": list(mask.shape), "counts": counts}


@pytest.mark.parametrize(
    ("runs", "counts"),
    [  # compressed by pycocotools 2.0.11
        ([3, 4, 93], "34m2"),
        ([0, 100], "0T3"),
        ([40, 20, 1000, 5, 935], "X1d0Xo0AoM"),
        ([7, 1, 700, 30, 2, 60], "71le0m0VZOn0"),
    ],
)
def test_long_runs_and_negative_differences_are_those_of_coco(runs, counts):
    mask = decode_rle({"size": [10, sum(runs) // 10], "counts": runs})
    assert encode_rle(mask)["counts"] == counts


def test_every_mask_comes_back():
    rng = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.5, 0.99, 1.0):
        for _ in range(20):
            mask = rng.random(rng.integers(1, 60, 2)) < density
            assert np.array_equal(decode_rle(encode_rle(mask)), mask)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, 'needs "size"'),
        ([], 'needs "size"'),
        ({"counts": "6"}, 'needs "size"'),
        ({"size": 6, "counts": "6"}, 'needs "size"'),
        ({"size": [2, 3, 1], "counts": "6"}, 'needs "size"'),
        ({"size": [2.0, 3], "counts": "6"}, 'needs "size"'),
        ({"size": [True, 6], "counts": "6"}, 'needs "size"'),
        ({"size": [-2, -3], "counts": "6"}, 'needs "size"'),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "1000000 x 1000000 pixels is larger than any image"),
        ({"size": [10**5000 // 10**4900, 10], "counts": [1]}, "is larger than any image"),
        ({"size": [2, 3]}, '"counts" of a mask are whole numbers'),
        ({"size": [2, 3], "counts": [6.0]}, '"counts" of a mask are whole numbers'),
        ({"size": [2, 3], "counts": ["6"]}, '"counts" of a mask are whole numbers'),
        ({"size": [2, 3], "counts": [[6]]}, '"counts" of a mask are whole numbers'),
        ({"size": [2, 3], "counts": "6 "}, '"counts" of a mask are no run lengths'),
        ({"size": [2, 3], "counts": "\u4e2d"}, '"counts" of a mask are no run lengths'),
        ({"size": [2, 3], "counts": "P"}, '"counts" of a mask break off'),
        ({"size": [2, 3], "counts": "o" * 1_000_000}, '"counts" of a mask are no run lengths'),
        ({"size": [2, 3], "counts": [10**400]}, "do not add up to its size"),
    ],
)
def test_what_is_no_mask_is_refused_without_taking_memory_for_it(rle, message):
    with pytest.raises(ValueError, match=message):
        decode_rle(rle)


def test_a_mask_of_another_size_than_expected_is_refused():
    with pytest.raises(ValueError, match=r"it has size \[2, 3\], the image \[3, 2\] \(height, width\)"):
        decode_rle({"size": [2, 3], "counts": "6"}, (3, 2))
