"""Motion of a box, and the parts of a mask that do not belong to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.models.sam2_loading import load_sam2
from decaf_ros.models.sam2_motion import BoxMotion, motion_after, stray_parts
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker


def drawn(*boxes_xywh: tuple[int, int, int, int]) -> BoolArray:
    mask = np.zeros((40, 60), dtype=np.bool_)
    for x, y, width, height in boxes_xywh:
        mask[y : y + height, x : x + width] = True
    return mask


PERIOD_NS = 100_000_000


def watched(frames: list[BoolArray]) -> BoxMotion | None:
    """At 10 Hz from time 0 on."""
    motion = None
    for index, mask in enumerate(frames):
        motion = motion_after(motion, mask, index * PERIOD_NS)
    return motion


def expected(motion: BoxMotion, frame_index: int) -> list[float]:
    return motion.expected_xyxy(frame_index * PERIOD_NS)


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
    assert expected(watched(STEADY + meanwhile), 30) == pytest.approx([35, 10, 43, 16], abs=1.0)


def test_nothing_is_expected_at_first_and_after_a_long_absence_it_is_looked_at_afresh():
    assert expected(watched(STEADY[:4]), 4) is None
    assert watched([*STEADY, *[drawn()] * 20]) is not None
    assert watched([*STEADY, *[drawn()] * 21]) is None
    begun = watched([*STEADY, *[drawn((45, 30, 8, 6))] * 21])
    assert (begun.seen, begun.centres_nxy.tolist()) == (1, [[49, 33]])


def test_what_was_seen_at_one_rate_holds_at_another():
    """Key frames at 4 Hz, then a camera at 30 Hz: the box moves 20 pixels a second all the while."""
    stamps_s = [index / 4 for index in range(8)] + [1.75 + index / 30 for index in range(1, 16)]
    motion = None
    for stamp_s in stamps_s:
        here = 3 + 20 * stamp_s
        if motion is not None and motion.settled:
            left, top, right, bottom = motion.expected_xyxy(round(stamp_s * 1e9))
            assert (left, right) == pytest.approx((here, here + 8), abs=1.5), stamp_s
            assert (top, bottom) == pytest.approx((10, 16))
        motion = motion_after(motion, drawn((round(here), 10, 8, 6)), round(stamp_s * 1e9))
    assert motion.seen == len(stamps_s), "no frame surprised it"
    assert motion.expected_xyxy(0) is None, "time that went back"
    assert motion_after(motion, drawn((3, 10, 8, 6)), 0).seen == 1


def test_stamps_that_stand_close_together_do_not_lead_it_astray():
    """At 30 Hz and 20 pixels a second, with jitter of the stamps and some 0.2 ms apart, as of drivers that stamp on arrival."""
    rng, motion, last_ns = np.random.default_rng(0), None, -1
    for index in range(60):
        here = 3 + 20 * index / 30
        stamp_ns = max(round((index / 30 + rng.normal(0, 0.01)) * 1e9), last_ns + 200_000)
        if motion is not None and motion.settled:
            assert motion.expected_xyxy(stamp_ns)[0] == pytest.approx(here, abs=2.0), index
        motion, last_ns = motion_after(motion, drawn((round(here), 10, 8, 6)), stamp_ns), stamp_ns
    assert motion.seen == 60


def test_nobody_knows_where_it_is_after_the_camera_paused():
    motion = watched(STEADY)
    assert motion.expected_xyxy(19 * PERIOD_NS + 2_000_000_000) is not None
    assert motion.expected_xyxy(19 * PERIOD_NS + 2_000_000_001) is None


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
def test_a_tracker_gives_up_what_is_drawn_onto_a_double(motion_gating):
    """What SAM 2 draws is given: an object on its way, and after some frames its double, too."""
    model, frames = load_sam2("embedded"), 10
    tracker = Sam2Tracker(Sam2Network(model), motion_gating=motion_gating)
    own = [np.pad(drawn((4 + 2 * index, 10, 8, 6)), ((0, 24), (0, 4))) for index in range(frames)]  # as large as SAM 2's masks
    double = [np.pad(drawn((50 - index, 24, 8, 6)), ((0, 24), (0, 4))) for index in range(frames)]
    images = [Frame(index * PERIOD_NS, "camera", np.zeros((64, 64, 3), np.uint8)) for index in range(frames)]
    track = tracker.start_track(tracker.encode(images[0]), own[0])
    for index in range(1, frames):
        both = own[index] | double[index] if index > 6 else own[index]

        def draw(module, given, found, both=both):
            masks, *others, presence = found
            return (torch.from_numpy(both).float().expand_as(masks) * 20 - 10, *others, torch.full_like(presence, 10.0))

        hook = model.sam_mask_decoder.register_forward_hook(draw)
        [output] = tracker.step([track], tracker.encode(images[index]))
        hook.remove()
        np.testing.assert_array_equal(output.mask_hw, own[index] if motion_gating else both)
