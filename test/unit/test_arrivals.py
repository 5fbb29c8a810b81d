"""Episodes in which a thing comes that was asked for before: what they show."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.bench.arrivals import ASKED_AT_S, STANDING, Wait, arrival_of
from decaf_ros.bench.parts.standing import _rates
from decaf_ros.synthetic.table.episodes import Episode


def test_what_is_to_come_is_out_of_sight_until_the_arm_brings_it():
    arrival = arrival_of(500_002)
    episode = Episode(arrival.scene)

    def mask_hw(time_s: float) -> np.ndarray:
        return episode.render(time_s).mask_of(0)

    assert not any(mask_hw(time_s).any() for time_s in np.arange(0.0, arrival.glimpsed_s - 0.1, 1.0))
    assert mask_hw(arrival.glimpsed_s + 0.1).any()
    before, then = mask_hw(arrival.in_view_s - 0.1), mask_hw(arrival.in_view_s)
    borders = [np.concatenate([each[0], each[-1], each[:, 0], each[:, -1]]).any() for each in (before, then)]
    assert then.sum() > before.sum()
    assert borders in ([True, False], [False, False]), "it has come off the border"
    assert 5.0 <= arrival.in_view_s - ASKED_AT_S <= 30.0
    there = [f"the {thing.colour} {thing.kind}" for thing in arrival.scene.things]
    assert [expression in there for expression in arrival.expressions] == [True] + [False] * (STANDING - 1)
    assert arrival.expressions[0] == there[0]


def test_in_time_is_who_is_tracked_soon_enough_and_not_reported_before():
    waits = [
        Wait(False, 1.5, False),
        Wait(False, -0.2, False),
        Wait(True, 1.6, False),
        Wait(True, None, False),
        Wait(True, 1.0, True),
    ]
    assert [each.in_time for each in waits] == [True, True, False, False, False]
    assert _rates(waits) == {"episodes": 5, "in_time": 0.4, "delay_s": 1.25, "late": 2, "early": 1}
