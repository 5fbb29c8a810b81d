"""The shape of each kind: what is seen (a mesh with its texture), what is felt (solids), and where it is gripped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from decaf_ros.datatypes import Float32Array, UInt8Array
from decaf_ros.synthetic.table.catalogue import COLOURS_RGB
from decaf_ros.synthetic.table.meshes import TEXTURE_WIDTH, Mesh, box, clouds, finished, join, lathe, plain, tube

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


def make_shape(kind: str, colour: str, scale: float, seed: int) -> Shape:
    """The shape of a thing.

    Args:
        kind, colour: words of the catalogue.
        scale: factor on its usual size.
        seed: of proportions and patterns.
    """
    return _MAKERS[kind](np.asarray(COLOURS_RGB[colour], np.float32), scale, np.random.default_rng(seed))


def _contrast(colour: Float32Array) -> Float32Array:
    """What is printed on a colour: white, or dark where it is bright itself."""
    return np.asarray((240, 238, 230) if colour.mean() < 190 else (60, 62, 70), np.float32)


def _round_yaws() -> tuple[float, ...]:
    return tuple(np.arange(8) * math.pi / 8)


def _ring(radius: float, height: float, thickness: float, count: int = 14) -> tuple[Solid, ...]:
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


def _mug(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.041 * scale, 0.092 * scale * float(rng.uniform(0.92, 1.08))
    outside = lathe([(0, 0), (r - 0.003, 0), (r, 0.004), (r, h - 0.001), (r - 0.0015, h)], 36)
    inside = lathe([(r - 0.0015, h), (r - 0.004, h - 0.002), (r - 0.004, 0.008), (0, 0.007)], 36)
    turn = np.linspace(-1.9, 1.9, 16)
    handle = np.stack([r + 0.006 + 0.022 * scale * np.cos(turn), 0 * turn, 0.5 * h + 0.31 * h * np.sin(turn)], -1)
    skin = plain(colour, 48)
    style = int(rng.integers(3))
    if style == 1:
        skin[24:34] = _contrast(colour)
    elif style == 2:
        for x in range(8, TEXTURE_WIDTH, 21):
            cv2.circle(skin, (x, 29), 4, _contrast(colour).tolist(), -1, cv2.LINE_AA)
    lining = colour if rng.random() < 0.5 else np.asarray((232, 228, 218), np.float32)
    grip = tube(handle, 0.006 * scale, 10, flatten=1.25)
    mesh, texture = join([(outside, finished(skin)), (inside, finished(plain(lining))), (grip, finished(plain(colour)))])
    solids = (
        Solid("cylinder", (r, 0.5 * h), (0, 0, 0.5 * h)),
        Solid("box", (0.013 * scale, 0.006, 0.3 * h), (r + 0.015 * scale, 0, 0.5 * h)),
    )
    return Shape(mesh, texture, solids, 450, Grip((0, 0, h - 0.03), (math.pi / 2,), 2 * r), 0.5)


def _bowl(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.070 * scale, 0.052 * scale * float(rng.uniform(0.9, 1.15))
    bend = np.linspace(0.0, 0.5 * math.pi, 9)
    wall = [(r * (0.45 + 0.55 * math.sin(b)), 0.003 + (h - 0.003) * (1 - math.cos(b))) for b in bend]
    outside = lathe([(0, 0), (0.42 * r, 0), *wall], 40)
    inside = lathe([wall[-1], *((x - 0.004, z + 0.003) for x, z in wall[-2::-1]), (0, 0.006)], 40)
    skin, lining = plain(colour, 32), plain(colour if rng.random() < 0.5 else (236, 232, 222), 32)
    if rng.random() < 0.5:
        skin[26:29] = lining[3:6] = _contrast(colour)
    mesh, texture = join([(outside, finished(skin)), (inside, finished(lining))])
    solids = (Solid("cylinder", (0.55 * r, 0.5 * 0.35 * h), (0, 0, 0.5 * 0.35 * h)), *_ring(0.93 * r, h, 0.014 * scale))
    yaws = tuple(2 * math.pi * np.arange(14) / 14)
    return Shape(mesh, texture, solids, 350, Grip((0.93 * r, 0, h - 0.018), yaws, 0.014 * scale, on_rim=True), 0.45)


def _plate(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.105 * scale, 0.018
    outside = lathe([(0, 0), (0.6 * r, 0), (r, h - 0.002), (r, h)], 48)
    inside = lathe([(r, h), (0.68 * r, 0.007), (0.6 * r, 0.005), (0, 0.005)], 48)
    face = plain(colour, 48)
    if rng.random() < 0.6:
        first = int(rng.integers(2, 6))
        face[first : first + 3] = _contrast(colour)
    mesh, texture = join([(outside, finished(plain(colour))), (inside, finished(face))])
    solids = (Solid("cylinder", (0.62 * r, 0.003), (0, 0, 0.003)), Solid("cylinder", (r, 0.004), (0, 0, h - 0.005)))
    return Shape(mesh, texture, solids, 900, None, 0.5)


def _bottle(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.034 * scale, 0.215 * scale
    slim = float(rng.uniform(0.34, 0.42)) * r
    body = lathe(
        [(0, 0), (0.9 * r, 0), (r, 0.006), (r, 0.56 * h), (0.92 * r, 0.64 * h), (0.6 * r, 0.74 * h), (slim, 0.82 * h), (slim, 0.9 * h)]
    )
    cap_r = slim + 0.003
    cap = lathe([(slim, 0.9 * h), (cap_r, 0.9 * h), (cap_r, 0.985 * h), (cap_r - 0.002, h), (0, h)], 24)
    skin = plain(colour, 64)
    first, last = (14, 38) if rng.random() < 0.5 else (18, 34)
    skin[first:last] = _contrast(colour)
    for x in (32, 96):
        cv2.ellipse(skin, (x, (first + last) // 2), (17, 6), 0, 0, 360, (0.85 * colour).tolist(), -1, cv2.LINE_AA)
    cap_colour = ((235, 235, 230), (40, 40, 44), tuple(0.6 * colour))[int(rng.integers(3))]
    mesh, texture = join([(body, finished(skin)), (cap, finished(plain(cap_colour)))])
    solids = (Solid("cylinder", (r, 0.33 * h), (0, 0, 0.33 * h)), Solid("cylinder", (cap_r, 0.17 * h), (0, 0, 0.83 * h)))
    return Shape(mesh, texture, solids, 420, Grip((0, 0, 0.9 * h), _round_yaws(), 2 * cap_r), 0.6)


def _can(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.033 * scale, 0.115 * scale
    foot = lathe([(0, 0.003), (0.8 * r, 0.002), (0.86 * r, 0), (r, 0.008)])
    side = lathe([(r, 0.008), (r, h - 0.01)])
    top = lathe([(r, h - 0.01), (0.88 * r, h - 0.001), (0.84 * r, h), (0.8 * r, h - 0.004), (0, h - 0.004)])
    skin = plain(colour, 64)
    mark = _contrast(colour).tolist()
    if rng.random() < 0.5:
        for x in (32, 96):
            cv2.ellipse(skin, (x, 32), (20, 13), 0, 0, 360, mark, -1, cv2.LINE_AA)
            cv2.ellipse(skin, (x, 32), (9, 5), 0, 0, 360, colour.tolist(), -1, cv2.LINE_AA)
    else:
        wave = 32 + 10 * np.sin(np.linspace(0, 4 * np.pi, TEXTURE_WIDTH))
        rows = np.arange(64)[:, None]
        skin[np.abs(rows - wave[None]) < 5] = mark
    metal = finished(plain((196, 198, 202)))
    mesh, texture = join([(foot, metal), (side, finished(skin)), (top, metal)])
    solids = (Solid("cylinder", (r, 0.5 * h), (0, 0, 0.5 * h)),)
    return Shape(mesh, texture, solids, 600, Grip((0, 0, h - 0.03), _round_yaws(), 2 * r), 0.7)


def _printed(colour: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The six sides of a carton: a picture and lines of print."""
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 128))
    mark, accent = _contrast(colour).tolist(), (float(rng.integers(60, 200)), 150.0, 60.0)
    for index in (0, 1):
        x = TEXTURE_WIDTH * index
        cv2.circle(sides, (x + 64, 80), 34, mark, -1, cv2.LINE_AA)
        cv2.circle(sides, (x + 64, 80), 20, accent, -1, cv2.LINE_AA)
        cv2.rectangle(sides, (x + 18, 14), (x + 110, 30), mark, -1)
    for index in (2, 3):
        for y in range(24, 112, 12):
            cv2.line(sides, (TEXTURE_WIDTH * index + 20, y), (TEXTURE_WIDTH * index + int(rng.integers(70, 108)), y), mark, 3)
    return np.asarray(sides, np.float32)


