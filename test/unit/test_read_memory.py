"""What is remembered of frames: theirs alone, never more than the budget, and no longer than they live."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from decaf_ros.bench.reference.tiny_qwen2_5_vl import random_window
from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.read_memory import ReadMemory


def frames(*stamps: int) -> tuple[Frame, ...]:
    return tuple(Frame(stamp_ns, "camera", np.zeros((1, 1, 3), np.uint8)) for stamp_ns in stamps)


def test_it_is_found_by_frame_and_way_of_reading() -> None:
    memory, (first, second) = ReadMemory(100), frames(1, 2)
    memory.put("alone", (first,), "a", 10)
    memory.put("pair", (first, second), "b", 10)
    assert memory.get("alone", (first,)) == "a"
    assert memory.get("pair", (first, second)) == "b"
    assert memory.get("alone", (second,)) is memory.get("pair", (first,)) is memory.get("pair", (second, first)) is None
    assert memory.get("alone", frames(1)) is None, "another frame, though it has the same stamp"


def test_it_goes_with_any_of_its_frames() -> None:
    memory = ReadMemory(100)
    first, second = frames(1, 2)
    memory.put("pair", (first, second), "a", 10)
    memory.put("alone", (first,), "b", 10)
    del second
    gc.collect()
    assert (memory.nbytes, memory.get("alone", (first,))) == (10, "b")


def test_the_oldest_frames_go_first_whatever_the_order_in_which_they_came() -> None:
    memory, kept = ReadMemory(30), frames(1, 2, 3, 4)
    for index in (3, 0, 2, 1):
        memory.put("alone", (kept[index],), index, 10)
        assert memory.nbytes <= 30
    assert [memory.get("alone", (frame,)) for frame in kept] == [None, 1, 2, 3]
    memory.put("alone", (kept[0],), 0, 31)
    assert memory.nbytes == 30, "what has no room is not kept"


@pytest.fixture(scope="module")
def mllm():
    return load_mllm("embedded")


def looked(mllm, window: FrameWindow, memory: ReadMemory | None) -> tuple[list[str], list[torch.Tensor], tuple[float, ...]]:
    prefixes = mllm.read_video(window, memory), mllm.read_frames(window, memory)
    asked = [prefix.ask("find the cup .") for prefix in prefixes]
    grounds = [prefix.ask("what is the ground ?", answer=False) for prefix in prefixes]
    maps = [prefix.rollout(replies) for prefix, *replies in zip(prefixes, asked, grounds, strict=True)]
    return [answer for reply in asked for answer in reply.answers], maps, prefixes[1].probability_of_yes("is it there ?")


def test_what_was_read_before_gives_the_same_to_the_last_bit(mllm) -> None:
    window = random_window(6, (48, 64))
    answers, maps, yes = looked(mllm, window, None)
    filled, ahead = ReadMemory(1 << 30), ReadMemory(1 << 30)
    while unread := mllm.unread(window, ahead):
        mllm.read_ahead(window, unread[-1], ahead)
    for memory in (filled, filled, ahead):
        again, same_maps, same_yes = looked(mllm, window, memory)
        assert again == answers
        assert same_yes == pytest.approx(yes, abs=1e-6)
        assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-8) for pair in zip(same_maps, maps, strict=True))
    assert not mllm.unread(window, filled)


def test_only_what_is_new_in_a_window_is_read(mllm, monkeypatch) -> None:
    window = random_window(8, (48, 64))
    seen, prefilled, memory = [], [], ReadMemory(1 << 30)
    tower, chat = mllm._chat.model.model.visual, mllm._chat
    tower.register_forward_pre_hook(lambda _, pixels: seen.append(len(pixels[0])))
    prefill = chat.prefill
    monkeypatch.setattr(chat, "prefill", lambda each: prefilled.append(len(each.input_ids_bn)) or prefill(each))

    looked(mllm, FrameWindow(window.frames[:6]), memory)
    assert prefilled == [1, 6]
    (of_video, of_frames), per_step, per_frame = seen, seen[0] // 3, seen[1] // 6
    assert (of_video, of_frames) == (3 * per_step, 6 * per_frame)
    seen.clear(), prefilled.clear()
    looked(mllm, FrameWindow(window.frames[2:]), memory)  # two frames went, two came
    assert prefilled == [1, 2]
    assert seen == [per_step, 2 * per_frame]
    seen.clear(), prefilled.clear()
    looked(mllm, FrameWindow(window.frames[2:]), memory)
    assert not seen
    assert not prefilled


def test_without_a_budget_nothing_is_kept(mllm) -> None:
    memory, window = ReadMemory(0), random_window(2, (48, 64))
    looked(mllm, window, memory)
    mllm.read_ahead(window, window.frames[0], memory)
    assert memory.nbytes == 0
    assert mllm.unread(window, memory) == window.frames


def test_a_batch_that_has_no_room_is_read_in_halves_and_memory_is_freed_first(mllm, monkeypatch) -> None:
    mllm = mllm.with_options(MllmOptions())
    window, memory, sizes, room = random_window(5, (48, 64)), ReadMemory(1 << 30), [], [2]
    _, maps, _ = looked(mllm, window, None)
    older = frames(0)
    memory.put("way", older, "something", 10)
    prefill = mllm._chat.prefill

    def short(conversations):
        sizes.append(len(conversations.input_ids_bn))
        if sizes[-1] > room[0]:
            raise torch.OutOfMemoryError("no room")
        return prefill(conversations)

    monkeypatch.setattr(mllm._chat, "prefill", short)
    prefix = mllm.read_frames(window, memory)
    assert sizes == [5, 3, 2, 1, 2]
    assert memory.get("way", older) is None
    replies = prefix.ask("find the cup ."), prefix.ask("what is the ground ?", answer=False)
    assert torch.allclose(prefix.rollout(replies), maps[1], rtol=1e-5, atol=1e-8)
    room[0] = 0
    with pytest.raises(torch.OutOfMemoryError):
        mllm.read_frames(random_window(1, (48, 64)), memory)
