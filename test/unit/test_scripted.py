"""Scripted episodes, played in simulated time with the embedded models."""

from __future__ import annotations

import pytest

from decaf_ros.config import SessionConfig
from decaf_ros.evaluation.scripted import episodes, play
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.grounding import Grounder


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder(load_mllm("embedded"), Sam2Tracker.load("embedded", memory_gating=True, motion_gating=True))


@pytest.mark.parametrize("kind", ["hidden 15 frames", "leaves and returns elsewhere"])
def test_a_body_that_was_out_of_sight_is_found_again_under_its_id(grounder: Grounder, kind: str) -> None:
    [episode] = [each for each in episodes(1) if each.kind == kind]
    outcome = play(episode, grounder.tracker, grounder, SessionConfig())
    assert outcome.found
    assert outcome.delay_s is not None
    assert outcome.wrong < 0.2