def _cuboid(size: Sequence[float], texture: Float32Array, density: float, gloss: float, yaw: float = 0.0, sink: float = 0.03) -> Shape:
    """A box that is gripped ``sink`` below its top, or at its middle where it is low; yaw 0 closes along x."""
    width = size[0] if yaw == 0.0 else size[1]
    grip = Grip((0, 0, max(size[2] - sink, 0.45 * size[2])), (yaw, yaw + math.pi), width)
    narrow = cv2.resize(texture, (2 * TEXTURE_WIDTH, texture.shape[0]), interpolation=cv2.INTER_AREA)
    solid = Solid("box", (0.5 * size[0], 0.5 * size[1], 0.5 * size[2]), (0, 0, 0.5 * size[2]))
    return Shape(box(size), finished(narrow), (solid,), density, grip, gloss)


def _box(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    size = (0.052 * scale, 0.105 * scale, 0.158 * scale * float(rng.uniform(0.9, 1.1)))
    return _cuboid(size, _printed(colour, rng), 250, 0.2)


def _book(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    size = (0.098, 0.145 * scale, 0.026 * scale)
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 96))
    pages = np.asarray((232, 226, 206), np.float32) - 22 * (np.arange(72) % 6 < 2)[:, None, None]
    for index in (0, 2, 3):  # three sides show the pages between the covers
        sides[12:84, TEXTURE_WIDTH * index : TEXTURE_WIDTH * (index + 1)] = pages
    mark = _contrast(colour).tolist()
    x = 4 * TEXTURE_WIDTH
    cv2.rectangle(sides, (x + 16, 12), (x + 112, 84), mark, 3)
    cv2.rectangle(sides, (x + 34, 56), (x + 94, 72), mark, -1)
    return _cuboid(size, np.asarray(sides, np.float32), 350, 0.25, sink=0.012)


