"""The Qwen2-VL adapter against transformers alone."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from family_checks import (
    OBJECT,
    check_answers,
    check_logits,
    check_rivals,
    check_rollout,
    check_text_alone,
    check_work,
    check_yes,
    eager_twin,
)
from tiny_qwen2_vl import tiny_qwen2, tiny_qwen2_processor

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window, whole_prompt
from decaf_ros.models.errors import NoBoxesError
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.qwen2_vl import Qwen2Vl

SIZE_HW = 60, 100


@pytest.fixture(scope="module")
def processor():
    return tiny_qwen2_processor()


@pytest.fixture(scope="module")
def eager(processor):
    return eager_twin(tiny_qwen2(processor))


@pytest.fixture(scope="module")
def whole(processor):
    return partial(whole_prompt, processor)


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("medium", ["video", "image"])
def test_rollout_equals_whole_matrices(processor, eager, whole, medium, count):
    grid_thw = (-(-count // 2), 3, 5) if medium == "video" else (count, 6, 10)
    check_rollout(
        lambda options: Qwen2Vl(tiny_qwen2(processor), processor, options),
        eager,
        whole,
        medium,
        random_window(count, SIZE_HW),
        grid_thw,
        video_tokens=16,
        frame_tokens=64,
        batch_tokens=130,
    )


@pytest.mark.parametrize("medium", ["video", "image"])
def test_logits_and_answers_are_those_of_the_untouched_model(processor, eager, whole, medium):
    tapped = tiny_qwen2(processor)
    adapter = Qwen2Vl(tapped, processor)
    check_logits(tiny_qwen2(processor), tapped, whole(medium, random_window(1, SIZE_HW), (4, 6), OBJECT))
    check_answers(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_yes(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_rivals(
        lambda options: Qwen2Vl(tiny_qwen2(processor), processor, options),
        eager,
        processor,
        whole,
        medium,
        random_window(3, SIZE_HW),
    )
    check_text_alone(adapter, eager, processor)
    check_work(adapter, tapped, medium, random_window(1, SIZE_HW))


def test_the_rate_of_the_frames_makes_no_difference(processor):
    adapter = Qwen2Vl(tiny_qwen2(processor), processor)
    slow, fast = (adapter.read_video(random_window(4, SIZE_HW, seconds)) for seconds in (0.1, 20.0))
    assert torch.equal(slow.rollout([slow.ask(OBJECT)]), fast.rollout([fast.ask(OBJECT)]))


def test_it_is_recognised_from_its_configuration(processor, tmp_path):
    tiny_qwen2(processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(load_mllm(str(tmp_path))) is Qwen2Vl


def test_it_was_not_taught_to_answer_with_boxes_as_json(processor):
    with pytest.raises(NoBoxesError, match=r"family qwen2_vl were not taught.*grounder decaf"):
        Qwen2Vl(tiny_qwen2(processor), processor).box_format()
