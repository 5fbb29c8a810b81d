"""Whatever a model says when it is asked for boxes, those that are found lie in the image, and it is never an error."""

from __future__ import annotations

import json

import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from test_dataset_files import json_values

from decaf_ros.models.boxes import boxes_in

SIZE_HW, SPAN_WH = (48, 64), (1000.0, 1000.0)

numbers = st.floats() | st.integers() | st.integers(-100, 1100) | st.floats(-100, 1100)
objects = st.fixed_dictionaries({"bbox_2d": st.lists(numbers, max_size=5) | json_values}, optional={"label": json_values})
said = st.lists(objects | json_values, max_size=30) | objects | json_values
fences = st.sampled_from(["{}", "```json\n{}\n```", "```{}", "{}```", " {} "])


@examples(300)
@given(fences, st.text() | said.map(json.dumps))
def test_boxes_lie_in_the_image_and_have_a_size(fence, text):
    for (x_min, y_min, x_max, y_max), label in boxes_in(fence.replace("{}", text), SPAN_WH, SIZE_HW):
        assert 0 <= x_min <= x_max - 1 <= 63
        assert 0 <= y_min <= y_max - 1 <= 47
        assert label.isprintable()


corner = st.floats(0, 1000).map(lambda value: round(value, 3))


@examples(100)
@given(corner, corner, corner, corner)
def test_a_box_that_is_said_is_found_where_it_is(left, top, right, bottom):
    found = boxes_in(json.dumps([{"bbox_2d": [left, top, right, bottom]}]), SPAN_WH, SIZE_HW)
    expected = [*sorted((left * 0.064, right * 0.064)), *sorted((top * 0.048, bottom * 0.048))]
    width, height = expected[1] - expected[0], expected[3] - expected[2]
    if min(width, height) > 1.001:
        [((x_min, y_min, x_max, y_max), _)] = found
        assert (x_min, x_max, y_min, y_max) == pytest.approx(expected)
    if min(width, height) < 0.999:
        assert found == []