def _sponge(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    size = (0.068 * scale, 0.108 * scale, 0.034 * scale)
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 64))
    pores = clouds(rng, (64, 6 * TEXTURE_WIDTH), (16, 160), 2)
    sides = np.where((pores > 0.38)[..., None], 0.55 * sides, sides * (1 + 0.12 * pores[..., None]))
    sides[:16, : 4 * TEXTURE_WIDTH] = sides[:, 4 * TEXTURE_WIDTH : 5 * TEXTURE_WIDTH].mean(axis=(0, 1)) * 0.45  # the scouring side
    return _cuboid(size, np.asarray(sides, np.float32), 120, 0.0, sink=0.016)


def _cube(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    sides = cv2.resize(plain(colour, 2), (6 * TEXTURE_WIDTH, 64))
    if rng.random() < 0.5:
        for index in range(6):
            cv2.rectangle(sides, (TEXTURE_WIDTH * index + 14, 7), (TEXTURE_WIDTH * index + 114, 57), (0.72 * colour).tolist(), 5)
    return _cuboid((0.05 * scale,) * 3, np.asarray(sides, np.float32), 400, 0.25, sink=0.02)


def _ball(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r = 0.036 * scale
    turn = np.linspace(0, math.pi, 17)
    skin = plain(colour, 64)
    if rng.random() < 0.6:
        skin[28:36] = _contrast(colour)
    mesh, texture = join([(lathe([(r * math.sin(t), r - r * math.cos(t)) for t in turn], 32), finished(skin))])
    return Shape(mesh, texture, (Solid("ellipsoid", (r, r, r), (0, 0, r)),), 300, Grip((0, 0, 0.4 * r), _round_yaws(), 2 * r), 0.5)


def _car(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
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


def _teapot(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.046 * scale, 0.078 * scale
    turn = np.linspace(-1.25, 1.2, 13)
    belly = lathe([(0, 0), (0.6 * r, 0), *((r * math.cos(t), 0.5 * h + 0.53 * h * math.sin(t)) for t in turn), (0.3 * r, h), (0, h + 0.004)])
    knob = lathe([(0.006, h), (0.004, h + 0.006), (0.009, h + 0.012), (0.006, h + 0.018), (0, h + 0.019)], 16)
    t = np.linspace(0, 1, 10)
    spout = np.stack([0.8 * r + 0.042 * scale * t, 0 * t, 0.3 * h + 0.62 * h * t**1.6], -1)
    bend = np.linspace(0.5 * math.pi, 1.5 * math.pi, 14)
    handle = np.stack([-0.82 * r + 0.032 * scale * np.cos(bend), 0 * bend, 0.55 * h + 0.33 * h * np.sin(bend)], -1)
    skin = plain(colour, 48)
    if rng.random() < 0.5:
        skin[20:26] = _contrast(colour)
    paint = finished(plain(colour))
    dark = finished(plain(0.8 * colour))
    mesh, texture = join(
        [
            (belly, finished(skin)),
            (knob, dark),
            (tube(spout, np.linspace(0.011, 0.006, 10) * scale, 12), paint),
            (tube(handle, 0.0055 * scale, 10), paint),
        ]
    )
    solids = (
        Solid("cylinder", (0.99 * r, 0.42 * h), (0, 0, 0.46 * h)),
        Solid("cylinder", (0.7 * r, 0.5 * h), (0, 0, 0.5 * h)),
        Solid("capsule", (0.008 * scale, 0.024 * scale), (1.2 * r, 0, 0.62 * h), (0.0, 0.85, 0.0)),
        Solid("box", (0.012 * scale, 0.005, 0.3 * h), (-1.3 * r, 0, 0.55 * h)),
    )
    return Shape(mesh, texture, solids, 450, Grip((0, 0, 0.3 * h), (math.pi / 2, -math.pi / 2), 2 * r), 0.6)


def _pan(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.078 * scale, 0.034 * scale
    outside = lathe([(0, 0), (0.88 * r, 0), (r, h), (0.98 * r, h)], 44)
    inside = lathe([(0.98 * r, h), (0.86 * r, 0.004), (0, 0.004)], 44)
    handle = tube(np.stack([np.linspace(0.97, 2.15, 8) * r, np.zeros(8), np.linspace(0.75, 0.95, 8) * h], -1), [0.008] * 7 + [0.003], 10, 1.2)
    dark = finished(plain((52, 52, 56)))
    lining = finished(plain(0.72 * colour))
    mesh, texture = join([(outside, finished(plain(colour))), (inside, lining), (handle, dark)])
    solids = (
        Solid("cylinder", (0.9 * r, 0.004), (0, 0, 0.004)),
        *_ring(0.95 * r, h, 0.010),
        Solid("box", (0.6 * r, 0.009, 0.008), (1.56 * r, 0, 0.85 * h)),
    )
    return Shape(mesh, texture, solids, 600, Grip((1.3 * r, 0, 0.6 * h), (math.pi / 2, -math.pi / 2), 0.018), 0.4)


def _hammer(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    length, r = 0.21 * scale, 0.0125 * scale
    x = np.linspace(-0.5 * length, 0.42 * length, 9)
    shaft = tube(np.stack([x, 0 * x, 0 * x + r], -1), [0.4 * r, r, r, 0.95 * r, 0.85 * r, 0.8 * r, 0.8 * r, 0.8 * r, 0.8 * r], 12)
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


def _banana(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
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
        Solid("capsule", (0.9 * thick, 0.018 * scale), (reach * math.sin(t), reach * (0.78 - math.cos(t)), 0.92 * thick), (0, math.pi / 2, t))
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
    solids = (Solid("ellipsoid", (r, r, 0.5 * top), (0, 0, 0.5 * top)), Solid("cylinder", (0.5 * r, 0.2 * top), (0, 0, 0.2 * top)))
    return Shape(mesh, texture, solids, 600, Grip((0, 0, 0.25 * top), _round_yaws(), 2 * r), gloss)


def _apple(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
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


def _lemon(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
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


def _pear(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.034 * scale, 0.094 * scale
    t = np.linspace(0, 1, 20)
    radius = r * np.where(t < 0.45, np.sqrt(np.clip(1 - ((t - 0.38) / 0.385) ** 2, 0, 1)), 0)
    upper = (t - 0.45) / 0.55
    neck = r * (0.98 - 0.62 * np.clip(upper, 0, 1) ** 0.8) * np.sqrt(np.clip(1 - np.clip(upper, 0, 1) ** 6, 0, 1))
    radius = np.where(t < 0.45, radius, neck)
    radius[0] = radius[-1] = 0.0
    skin = plain(colour, 64) * (1 + 0.1 * clouds(rng, (64, TEXTURE_WIDTH), (6, 10))[..., None])
    return _fruit(list(zip(radius.tolist(), (h * t).tolist(), strict=True)), skin, True, 0.25)


_MAKERS: dict[str, Callable[[Float32Array, float, np.random.Generator], Shape]] = {
    "mug": _mug,
    "bowl": _bowl,
    "plate": _plate,
    "bottle": _bottle,
    "can": _can,
    "box": _box,
    "book": _book,
    "sponge": _sponge,
    "cube": _cube,
    "ball": _ball,
    "car": _car,
    "teapot": _teapot,
    "pan": _pan,
    "hammer": _hammer,
    "banana": _banana,
    "apple": _apple,
    "lemon": _lemon,
    "pear": _pear,
}
