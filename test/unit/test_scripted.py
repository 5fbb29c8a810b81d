"""Scripts of loss and return: what they show, and how the embedded models fare, in simulated time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.bench.scripted import DOUBLE, HZ, MOVES_AT_S, Played, Script, play, script_of
from decaf_ros.config import SessionConfig
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.grounding import Grounder

HIDDEN, AWAY = "hidden 15 frames", "leaves and returns elsewhere"
SEED = 500_002


@pytest.fixture(scope="module")
def scripts() -> dict[str, Script]:
    return {kind: script_of(kind, SEED) for kind in (HIDDEN, AWAY, DOUBLE)}


def pixels(script: Script, every: int = 1) -> np.ndarray:
    """``(frames, things)`` that are seen of each."""
    played, things = Played(script), range(len(script.scene.things))
    views = [played.view(index / HZ) for index in range(0, round(script.end_s * HZ) + 1, every)]
    return np.array([[np.count_nonzero(view.mask_of(thing)) for thing in things] for view in views])


def test_a_thing_is_hidden_for_as_many_frames_as_the_script_says_and_nothing_moves_but_the_camera(scripts):
    script = scripts[HIDDEN]
    seen = pixels(script)[:, script.thing]
    hidden = np.flatnonzero(seen == 0)
    assert abs(len(hidden) - 15) <= 1
    assert hidden[-1] - hidden[0] + 1 == len(hidden), "at once"
    assert (seen[: round(MOVES_AT_S * HZ)] == seen[0]).all(), "until then it is in sight"
    assert script.back_s > hidden[-1] / HZ
    assert seen[round(script.back_s * HZ)] > 0.5 * seen[0]
    first, last = (Played(script).view(time_s) for time_s in (0.0, script.end_s))
    assert np.abs((first.poses_n44 - last.poses_n44)[:, :3, 3]).max() < 5e-3
    assert np.abs(first.world_from_camera - last.world_from_camera).max() > 0.1


def test_what_leaves_comes_back_to_another_place(scripts):
    script = scripts[AWAY]
    gone = np.flatnonzero(pixels(script, every=5)[:, script.thing] == 0) * 5 / HZ
    assert MOVES_AT_S < gone[0] < gone[-1] < script.back_s
    before, after = (Played(script).view(time_s).poses_n44[script.thing, :2, 3] for time_s in (0.0, script.end_s))
    assert np.linalg.norm(after - before) > 0.1


def test_a_double_looks_the_same_and_passes_in_front(scripts):
    script = scripts[DOUBLE]
    thing, double = script.scene.things[:2]
    assert thing == replace(double, xy=thing.xy)
    played = Played(script)
    columns = [
        [float(np.nonzero(played.view(time_s).mask_of(each))[1].mean()) for each in (0, 1)] for time_s in (0.0, script.end_s)
    ]
    (thing_before, double_before), (thing_after, double_after) = columns
    assert (thing_before - double_before) * (thing_after - double_after) < 0, "one was to the left, then the other"
    seen = pixels(script, every=4)
    assert seen[:, 0].min() < 0.8 * seen[0, 0], "a part of it is hidden"


def test_a_thing_that_was_hidden_is_found_again_under_its_id(scripts) -> None:
    tracker = Sam2Tracker.load("embedded", memory_gating=True, motion_gating=True)
    outcome = play(scripts[HIDDEN], tracker, Grounder(MllmAttention(load_mllm("embedded")), tracker), SessionConfig())
    assert outcome.found
    assert outcome.delay_s is not None
    assert outcome.wrong < 0.2
