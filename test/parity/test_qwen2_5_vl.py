"""The Qwen2.5-VL adapter against transformers alone: same logits, same answers, and the rollout of the whole matrices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from family_checks import (
    BACKGROUND,
    OBJECT,
    check_answers,
    check_logits,
    check_rivals,
    check_rollout,
    check_say,
    check_text_alone,
    check_work,
    check_yes,
    eager_twin,
    read,
)

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window, tiny_model, tiny_processor, whole_prompt
from decaf_ros.models.attention_tap import recording
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.errors import PromptError
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.qwen2_5_vl import Qwen25Vl, fit_grid

SIZE_HW = 60, 100  # not square: 64 tokens of 8 x 8 pixels give 6 x 10 of them


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def adapter(processor):
    return Qwen25Vl(tiny_model(processor), processor)


@pytest.fixture(scope="module")
def eager(processor):
    return eager_twin(tiny_model(processor))


@pytest.fixture(scope="module")
def whole(processor):
    return partial(whole_prompt, processor)


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("medium", ["video", "image"])
def test_rollout_equals_whole_matrices(processor, eager, whole, medium, count):
    grid_thw = (-(-count // 2), 3, 5) if medium == "video" else (count, 6, 10)
    # Batches of two frames, so that the last one of an odd count is smaller.
    options = {"video_tokens": 16, "frame_tokens": 64, "batch_tokens": 130}
    check_rollout(
        lambda options: Qwen25Vl(tiny_model(processor), processor, options),
        eager,
        whole,
        medium,
        random_window(count, SIZE_HW),
        grid_thw,
        **options,
    )


@pytest.mark.parametrize("medium", ["video", "image"])
def test_logits_are_those_of_the_untouched_model(processor, whole, medium):
    untouched, tapped = tiny_model(processor), tiny_model(processor)
    adapter = Qwen25Vl(tapped, processor)
    window = random_window(3 if medium == "video" else 1, SIZE_HW)
    check_work(adapter, tapped, medium, window)
    check_logits(untouched, tapped, whole(medium, window, (4, 6), OBJECT))


@pytest.mark.parametrize("medium", ["video", "image"])
def test_answers_are_those_of_generate_and_asking_leaves_no_trace(adapter, eager, processor, whole, medium):
    # So slow a rate that the last frames' positions in time lie beyond the whole text.
    check_answers(adapter, eager, processor, whole, medium, random_window(5, SIZE_HW, seconds=20.0))
    check_yes(adapter, eager, processor, whole, medium, random_window(5, SIZE_HW, seconds=20.0))
    check_rivals(
        lambda options: Qwen25Vl(tiny_model(processor), processor, options),
        eager,
        processor,
        whole,
        medium,
        random_window(5, SIZE_HW, seconds=20.0),
    )


@pytest.mark.parametrize("batch_tokens", [8192, 130], ids=["read together", "read in twos"])
def test_some_conversations_can_be_asked_alone_and_at_length(processor, eager, whole, batch_tokens):
    options = MllmOptions(video_tokens=16, frame_tokens=64, batch_tokens=batch_tokens)
    check_say(Qwen25Vl(tiny_model(processor), processor, options), eager, processor, whole, random_window(3, SIZE_HW))


def test_boxes_count_pixels_of_the_image_as_the_model_gets_it(processor):
    adapter = Qwen25Vl(tiny_model(processor), processor, MllmOptions(video_tokens=16, frame_tokens=64))
    grid_hw = adapter.read_frames(random_window(1, SIZE_HW)).grid_thw[1:]
    assert adapter.box_format().span_wh(grid_hw) == (80, 48)  # 6 x 10 tokens of 8 x 8 pixels


def test_answers_follow_the_generation_config(processor, whole):
    """The published models discourage words that were said before, the prompt's among them."""
    window = random_window(3, SIZE_HW)
    tapped, eager = tiny_model(processor), eager_twin(tiny_model(processor))
    plain = Qwen25Vl(tapped, processor).read_video(window).ask(OBJECT).answers
    for model in (tapped, eager):
        model.generation_config.repetition_penalty = 3.0
    adapter = Qwen25Vl(tapped, processor)
    check_answers(adapter, eager, processor, whole, "video", window)
    assert adapter.read_video(window).ask(OBJECT).answers != plain


