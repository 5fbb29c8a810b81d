"""The InternVL3 adapter against transformers alone, and the tiles of its visual grid by hand."""

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
from tiny_internvl3 import tiny_model, tiny_processor, whole_prompt

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.errors import NoBoxesError
from decaf_ros.models.internvl3 import InternVl3
from decaf_ros.models.mllm import load_mllm

SIZE_HW = 60, 100  # of up to 12 tiles, 2 rows of 3 come closest to its shape: 8 x 12 tokens


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
        lambda options: InternVl3(tiny_model(processor), processor, options),
        eager,
        whole,
        medium,
        random_window(count, SIZE_HW),
        grid_thw=(count, 4, 4) if medium == "video" else (count, 8, 12),
        batch_tokens=230,  # two frames of 7 tiles
    )


@pytest.mark.parametrize("medium", ["video", "image"])
def test_logits_and_answers_are_those_of_the_untouched_model(processor, eager, whole, medium):
    tapped = tiny_model(processor)
    adapter = InternVl3(tapped, processor)
    grid_hw = (4, 4) if medium == "video" else (8, 12)
    check_logits(tiny_model(processor), tapped, whole(medium, random_window(1, SIZE_HW), grid_hw, OBJECT))
    check_answers(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_yes(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_rivals(
        lambda options: InternVl3(tiny_model(processor), processor, options),
        eager,
        processor,
        whole,
        medium,
        random_window(3, SIZE_HW),
    )
    check_text_alone(adapter, eager, processor)
    check_work(adapter, tapped, medium, random_window(1, SIZE_HW))


def test_tokens_show_the_pixels_of_their_cells(processor, monkeypatch):
    """Tiles of 32 pixels, tokens of 8: in 64 x 96 pixels, no image is resized."""
    model = tiny_model(processor)
    adapter = InternVl3(model, processor)
    window = random_window(2, (64, 96))
    # Pixels (40..47, 56..71) of the second frame lie in the second row of tiles, across its second and third tile.
    after = painted(window, 1, slice(40, 48), slice(56, 72))
    assert changed_cells(monkeypatch, adapter, model, "image", window, after) == [[1, 5, 7], [1, 5, 8]]
    window = random_window(3, (32, 32))
    after = painted(window, 1, slice(16, 24), slice(0, 8))
    assert changed_cells(monkeypatch, adapter, model, "video", window, after) == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("options", "grid_hw"),
    [
        (MllmOptions(), (8, 12)),
        (MllmOptions(frame_tokens=40), (4, 8)),  # two tiles
        (MllmOptions(multi_scale=False), (4, 4)),
    ],
)
def test_tiles_keep_to_the_budget(processor, options, grid_hw):
    adapter = InternVl3(tiny_model(processor), processor, options)
    assert adapter.read_frames(random_window(1, SIZE_HW)).grid_thw == (1, *grid_hw)


@pytest.mark.parametrize("budget", ["video_tokens", "frame_tokens"])
def test_a_budget_below_one_tile_is_refused(processor, budget):
    with pytest.raises(ValueError, match=f"{budget} must be at least 16"):
        InternVl3(tiny_model(processor), processor, MllmOptions(**{budget: 15}))


def test_it_is_recognised_from_its_configuration(processor, tmp_path):
    tiny_model(processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(load_mllm(str(tmp_path))) is InternVl3


def test_it_was_not_taught_to_answer_with_boxes_as_json(processor):
    with pytest.raises(NoBoxesError, match=r"family internvl were not taught.*grounder decaf"):
        InternVl3(tiny_model(processor), processor).box_format()
