"""The Qwen3-VL adapter against transformers alone."""

from __future__ import annotations

from functools import partial

import pytest
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
from tiny_qwen3_vl import tiny_qwen3, tiny_qwen3_processor

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window, whole_prompt
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.qwen3_vl import Qwen3Vl

SIZE_HW = 60, 100


@pytest.fixture(scope="module")
def processor():
    return tiny_qwen3_processor()


@pytest.fixture(scope="module")
def eager(processor):
    return eager_twin(tiny_qwen3(processor))


@pytest.fixture(scope="module")
def whole(processor):
    return partial(whole_prompt, processor)


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("medium", ["video", "image"])
def test_rollout_equals_whole_matrices(processor, eager, whole, medium, count):
    grid_thw = (-(-count // 2), 3, 5) if medium == "video" else (count, 6, 10)
    check_rollout(
        lambda options: Qwen3Vl(tiny_qwen3(processor), processor, options),
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
    tapped = tiny_qwen3(processor)
    adapter = Qwen3Vl(tapped, processor)
    check_logits(tiny_qwen3(processor), tapped, whole(medium, random_window(1, SIZE_HW), (4, 6), OBJECT))
    check_answers(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_yes(adapter, eager, processor, whole, medium, random_window(3, SIZE_HW))
    check_rivals(
        lambda options: Qwen3Vl(tiny_qwen3(processor), processor, options),
        eager,
        processor,
        whole,
        medium,
        random_window(3, SIZE_HW),
    )
    check_text_alone(adapter, eager, processor)
    check_work(adapter, tapped, medium, random_window(1, SIZE_HW))


def test_boxes_count_thousandths_whatever_the_image(processor):
    assert Qwen3Vl(tiny_qwen3(processor), processor).box_format().span_wh((6, 10)) == (1000, 1000)


def test_the_visual_tokens_of_a_video_are_apart(processor, whole):
    """The premise of the other tests: between the steps stands their time."""
    tokens = whole("video", random_window(4, SIZE_HW), (2, 3), OBJECT).grid_tokens
    assert len(tokens) == 2 * 6
    assert (tokens.diff() > 1).nonzero().flatten().tolist() == [5]


def test_the_limit_of_a_video_is_shared_by_its_frames():
    processor = tiny_qwen3_processor(video_tokens=96)
    adapter = Qwen3Vl(tiny_qwen3(processor), processor, MllmOptions(video_tokens=64))
    # Six frames, the repeated last one included, have 96 / 6 = 16 tokens each.
    assert adapter.read_video(random_window(5, (64, 64))).grid_thw == (3, 4, 4)


def test_it_is_recognised_from_its_configuration(processor, tmp_path):
    tiny_qwen3(processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(load_mllm(str(tmp_path))) is Qwen3Vl
