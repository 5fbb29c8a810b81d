"""Work of the models that nobody wants any more: every step of it asks, and what was given up leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from filmed_table import EXPRESSION, TABLE

from decaf_ros.datatypes import Frame, FrameWindow, ObjectPrompt
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.models.wanted import while_wanted

FRAMES, THINGS = 3, 2
LAYERS = 4  # of the embedded language model


class GivenUpError(Exception):
    pass


@dataclass
class Countdown:
    """Asks how often it likes, until it is asked once too often."""

    left: float = float("inf")
    asked: int = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked > self.left:
            raise GivenUpError


@cache
def _window() -> FrameWindow:
    return FrameWindow(tuple(Frame(index, "camera", view.image_rgb) for index, view in enumerate(TABLE.views(FRAMES))))


def _read_frames(mllm: Any) -> Callable[[], torch.Tensor]:
    return lambda: mllm.read_frames(_window()).ask("the mug", answer=False).state.layers[0]


def _rollout(mllm: Any) -> Callable[[], torch.Tensor]:
    prefix = mllm.read_frames(_window())
    reply = prefix.ask(EXPRESSION)
    return lambda: prefix.rollout([reply])


def _propagate(tracker: Any) -> Callable[[], np.ndarray]:
    clip = [tracker.encode(frame) for frame in _window().frames]
    masks = np.stack([TABLE.view(0.0).mask_of(thing) for thing in range(THINGS)])
    return lambda: tracker.propagate(clip, 0, masks)


def _prompt(tracker: Any) -> Callable[[], np.ndarray]:
    return lambda: tracker.prompt(tracker.encode(_window().frames[0]), ObjectPrompt(((9.0, 9.0),)))[1].mask_hw


# What is made ready, and the fewest steps that it has.
WORK = {
    "read a video": ("mllm", lambda mllm: lambda: mllm.read_video(_window()).ask("the mug").answers, 2 * LAYERS),
    "read frames": ("mllm", _read_frames, 2),
    "complete": ("mllm", lambda mllm: lambda: mllm.complete(EXPRESSION), LAYERS),
    "roll out": ("mllm", _rollout, LAYERS // 2),
    "encode": ("tracker", _prompt, 2),
    "propagate": ("tracker", _propagate, FRAMES - 1),
}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {"mllm": load_mllm("embedded"), "tracker": Sam2Tracker.load("embedded")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(torch.equal(one, other)) if isinstance(one, torch.Tensor) else bool(np.all(one == other))


@pytest.mark.parametrize("name", WORK)
def test_work_is_given_up_at_any_step_and_done_again_with_the_same_result(models: dict[str, Any], name: str) -> None:
    model, prepare, least = WORK[name]
    work = prepare(models[model])
    patient = Countdown()
    with while_wanted(patient):
        first = work()
    assert patient.asked >= least
    for left in {0, 1, patient.asked // 2, patient.asked - 1}:
        with while_wanted(Countdown(left)), pytest.raises(GivenUpError):
            work()
    assert _same(work(), first), "and outside of the block nobody asks"


def test_a_model_that_is_used_with_other_options_asks_once_a_layer(models: dict[str, Any]) -> None:
    mllm, counts = models["mllm"], []
    for each in (mllm, mllm.with_options(mllm._options)):
        asked = Countdown()
        with while_wanted(asked):
            each.complete(EXPRESSION)
        counts.append(asked.asked)
    assert counts[0] == counts[1]
