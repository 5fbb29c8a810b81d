"""Scenes of scripts: what stands where, how it looks, and the camera before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS
from decaf_ros.synthetic.table.scene import FLOORS, TABLE_TOPS, Camera, Look, Thing

LOW_KINDS = ("cube", "ball", "apple", "lemon", "mug", "sponge", "car")  # that a box hides, and the arm can lift
ANY_KINDS = tuple(kind for kind in KINDS if kind != "box")
MIDDLE = (0.05, 0.0)  # of the table before the camera


def draw_places(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """``(6, 2)`` places before the camera, in metres, in any order."""
    return rng.permutation([(x, y) for x in (-0.05, 0.13) for y in (-0.17, 0.0, 0.17)])


def draw_unseen_place(rng: np.random.Generator) -> tuple[float, float]:
    """A place on the table, within reach of the arm, that the camera does not see."""
    return float(rng.uniform(-0.15, 0.0)), float(rng.choice([-1, 1])) * float(rng.uniform(0.58, 0.66))


def draw_thing(rng: np.random.Generator, look: tuple[str, str], place: npt.ArrayLike) -> Thing:
    """A thing of a kind and a colour, turned at random."""
    return Thing(*look, 1.0, xy_of(place), float(rng.uniform(-math.pi, math.pi)), int(rng.integers(2**31)))


def still_camera(azimuth: float) -> Camera:
    """One that sees the table from well above, and does not move."""
    return Camera((*MIDDLE, 0.05), 0.74, azimuth, 0.7, 0.75)


def draw_look(rng: np.random.Generator) -> Look:
    return Look(
        table=str(rng.choice(TABLE_TOPS)),
        floor=str(rng.choice(FLOORS)),
        light_azimuth=float(rng.uniform(-math.pi, math.pi)),
        seed=int(rng.integers(2**31)),
    )


def draw_looks(rng: np.random.Generator, *groups: Sequence[str]) -> list[tuple[str, str]]:
    """A kind of each group, and a colour for it: none comes twice, if it can be had."""
    looks: list[tuple[str, str]] = []
    for group in groups:
        kind = str(rng.choice([kind for kind in group if kind not in dict(looks)]))
        looks.append((kind, other_colour(rng, *looks, of=KINDS[kind].colours)))
    return looks


def other_colour(rng: np.random.Generator, *looks: tuple[str, str], of: Sequence[str] = tuple(COLOURS_RGB)) -> str:
    """A colour that none of the things has; any where all are taken."""
    taken = {colour for _, colour in looks}
    return str(rng.choice([colour for colour in of if colour not in taken] or list(of)))


def xy_of(xy: npt.ArrayLike) -> tuple[float, float]:
    """A place as scenes have it."""
    x, y = np.asarray(xy).tolist()
    return x, y
