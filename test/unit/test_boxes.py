"""Boxes from answers: coordinates by hand, and what is no box is none."""

import pytest

from decaf_ros.models.boxes import BoxFormat, boxes_in

SIZE_HW = 60, 100
PIXELS = BoxFormat(cell_px=8).span_wh((6, 10))  # an image of 80 x 48 pixels for the model


def boxes(answer: str) -> list[tuple[float, float, float, float]]:
    return [box.xyxy_px for box in boxes_in(answer, PIXELS, SIZE_HW)]


def one(corners: str, label: str = "mug") -> str:
    return f'{{"bbox_2d": {corners}, "label": "{label}"}}'


def test_pixels_of_the_resized_image_and_thousandths_of_its_sides_become_pixels_of_the_camera():
    assert PIXELS == (80.0, 48.0)
    assert boxes_in(f"[{one('[8, 12, 40, 36]')}]", PIXELS, SIZE_HW) == [((10, 15, 50, 45), "mug")]
    thousandths = BoxFormat().span_wh((6, 10))
    assert boxes_in(f"[{one('[100, 250, 500, 750]')}]", thousandths, SIZE_HW) == [((10, 15, 50, 45), "mug")]


@pytest.mark.parametrize(
    "answer",
    [
        one("[8,12,40,36]"),
        f"[{one('[8,12,40,36]')}]",
        f"```json\n[\n\t{one('[8, 12, 40, 36]')}\n]\n```",
        f"```{one('[8, 12, 40, 36]')}```",
        one("[40, 36, 8, 12]"),  # corners the wrong way round
        one("[40.0, 12, 8, 36.0]"),
        f"[1, null, [], {one('[8, 12, 40]')}, {one('[8, 12, 40, 36]')}]",
        '{"bbox_2d": [8, 12, 40, 36]}',
        '{"label": {"a": []}, "bbox_2d": [8, 12, 40, 36]}',
    ],
)
def test_a_box_in_any_guise(answer):
    assert boxes(answer) == [(10, 15, 50, 45)]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "mug",
        "```",
        "```json",
        f"here it is: {one('[8, 12, 40, 36]')}",
        f"[{one('[8, 12, 40, 36]')}, {{",  # cut off
        "[8, 12, 40, 36]",
        "12",
        "null",
        '{"bbox": [8, 12, 40, 36]}',
        one("[8, 12, 40]"),
        one("[8, 12, 40, 36, 1]"),
        one('"8, 12, 40, 36"'),
        one('[8, 12, 40, "36"]'),
        one("[8, 12, 40, true]"),
        one("[8, 12, 40, null]"),
        one("[8, 12, 40, NaN]"),
        one("[8, 12, Infinity, 36]"),
        one("[8, 12, 1e999, 36]"),
        one("[8, 12, 1e300, 36]"),
        one(f"[8, 12, 1{'0' * 400}, 36]"),
        one(f"[8, 12, 1{'0' * 5000}, 36]"),
        one("[8, 12, 8, 36]"),  # no width
        one("[8, 12, 8.7, 36]"),  # less than a pixel of the camera
        one("[81, 12, 120, 36]"),  # outside
        one("[8, -30, 40, 0]"),
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"bbox_2d": [1, 1, 9, 9], "bbox_2d": [8, 12, 40, 36]}',
    ],
)
def test_what_is_no_box_is_none(answer):
    assert boxes(answer) == []


def test_what_reaches_beyond_the_image_is_cut_off():
    assert boxes(one("[-16, 12, 160, 60]")) == [(0, 15, 100, 60)]


def test_several_objects_come_in_their_order_and_of_a_thousand_some():
    assert boxes(f"[{one('[40, 0, 80, 48]')}, {one('[0, 0, 40, 24]')}]") == [(50, 0, 100, 60), (0, 0, 50, 30)]
    assert 1 < len(boxes(f"[{', '.join([one('[8, 12, 40, 36]')] * 1000)}]")) <= 20


@pytest.mark.parametrize(("label", "name"), [(" The Mug. ", "the mug"), ("m" * 100, ""), ("\\u0000", "")])
def test_a_label_that_can_be_a_name_is_one(label, name):
    assert [box.label for box in boxes_in(one("[8, 12, 40, 36]", label), PIXELS, SIZE_HW)] == [name]
