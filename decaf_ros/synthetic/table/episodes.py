"""A scene that was played, with its pictures and the truth about it; and episodes from seeds, without those that went wrong."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.events import History
from decaf_ros.synthetic.table.recording import Recording
from decaf_ros.synthetic.table.rendering import DEFAULT_SIZE_HW, Renderer, View
from decaf_ros.synthetic.table.sampling import sample_scene
from decaf_ros.synthetic.table.scene import Scene
from decaf_ros.synthetic.table.simulation import simulate

Float64Array = npt.NDArray[np.float64]
MOST_ATTEMPTS = 20
_DEEPEST_METRES = 0.004  # that things may press into each other; beyond, one would be seen to pass through another
_SEEN = 0.3


class Episode:
    """A scene that was played.

    Args:
        scene: what to play; it is simulated at once, and rendered when it is asked for.
        samples: see :class:`~decaf_ros.synthetic.table.rendering.Renderer`.

    Attributes:
        scene, recording: what was played, and how it went.
        history: what happened.
    """

    def __init__(self, scene: Scene, samples: int = 1) -> None:
        self.scene = scene
        self.recording: Recording = simulate(scene)
        self.history = History(self.recording)
        self._samples = samples
        self._fractions: dict[float, Float64Array] = {}

    def render(self, time_s: float, size_hw: tuple[int, int] = DEFAULT_SIZE_HW) -> View:
        """The table at any time of the scene, at any size; what is said to be in view holds for images of 4 by 3.

        Raises:
            ValueError: no such time or size.
        """
        if not math.isfinite(time_s):
            raise ValueError(f"a time is finite, got {time_s}")
        return self._renderer.render(self.recording.qpos_at(time_s), time_s, size_hw)

    def visible_fractions(self, time_s: float) -> Float64Array:
        """``(things,)``: the visible share of what each thing would show, were nothing in front of it and the image endless."""
        key = round(time_s, 3)
        if key not in self._fractions:
            self._fractions[key] = self._renderer.visible_fractions(self.recording.qpos_at(key), key)
        return self._fractions[key]

    def faults(self) -> list[str]:
        """Why the episode should not be shown; empty when it went well."""
        recording, scene = self.recording, self.scene
        faults = [f"the arm failed to {action.verb}" for action in recording.failed]
        if recording.deepest_metres > _DEEPEST_METRES:
            faults.append(f"bodies pressed {1e3 * recording.deepest_metres:.1f} mm into each other")
        if recording.positions_tn3[..., 2].min() < -0.05:
            faults.append("something fell off the table")
        hidden = {event.thing for event in self.history.events}
        for time_s in np.arange(0.0, scene.duration_s, 1.0):
            if hidden:
                hidden -= set(np.flatnonzero(self.visible_fractions(float(time_s)) >= _SEEN).tolist())
        faults += [f"the {scene.things[thing].kind} is hidden throughout" for thing in sorted(hidden)]
        return faults

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.scene, self.recording.shapes, self._samples)


def sample_episode(seed: int, samples: int = 1) -> Episode:
    """The first scene of a seed that comes off as it should.

    Args:
        seed: of :data:`~decaf_ros.synthetic.table.sampling.FIRST_TRAINING_SEED` and later for training, below for all else.
        samples: see :class:`~decaf_ros.synthetic.table.rendering.Renderer`.
    """
    for attempt in range(MOST_ATTEMPTS):
        episode = Episode(sample_scene(seed, attempt), samples)
        if not episode.faults():
            return episode
    raise AssertionError(f"{MOST_ATTEMPTS} scenes of seed {seed} went wrong")


def times_of(start_s: float, end_s: float, most_apart_s: float = 0.5) -> list[float]:
    """Evenly spaced times from one to another, both among them."""
    steps = max(1, math.ceil((end_s - start_s) / most_apart_s - 1e-9))
    return np.linspace(start_s, end_s, steps + 1).tolist()