@torch.inference_mode()
@pytest.mark.parametrize("medium", ["video", "image"])
def test_half_precision_looks_where_full_precision_does(processor, medium):
    """bfloat16 is the default on a GPU."""
    window, maps = random_window(3, SIZE_HW), {}
    for dtype in (torch.float32, torch.bfloat16):
        prefix = read(Qwen25Vl(tiny_model(processor).to(dtype), processor), medium, window)
        maps[dtype] = prefix.rollout([prefix.ask(OBJECT), prefix.ask(BACKGROUND, answer=False)])
    assert (maps[torch.bfloat16] - maps[torch.float32]).norm() <= 0.05 * maps[torch.float32].norm()


def test_a_step_of_a_video_covers_two_frames(adapter):
    window = random_window(3, SIZE_HW)
    assert (adapter.read_video(window).temporal_stride, adapter.read_frames(window).temporal_stride) == (2, 1)


def test_prefix_and_tail_give_the_logits_of_the_single_pass(processor, whole):
    tapped = tiny_model(processor)
    adapter = Qwen25Vl(tapped, processor, MllmOptions(max_new_tokens=1))
    seen = []
    tapped.register_forward_hook(lambda module, arguments, output: seen.append(output.logits[:, -1]))
    window = random_window(6, SIZE_HW)
    prefix = adapter.read_video(window)
    prefix.ask(OBJECT)
    with torch.inference_mode():
        single = tiny_model(processor)(**whole("video", window, prefix.grid_thw[1:], OBJECT).inputs)
    torch.testing.assert_close(seen[-1], single.logits[:, -1], rtol=1e-5, atol=1e-5)


def test_text_alone_is_answered_as_by_generate_also_after_images(adapter, eager, processor):
    adapter.read_video(random_window(2, SIZE_HW)).ask(BACKGROUND)
    check_text_alone(adapter, eager, processor)


def test_the_tap_records_its_own_thread_only(processor):
    tapped = tiny_model(processor)
    Qwen25Vl(tapped, processor)
    ids = processor.tokenizer([OBJECT], return_tensors="pt")["input_ids"]
    with recording(first_layer=1) as record, ThreadPoolExecutor(1) as pool:
        pool.submit(tapped, input_ids=ids).result()
        assert record.layers == []
        tapped(input_ids=ids)
        assert [layer.queries_bhqd.shape[2] for layer in record.layers] == [ids.shape[1]] * 3


def test_a_reply_of_another_prefix_and_control_tokens_are_refused(adapter):
    window = random_window(1, SIZE_HW)
    prefix, other = adapter.read_video(window), adapter.read_video(window)
    with pytest.raises(ValueError, match="this prefix gave"):
        prefix.rollout([other.ask(OBJECT)])
    with pytest.raises(PromptError, match="control token"):
        prefix.ask("find the cup <|im_end|> a")


@pytest.mark.parametrize(
    ("size_hw", "tokens", "grid_hw"),
    [
        ((480, 640), 400, (17, 23)),
        ((480, 854), 400, (15, 26)),
        ((720, 1280), 400, (15, 26)),
        ((1280, 720), 400, (26, 15)),
        ((128, 128), 64, (8, 8)),
        ((20, 4000), 50, (1, 50)),
        ((5, 5), 1, (1, 1)),
    ],
)
def test_grid_keeps_the_aspect_ratio_within_the_budget(size_hw, tokens, grid_hw):
    assert fit_grid(size_hw, tokens) == grid_hw


def test_frame_grid_doubles_the_video_grid_within_the_limits(processor):
    window = random_window(1, (64, 64))
    model = tiny_model(processor)
    for options, rows in (
        (MllmOptions(video_tokens=16), 8),
        (MllmOptions(video_tokens=16, multi_scale=False), 4),
        (MllmOptions(video_tokens=16, frame_tokens=30), 5),
        (MllmOptions(video_tokens=64), 8),  # the processor's own limit of 64 tokens
    ):
        assert Qwen25Vl(model, processor, options).read_frames(window).grid_thw == (1, rows, rows)


def test_a_saved_model_is_loaded_and_answers_the_same(processor, adapter, tmp_path):
    tiny_model(processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    window = random_window(3, SIZE_HW)
    prefixes = adapter.read_video(window), load_mllm(str(tmp_path)).read_video(window)
    torch.testing.assert_close(*(prefix.rollout([prefix.ask(OBJECT)]) for prefix in prefixes), rtol=1e-5, atol=1e-8)
