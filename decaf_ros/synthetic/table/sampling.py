"""Scenes drawn from a seed: what stands where, what the arm does, who looks on.

Seeds below :data:`FIRST_TRAINING_SEED` are held out: evaluation, tests and demo take theirs there, training above.
"""

from __future__ import annotations

import math

import numpy as np

from decaf_ros.synthetic.table.catalogue import KINDS
from decaf_ros.synthetic.table.planner import Planner
from decaf_ros.synthetic.table.scene import FLOORS, TABLE_TOPS, Camera, Look, Scene

FIRST_TRAINING_SEED = 1_000_000
FIRST_SCORED_SEED = 500_000
"""Scores are of scenes from here on, apart from the seeds that training scripts judge their checkpoints by."""
_SECONDS = {"pick": 2.1, "place": 1.9, "push": 2.9, "topple": 2.7, "wait": 0.0}  # about what each takes


def require_held_out(seed: int) -> int:
    """The seed, unless models may have been trained on its scene.

    Raises:
        ValueError: it is one of the training seeds.
    """
    if not 0 <= seed < FIRST_TRAINING_SEED:
        raise ValueError(
            f"seed {seed} is not held out: those are 0 to {FIRST_TRAINING_SEED - 1}, models are trained on later ones"
        )
    return seed


def require_training(seed: int) -> int:
    """The seed, unless it is held out.

    Raises:
        ValueError: it is one of the held-out seeds.
    """
    if seed < FIRST_TRAINING_SEED:
        raise ValueError(f"seed {seed} is held out for evaluation: those for training begin at {FIRST_TRAINING_SEED}")
    return seed


def sample_scene(seed: int, attempt: int = 0) -> Scene:
    """Draw a scene. It may not come off as it is planned; see :func:`~decaf_ros.synthetic.table.episodes.sample_episode`.

    Args:
        seed: see :data:`FIRST_TRAINING_SEED`.
        attempt: of this seed.
    """
    rng = np.random.default_rng([seed, attempt])
    camera = _sample_camera(rng)
    planner = Planner(rng, camera, _sample_looks(rng))
    actions = planner.plan()
    busy_s = sum(_SECONDS[action.verb] + action.seconds for action in actions)
    return Scene(planner.things, actions, camera, _sample_look(rng), duration_s=max(8.0, busy_s + float(rng.uniform(0.3, 4.0))))


def _sample_camera(rng: np.random.Generator) -> Camera:
    moves = rng.random() < 0.35
    sway = (
        (float(rng.uniform(0.05, 0.22)), float(rng.uniform(0.0, 0.08)), float(rng.uniform(0.0, 0.07)))
        if moves
        else (0.0, 0.0, 0.0)
    )
    return Camera(
        target=(float(rng.uniform(0.0, 0.08)), float(rng.uniform(-0.04, 0.04)), float(rng.uniform(0.04, 0.09))),
        distance=float(rng.uniform(0.70, 0.95)),
        azimuth=float(rng.uniform(-1.25, 1.25)),
        elevation=float(rng.uniform(0.45, 0.95)),
        fov_y=float(rng.uniform(0.70, 0.82)),
        sway=sway,
        period_s=float(rng.uniform(8.0, 18.0)),
        phase=float(rng.uniform(0.0, 2 * math.pi)),
    )


def _sample_look(rng: np.random.Generator) -> Look:
    strength, warmth = float(rng.uniform(0.5, 0.85)), float(rng.uniform(-0.08, 0.08))
    wall = rng.uniform(0.45, 0.9) * (1 + rng.uniform(-0.06, 0.06, size=3))
    return Look(
        table=str(rng.choice(TABLE_TOPS)),
        floor=str(rng.choice(FLOORS)),
        wall_rgb=tuple(np.clip(wall, 0.0, 1.0).tolist()),
        light_rgb=(strength * (1 + warmth), strength, strength * (1 - warmth)),
        light_azimuth=float(rng.uniform(-math.pi, math.pi)),
        light_elevation=float(rng.uniform(0.75, 1.35)),
        ambient=float(rng.uniform(0.28, 0.44)),
        noise=float(rng.uniform(1.0, 5.0)),
        seed=int(rng.integers(2**31)),
    )


def _sample_looks(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Kinds and colours: mostly with several of a kind, and with colours that come back on other kinds."""
    kinds = [name for name, kind in KINDS.items() for _ in range(2 if kind.upright else 1)]  # few kinds can fall over
    looks: list[tuple[str, str]] = []
    for _ in range(int(rng.integers(3, 8))):
        kind = str(rng.choice(kinds))
        if looks and rng.random() < 0.42:
            kind = looks[int(rng.integers(len(looks)))][0]
        colours = [colour for colour in KINDS[kind].colours if rng.random() < 0.85 or (kind, colour) not in looks]
        shared = [colour for _, colour in looks if colour in colours]
        pool = shared if shared and rng.random() < 0.25 else colours or list(KINDS[kind].colours)
        looks.append((kind, str(rng.choice(pool))))
    if len({kind for kind, _ in looks}) == len(looks) and rng.random() < 0.8:  # no two of a kind yet
        kind = looks[0][0]
        looks[-1] = (
            kind,
            str(rng.choice([colour for colour in KINDS[kind].colours if colour != looks[0][1]] or [looks[0][1]])),
        )
    return looks
