"""The LLaVA-OneVision adapter against transformers alone, and the cells of its visual grid by hand."""

from __future__ import annotations

from functools import partial

import pytest
from family_checks import (
    OBJECT,
    changed_cells,
    check_answers,
    check_logits,
    check_rivals,
    check_rollout,
    check_text_alone,
    check_work,
    check_yes,
    eager_twin,
    painted,
)
from tiny_llava_onevision import tiny_model, tiny_processor, whole_prompt

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.errors import NoBoxesError
from decaf_ros.models.llava_onevision import LlavaOnevision
from decaf_ros.models.mllm import load_mllm

# Fits into 2 x 3 crops of 24 pixels as 43 x 72 pixels: 10.8 of 12 rows of features, of which one is cut off on each side.
SIZE_HW = 60, 100


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def eager(processor):
    return eager_twin(tiny_model(processor))


@pytest.fixture(scope="module")
def whole(processor):
    return partial(whole_prompt, processor)


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("medium", ["video", "image"])
def test_rollout_equals_whole_matrices(processor, eager, whole, medium, count):
    check_rollout(
        lambda options: LlavaOnevision(tiny_model(processor), processor, options),
        eager,
        whole,
        medium,
        random_window(count, SIZE_HW),
        grid_thw=(count, 3, 3) if medium == "video" else (count, 10, 18),
        batch_tokens=460,  # two frames
    )


@pytest.mark.parametrize("medium", ["video", "image"])
def test_logits_and_answers_are_those_of_the_untouched_model(processor, eager, whole, medium):
    tapped = tiny_model(processor)
    adapter = LlavaOnevision(tapped, processor)
    grid_hw = (3, 3) if medium == "video" else (10, 18)
    check_logits(tiny_model(processor), tapped, whole(medium, random_window(1, SIZE_HW), grid_hw, OBJECT))
    check_answers(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_yes(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_rivals(
        lambda options: LlavaOnevision(tiny_model(processor), processor, options),
        eager,
        processor,
        whole,
        medium,
        random_window(3, SIZE_HW),
    )
    check_text_alone(adapter, eager, processor)
    check_work(adapter, tapped, medium, random_window(1, SIZE_HW))


def test_tokens_show_the_pixels_of_their_cells(processor, monkeypatch):
    """Features of 4 pixels, in images that are not resized."""
    model = tiny_model(processor)
    adapter = LlavaOnevision(model, processor)
    # 2 x 3 crops: pixels (20..27, 40..43) lie in both rows of crops.
    window = random_window(2, (48, 72))
    after = painted(window, 1, slice(20, 28), slice(40, 44))
    assert changed_cells(monkeypatch, adapter, model, "image", window, after) == [[1, 5, 10], [1, 6, 10]]
    # The same crops hold 6 pixels of nothing on the left. One column of features is cut off there: column 0 begins at pixel -2.
    window = random_window(1, (48, 60))
    after = painted(window, 0, slice(0, 4), slice(14, 18))
    assert changed_cells(monkeypatch, adapter, model, "image", window, after) == [[0, 0, 4]]
    # 6 x 6 features of a video are pooled to 3 x 3.
    window = random_window(3, (24, 24))
    after = painted(window, 1, slice(16, 24), slice(8, 16))
    assert changed_cells(monkeypatch, adapter, model, "video", window, after) == [[1, 2, 1]]


@pytest.mark.parametrize(
    ("options", "grid_hw"),
    [
        (MllmOptions(), (10, 18)),
        (MllmOptions(frame_tokens=100), (8, 12)),  # 29 x 48 pixels
        (MllmOptions(multi_scale=False), (4, 6)),  # 14 x 24 pixels, one crop
    ],
)
def test_images_are_reduced_to_the_budget(processor, options, grid_hw):
    adapter = LlavaOnevision(tiny_model(processor), processor, options)
    assert adapter.read_frames(random_window(1, SIZE_HW)).grid_thw == (1, *grid_hw)


@pytest.mark.parametrize(("size_hw", "grid_hw"), [((60, 100), (8, 16)), ((72, 72), (12, 12)), ((16, 200), (2, 18))])
def test_very_many_features_are_interpolated(size_hw, grid_hw):
    """Down to 4 crops or 144 features, where there are more than 1.1 squared times as many: of 10 x 18, 18 x 18, not 2 x 18."""
    processor = tiny_processor("anyres_max_4")
    adapter = LlavaOnevision(tiny_model(processor), processor)
    assert adapter.read_frames(random_window(1, size_hw)).grid_thw == (1, *grid_hw)


@pytest.mark.parametrize(("budget", "least"), [("video_tokens", 9), ("frame_tokens", 36)])
def test_a_budget_below_one_crop_is_refused(processor, budget, least):
    with pytest.raises(ValueError, match=f"{budget} must be at least {least}"):
        LlavaOnevision(tiny_model(processor), processor, MllmOptions(**{budget: least - 1}))


def test_it_is_recognised_from_its_configuration(processor, tmp_path):
    tiny_model(processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(load_mllm(str(tmp_path))) is LlavaOnevision


def test_it_was_not_taught_to_answer_with_boxes_as_json(processor):
    with pytest.raises(NoBoxesError, match=r"family llava_onevision were not taught.*grounder decaf"):
        LlavaOnevision(tiny_model(processor), processor).box_format()
