"""Shapes of what is whole: cartons, books, sponges, toys and a hammer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from decaf_ros.datatypes import Float32Array
from decaf_ros.synthetic.table.meshes import TEXTURE_WIDTH, Mesh, box, clouds, finished, join, lathe, plain, tube
from decaf_ros.synthetic.table.shapes import Grip, Part, Shape, Solid, all_round, contrast


def _printed(colour: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The six sides of a carton: a picture and lines of print."""
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 128))
    mark, accent = contrast(colour).tolist(), (float(rng.integers(60, 200)), 150.0, 60.0)
    for index in (0, 1):
        x = TEXTURE_WIDTH * index
        cv2.circle(sides, (x + 64, 80), 34, mark, -1, cv2.LINE_AA)
        cv2.circle(sides, (x + 64, 80), 20, accent, -1, cv2.LINE_AA)
        cv2.rectangle(sides, (x + 18, 14), (x + 110, 30), mark, -1)
    for index in (2, 3):
        for y in range(24, 112, 12):
            cv2.line(sides, (TEXTURE_WIDTH * index + 20, y), (TEXTURE_WIDTH * index + int(rng.integers(70, 108)), y), mark, 3)
    return np.asarray(sides, np.float32)


def _cuboid(
    size: Sequence[float], texture: Float32Array, density: float, gloss: float, yaw: float = 0.0, sink: float = 0.03
) -> Shape:
    """A box that is gripped ``sink`` below its top, or at its middle where it is low; yaw 0 closes along x."""
    width = size[0] if yaw == 0.0 else size[1]
    grip = Grip((0, 0, max(size[2] - sink, 0.45 * size[2])), (yaw, yaw + math.pi), width)
    narrow = cv2.resize(texture, (2 * TEXTURE_WIDTH, texture.shape[0]), interpolation=cv2.INTER_AREA)
    solid = Solid("box", (0.5 * size[0], 0.5 * size[1], 0.5 * size[2]), (0, 0, 0.5 * size[2]))
    return Shape(box(size), finished(narrow), (solid,), density, grip, gloss)


def make_box(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    size = (0.052 * scale, 0.105 * scale, 0.158 * scale * float(rng.uniform(0.9, 1.1)))
    return _cuboid(size, _printed(colour, rng), 250, 0.2)


def make_book(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    size = (0.098, 0.145 * scale, 0.026 * scale)
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 96))
    pages = np.asarray((232, 226, 206), np.float32) - 22 * (np.arange(72) % 6 < 2)[:, None, None]
    for index in (0, 2, 3):  # three sides show the pages between the covers
        sides[12:84, TEXTURE_WIDTH * index : TEXTURE_WIDTH * (index + 1)] = pages
    mark = contrast(colour).tolist()
    x = 4 * TEXTURE_WIDTH
    cv2.rectangle(sides, (x + 16, 12), (x + 112, 84), mark, 3)
    cv2.rectangle(sides, (x + 34, 56), (x + 94, 72), mark, -1)
    return _cuboid(size, np.asarray(sides, np.float32), 350, 0.25, sink=0.012)


def make_sponge(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    size = (0.068 * scale, 0.108 * scale, 0.034 * scale)
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 64))
    pores = clouds(rng, (64, 6 * TEXTURE_WIDTH), (16, 160), 2)
    sides = np.where((pores > 0.38)[..., None], 0.55 * sides, sides * (1 + 0.12 * pores[..., None]))
    sides[:16, : 4 * TEXTURE_WIDTH] = (
        sides[:, 4 * TEXTURE_WIDTH : 5 * TEXTURE_WIDTH].mean(axis=(0, 1)) * 0.45
    )  # the scouring side
    return _cuboid(size, np.asarray(sides, np.float32), 120, 0.0, sink=0.016)


def make_cube(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 64))
    if rng.random() < 0.5:
        for index in range(6):
            cv2.rectangle(
                sides, (TEXTURE_WIDTH * index + 14, 7), (TEXTURE_WIDTH * index + 114, 57), (0.72 * colour).tolist(), 5
            )
    return _cuboid((0.05 * scale,) * 3, np.asarray(sides, np.float32), 400, 0.25, sink=0.02)


def make_ball(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r = 0.036 * scale
    turn = np.linspace(0, math.pi, 17)
    skin = plain(colour, 64)
    if rng.random() < 0.6:
        skin[28:36] = contrast(colour)
    mesh, texture = join([(lathe([(r * math.sin(t), r - r * math.cos(t)) for t in turn], 32), finished(skin))])
    return Shape(
        mesh, texture, (Solid("ellipsoid", (r, r, r), (0, 0, r)),), 300, Grip((0, 0, 0.4 * r), all_round(), 2 * r), 0.5
    )


def make_car(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    length, width, s = 0.115 * scale, 0.054 * scale, scale
    glass, tyre = finished(plain((70, 92, 112))), finished(plain((34, 34, 36)))
    paint = finished(plain(colour))
    body = box((length, width, 0.022 * s)).moved((0, 0, 0.010 * s))
    cabin = box((0.5 * length, 0.86 * width, 0.018 * s)).moved((-0.04 * length, 0, 0.031 * s))
    roof = box((0.46 * length, 0.82 * width, 0.004 * s)).moved((-0.04 * length, 0, 0.049 * s))
    parts: list[Part] = [(body, paint), (cabin, glass), (roof, paint)]
    for x in (-0.3, 0.3):
        for side in (-1, 1):
            wheel = lathe([(0, 0), (0.0125 * s, 0), (0.0125 * s, 0.008 * s), (0, 0.008 * s)], 18)
            turned = wheel.vertices_n3 @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float).T
            placed = Mesh(turned, wheel.faces_f3, wheel.uv_n2).moved((x * length, side * 0.5 * width + 0.004 * s, 0.0125 * s))
            parts.append((placed, tyre))
    mesh, texture = join(parts)
    solids = (
        Solid("box", (0.5 * length, 0.5 * width, 0.016 * s), (0, 0, 0.016 * s)),
        Solid("box", (0.25 * length, 0.43 * width, 0.011 * s), (-0.04 * length, 0, 0.042 * s)),
    )
    return Shape(mesh, texture, solids, 500, Grip((0, 0, 0.012 * s), (math.pi / 2, -math.pi / 2), width), 0.6)


def make_hammer(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    length, r = 0.21 * scale, 0.0125 * scale
    x = np.linspace(-0.5 * length, 0.42 * length, 9)
    shaft = tube(
        np.stack([x, 0 * x, 0 * x + r], -1), [0.4 * r, r, r, 0.95 * r, 0.85 * r, 0.8 * r, 0.8 * r, 0.8 * r, 0.8 * r], 12
    )
    wood = plain((186, 138, 84), 32)
    wood[:20] = colour  # the coated half, where it is held
    y = np.linspace(-0.045, 0.05, 8) * scale
    reach = np.array([0.3, 1.25, 1.25, 0.95, 1.1, 1.0, 0.7, 0.25]) * 1.05 * r
    head = tube(np.stack([0 * y + 0.42 * length, y, 0 * y + 1.25 * r], -1), reach, 14)
    mesh, texture = join([(shaft, finished(wood)), (head, finished(plain(0.8 * colour)))])
    solids = (
        Solid("box", (0.46 * length, r, r), (-0.04 * length, 0, r)),
        Solid("box", (1.2 * r, 0.045 * scale, 1.2 * r), (0.42 * length, 0, 1.2 * r)),
    )
    return Shape(mesh, texture, solids, 500, Grip((0.1 * length, 0, 0.4 * r), (math.pi / 2, -math.pi / 2), 2 * r), 0.4)
