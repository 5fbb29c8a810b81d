"""Shapes of fruit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from decaf_ros.datatypes import Float32Array
from decaf_ros.synthetic.table.meshes import TEXTURE_WIDTH, Mesh, clouds, finished, join, lathe, plain, tube
from decaf_ros.synthetic.table.shapes import Grip, Part, Shape, Solid, all_round


def make_banana(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    reach, thick = 0.105 * scale, 0.0185 * scale
    turn = np.linspace(-0.95, 0.95, 20)
    path = np.stack([reach * np.sin(turn), reach * (0.78 - np.cos(turn)), 0 * turn + thick], -1)
    s = np.linspace(-1, 1, 20)
    radii = thick * np.clip(1 - np.abs(s) ** 3.5, 0.02, 1) ** 0.5 + 0.002
    skin = plain(colour, 64)
    skin *= 1 + 0.1 * clouds(rng, (64, TEXTURE_WIDTH), (4, 6))[..., None]
    skin[clouds(rng, (64, TEXTURE_WIDTH), (12, 20), 2) > 0.62] *= 0.62
    skin[:4] = skin[-4:] = (76, 58, 30)
    mesh, texture = join([(tube(path, radii, 12), finished(skin))])
    solids = tuple(
        Solid(
            "capsule",
            (0.9 * thick, 0.018 * scale),
            (reach * math.sin(t), reach * (0.78 - math.cos(t)), 0.92 * thick),
            (0, math.pi / 2, t),
        )
        for t in (-0.62, -0.2, 0.2, 0.62)
    )
    return Shape(mesh, texture, solids, 500, Grip((0, -0.22 * reach, 0.4 * thick), (math.pi / 2, -math.pi / 2), 2 * thick), 0.2)


def _fruit(profile: Sequence[tuple[float, float]], skin: Float32Array, stem: bool, gloss: float) -> Shape:
    """Something turned, with a stem on top; it does not roll, for fruit has a flat side."""
    heights = [z for _, z in profile]
    top, r = max(heights), max(radius for radius, _ in profile)
    parts: list[Part] = [(lathe(profile, 28), finished(skin))]
    if stem:
        z = np.linspace(0.84 * top, 1.08 * top, 5)
        stalk = tube(np.stack([np.linspace(0, 0.005, 5), 0 * z, z], -1), [0.0022] * 4 + [0.001], 8)
        parts.append((stalk, finished(plain((78, 58, 32)))))
    mesh, texture = join(parts)
    solids = (
        Solid("ellipsoid", (r, r, 0.5 * top), (0, 0, 0.5 * top)),
        Solid("cylinder", (0.5 * r, 0.2 * top), (0, 0, 0.2 * top)),
    )
    return Shape(mesh, texture, solids, 600, Grip((0, 0, 0.25 * top), all_round(), 2 * r), gloss)


def make_apple(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r = 0.0365 * scale
    turn = np.linspace(0, math.pi, 18)
    radius = r * np.sin(turn) * (1 + 0.08 * np.cos(turn - 2.2))
    z = r - 0.9 * r * np.cos(turn)
    z -= 0.3 * r * np.exp(-((radius / (0.3 * r)) ** 2)) * np.where(turn > 1.5, 1.0, -0.4)
    z -= z.min()
    skin = plain(colour, 64)
    flush = np.clip(2 * clouds(rng, (64, TEXTURE_WIDTH), (2, 8)), 0, 1)[..., None]
    skin = skin * (1 - 0.3 * flush) + 0.3 * flush * np.asarray((226, 190, 90), np.float32)
    return _fruit(list(zip(radius.tolist(), z.tolist(), strict=True)), skin, True, 0.5)


def make_lemon(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r = 0.027 * scale
    turn = np.linspace(0, math.pi, 22)
    radius = r * np.sin(turn) ** 1.15
    z = 1.42 * r * (1 - np.cos(turn)) - 0.32 * r * (turn - np.sin(turn)) / math.pi
    skin = plain(colour, 64) * (1 + 0.08 * clouds(rng, (64, TEXTURE_WIDTH), (20, 40), 2)[..., None])
    upright = lathe(list(zip(radius.tolist(), (z - z.min()).tolist(), strict=True)), 26)
    half = 0.5 * float(upright.vertices_n3[:, 2].max())
    lying = (upright.vertices_n3 - [0, 0, half]) @ np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], float).T + [0, 0, r]
    mesh, texture = join([(Mesh(lying, upright.faces_f3, upright.uv_n2), finished(skin))])
    solids = (Solid("ellipsoid", (half, r, r), (0, 0, r)), Solid("cylinder", (0.4 * r, 0.2 * r), (0, 0, 0.2 * r)))
    return Shape(mesh, texture, solids, 600, Grip((0, 0, 0.4 * r), (math.pi / 2, -math.pi / 2), 2 * r), 0.25)


def make_pear(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.034 * scale, 0.094 * scale
    t = np.linspace(0, 1, 20)
    radius = r * np.where(t < 0.45, np.sqrt(np.clip(1 - ((t - 0.38) / 0.385) ** 2, 0, 1)), 0)
    upper = (t - 0.45) / 0.55
    neck = r * (0.98 - 0.62 * np.clip(upper, 0, 1) ** 0.8) * np.sqrt(np.clip(1 - np.clip(upper, 0, 1) ** 6, 0, 1))
    radius = np.where(t < 0.45, radius, neck)
    radius[0] = radius[-1] = 0.0
    skin = plain(colour, 64) * (1 + 0.1 * clouds(rng, (64, TEXTURE_WIDTH), (6, 10))[..., None])
    return _fruit(list(zip(radius.tolist(), (h * t).tolist(), strict=True)), skin, True, 0.25)
