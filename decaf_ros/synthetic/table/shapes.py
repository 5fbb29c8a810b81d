"""What a thing is made of: what is seen (a mesh with its texture), what is felt (solids), and where it is gripped."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decaf_ros.datatypes import Float32Array, UInt8Array
from decaf_ros.synthetic.table.meshes import Mesh

Part = tuple[Mesh, UInt8Array]


@dataclass(frozen=True)
class Solid:
    """A simple body that stands for a part of a thing in the physics.

    Attributes:
        form: box, cylinder, capsule or ellipsoid, as MuJoCo has them.
        size: half extents, or radius and half length.
        position: of its centre.
        euler: its rotation about x, y and z in radians.
    """

    form: str
    size: tuple[float, ...]
    position: tuple[float, float, float]
    euler: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Grip:
    """Where the fingers close, in the thing's own frame.

    Attributes:
        position: between the lower ends of the fingers.
        yaws: directions about z, in radians, in which they may close.
        width: between them when they touch.
        on_rim: the position lies on a rim, and turns about z with each yaw.
    """

    position: tuple[float, float, float]
    yaws: tuple[float, ...]
    width: float
    on_rim: bool = False


@dataclass(frozen=True, eq=False)
class Shape:
    """What a thing is made of. It stands on z = 0 of its own frame, in metres.

    Attributes:
        mesh: what is seen.
        texture: ``(rows, TEXTURE_WIDTH, 3)`` uint8.
        solids: what is felt.
        density: of the solids in kg/m^3.
        grip: None for what is pushed only.
        gloss: how much light it mirrors, 0..1.
    """

    mesh: Mesh
    texture: UInt8Array
    solids: tuple[Solid, ...]
    density: float
    grip: Grip | None
    gloss: float


def contrast(colour: Float32Array) -> Float32Array:
    """What is printed on a colour: white, or dark where it is bright itself."""
    return np.asarray((240, 238, 230) if colour.mean() < 190 else (60, 62, 70), np.float32)


def all_round() -> tuple[float, ...]:
    return tuple(np.arange(8) * math.pi / 8)


def ring(radius: float, height: float, thickness: float, count: int = 14) -> tuple[Solid, ...]:
    """The wall of a vessel as boxes in a circle."""
    half_width = 0.98 * math.pi * radius / count
    return tuple(
        Solid(
            "box",
            (0.5 * thickness, half_width, 0.5 * height),
            (radius * math.cos(turn), radius * math.sin(turn), 0.5 * height),
            (0.0, 0.0, turn),
        )
        for turn in 2 * math.pi * np.arange(count) / count
    )
