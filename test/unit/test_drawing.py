"""Pictures: what must be seen on them, at any size and with any text."""

import colorsys
import itertools

import cv2
import numpy as np
import pytest

from decaf_ros.datatypes import Frame, HeatMap, ObjectMask, PointPrompt, Segmentation, Visibility
from decaf_ros.drawing import colour_heat, draw_overlay, draw_points, object_colour, query_colour

SIZES_HW = [(8, 8), (192, 256), (720, 1280)]


def grey_frame(size_hw: tuple[int, int]) -> Frame:
    return Frame(0, "camera", np.full((*size_hw, 3), 90, dtype=np.uint8))


def tracked(mask: np.ndarray, object_id: int = 1, label: str = "mug", query_id: int = 1) -> ObjectMask:
    visibility = Visibility.VISIBLE if mask.any() else Visibility.LOST
    return ObjectMask(object_id, query_id, label, mask, score=0.9, presence=1.0, visibility=visibility)


def lower_right(size_hw: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size_hw, dtype=np.bool_)
    mask[size_hw[0] // 2 :, size_hw[1] // 2 :] = True
    return mask


@pytest.mark.parametrize("size_hw", SIZES_HW[1:])
def test_a_mask_takes_its_objects_colour_and_the_frame_stays_as_it_was(size_hw):
    frame = grey_frame(size_hw)
    mask = lower_right(size_hw)
    image = draw_overlay(Segmentation(frame, (tracked(mask, object_id=3, query_id=2),)))
    assert (frame.image_rgb == 90).all()
    tint = image[-1, -1].astype(float) - 90
    assert np.dot(tint, np.array(object_colour(3, 2)) - 90.0) > 0
    assert (image[-1, 0] == 90).all()


@pytest.mark.parametrize("size_hw", SIZES_HW)
@pytest.mark.parametrize("text", ["the red mug", "", "die große Tasse 茶杯 \n\t", "a" * 500])
def test_any_text_fits_on_any_image(size_hw, text):
    segmentation = Segmentation(grey_frame(size_hw), (tracked(lower_right(size_hw), label=text),))
    image = draw_overlay(segmentation, {1: text, 2: text})
    assert (image.shape, image.dtype) == ((*size_hw, 3), np.uint8)


def test_captions_are_written_at_the_bottom():
    segmentation = Segmentation(grey_frame((192, 256)), ())
    changed = (draw_overlay(segmentation, {1: "the red mug"}) != 90).any(axis=(1, 2))
    assert not changed[:160].any()
    assert changed[180:].any()


def test_a_lost_object_has_no_label_but_its_sentence_says_so():
    lost = Segmentation(grey_frame((192, 256)), (tracked(np.zeros((192, 256), dtype=np.bool_)),))
    nobody = Segmentation(grey_frame((192, 256)), ())
    assert (draw_overlay(lost) == 90).all()
    assert not np.array_equal(draw_overlay(lost, {1: "mug"}), draw_overlay(nobody, {1: "mug"}))


def test_the_mask_is_blended_and_nothing_beyond_it_changes_but_for_its_outline():
    mask = np.zeros((720, 1280), dtype=np.bool_)
    mask[200:400, 300:500] = True
    image = draw_overlay(Segmentation(grey_frame((720, 1280)), (tracked(mask),)))
    # 55 % of the grey and 45 % of the colour, away from outline and label.
    assert np.abs(image[300, 400] - (0.55 * 90 + 0.45 * np.array(object_colour(1, 1)))).max() <= 1
    outline = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(np.bool_)
    outline[:200] = True  # the label
    assert (image[~outline] == 90).all()
    assert np.abs(image[395:405, 400].astype(int) - object_colour(1, 1)).sum(axis=1).min() <= 3


def test_neighbouring_ids_of_one_query_and_neighbouring_queries_have_colours_that_differ():
    for colours in (
        [object_colour(object_id, 1) for object_id in (4, 5, 6)],
        [query_colour(query_id) for query_id in range(1, 7)],
    ):
        distances = [np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(colours, 2)]
        assert min(distances) > 75


def test_objects_have_the_hue_of_their_query():
    def hue(colour):
        return colorsys.rgb_to_hsv(*(value / 255 for value in colour))[0]

    hues = [hue(object_colour(object_id, 5)) for object_id in range(1, 20)]
    assert np.ptp([*hues, hue(query_colour(5))]) < 0.01


def test_a_heat_map_is_blended_by_its_heat():
    values = np.array([[0.0, 1.0]], dtype=np.float32)
    image = colour_heat(HeatMap(grey_frame((10, 40)), 1, values)).astype(float)
    turbo = cv2.applyColorMap(np.array([0, 255], np.uint8), cv2.COLORMAP_TURBO)[:, 0, ::-1]
    for column, colour, opacity in ((0, turbo[0], 0.35), (39, turbo[1], 0.75)):
        assert np.abs(image[5, column] - (90 * (1 - opacity) + colour * opacity)).max() <= 2


def test_hot_is_red_and_cold_is_blue_at_the_place_of_the_cell():
    values = np.zeros((2, 4), dtype=np.float32)
    values[0, 3] = 0.9
    red, _, blue = np.moveaxis(colour_heat(HeatMap(grey_frame((100, 200)), 1, values)).astype(int), 2, 0)
    assert red[25, 175] > blue[25, 175]
    assert blue[75, 25] > red[75, 25]


def test_the_hottest_point_is_drawn_last_and_reddest():
    points = [PointPrompt(0, (50.0, 50.0), 1.0), PointPrompt(0, (50.0, 50.0), 0.6), PointPrompt(0, (20.0, 20.0), 0.6)]
    image = draw_points(grey_frame((100, 100)).image_rgb, points).astype(int)
    assert image[50, 50, 1] < image[20, 20, 1]
    assert (image[80, 80] == 90).all()
