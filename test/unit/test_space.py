"""Places in space against the table's truth, with a mask model that knows the masks, and one that loses things."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.bench import space
from decaf_ros.bench.space import SpaceError, space_errors, space_figures
from decaf_ros.datatypes import BoolArray, Frame, ObjectPrompt
from decaf_ros.models.protocols import TrackOutput
from decaf_ros.synthetic.table.episodes import Episode
from decaf_ros.synthetic.table.rendering import View
from decaf_ros.synthetic.table.scene import Action, Camera, Look, Scene, Thing


class KnowingTracker:
    """Tracks are indices of things, masks are the truth; of a thing that is lost there is none."""

    def __init__(self, episode: Episode, lost: int | None = None) -> None:
        self._episode, self._lost = episode, lost

    def encode(self, frame: Frame) -> View:
        return self._episode.render((frame.stamp_ns - 1) * 1e-9)

    def prompt(self, view: View, prompt: ObjectPrompt) -> tuple[list[int], TrackOutput]:
        (thing,) = np.unique(view.instances_hw[prompt.mask_hw]).tolist()
        return [thing - 1], TrackOutput(prompt.mask_hw, 1.0)

    def appearance(self, view: View, mask_hw: BoolArray) -> torch.Tensor:
        return torch.ones(1)

    def step(self, tracks: Sequence[list[int]], view: View) -> list[TrackOutput]:
        masks = [view.mask_of(thing) & (thing != self._lost) for (thing,) in tracks]
        return [TrackOutput(mask, float(mask.any())) for mask in masks]


@pytest.fixture(scope="module")
def episode() -> Episode:
    """A cube is pushed; a mug and a ball rest."""
    looks = (("cube", "red", 0.0, -0.15), ("mug", "blue", 0.1, 0.2), ("ball", "green", 0.2, 0.0))
    things = tuple(Thing(kind, colour, 1.0, (x, y), 0.0, seed=2) for kind, colour, x, y in looks)
    camera = Camera(target=(0.05, 0.0, 0.04), distance=0.85, azimuth=0.3, elevation=0.8, fov_y=0.78, sway=(0.1, 0.05, 0.0))
    return Episode(Scene(things, (Action("push", 0, (0.12, -0.15)),), camera, Look(noise=0.0), 4.0))


def test_with_true_masks_places_are_true_but_for_the_rim_whether_things_move_or_the_camera(episode, monkeypatch):
    monkeypatch.setattr(space, "episode_of", lambda seed: episode)
    figures = space_figures(space_errors(7, KnowingTracker(episode)))
    assert figures["all"]["frames"] > 80
    assert {name: row["located"] for name, row in figures.items()} == {"all": 1.0, "at_rest": 1.0, "moved": 1.0}
    assert max(row["p90_cm"] for row in figures.values()) < 0.5

    lost = space_figures(space_errors(7, KnowingTracker(episode, lost=0)))
    assert "moved" not in lost, "there is no place to be measured"
    assert lost["all"]["located"] == pytest.approx(figures["at_rest"]["frames"] / figures["all"]["frames"])


def test_errors_are_in_centimetres_at_a_metre():
    errors = [SpaceError(False, metres) for metres in (0.01, 0.02, 0.04)] + [SpaceError(True, math.inf)]
    figures = space_figures(errors)
    assert list(figures) == ["all", "at_rest"]
    assert figures["at_rest"] == pytest.approx({"frames": 3, "located": 1.0, "median_cm": 2.0, "p90_cm": 3.6})
    assert figures["all"] == pytest.approx({"frames": 4, "located": 0.75, "median_cm": 2.0, "p90_cm": 3.6})
