"""Shapes of what holds something: mug, bowl, plate, bottle, can, teapot and pan."""

from __future__ import annotations

import math

import cv2
import numpy as np

from decaf_ros.datatypes import Float32Array
from decaf_ros.synthetic.table.meshes import TEXTURE_WIDTH, finished, join, lathe, plain, tube
from decaf_ros.synthetic.table.shapes import Grip, Shape, Solid, all_round, contrast, ring


def make_mug(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.041 * scale, 0.092 * scale * float(rng.uniform(0.92, 1.08))
    outside = lathe([(0, 0), (r - 0.003, 0), (r, 0.004), (r, h - 0.001), (r - 0.0015, h)], 36)
    inside = lathe([(r - 0.0015, h), (r - 0.004, h - 0.002), (r - 0.004, 0.008), (0, 0.007)], 36)
    turn = np.linspace(-1.9, 1.9, 16)
    handle = np.stack([r + 0.006 + 0.022 * scale * np.cos(turn), 0 * turn, 0.5 * h + 0.31 * h * np.sin(turn)], -1)
    skin = plain(colour, 48)
    style = int(rng.integers(3))
    if style == 1:
        skin[24:34] = contrast(colour)
    elif style == 2:
        for x in range(8, TEXTURE_WIDTH, 21):
            cv2.circle(skin, (x, 29), 4, contrast(colour).tolist(), -1, cv2.LINE_AA)
    lining = colour if rng.random() < 0.5 else np.asarray((232, 228, 218), np.float32)
    grip = tube(handle, 0.006 * scale, 10, flatten=1.25)
    mesh, texture = join([(outside, finished(skin)), (inside, finished(plain(lining))), (grip, finished(plain(colour)))])
    solids = (
        Solid("cylinder", (r, 0.5 * h), (0, 0, 0.5 * h)),
        Solid("box", (0.013 * scale, 0.006, 0.3 * h), (r + 0.015 * scale, 0, 0.5 * h)),
    )
    return Shape(mesh, texture, solids, 450, Grip((0, 0, h - 0.03), (math.pi / 2,), 2 * r), 0.5)


def make_bowl(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.070 * scale, 0.052 * scale * float(rng.uniform(0.9, 1.15))
    bend = np.linspace(0.0, 0.5 * math.pi, 9)
    wall = [(r * (0.45 + 0.55 * math.sin(b)), 0.003 + (h - 0.003) * (1 - math.cos(b))) for b in bend]
    outside = lathe([(0, 0), (0.42 * r, 0), *wall], 40)
    inside = lathe([wall[-1], *((x - 0.004, z + 0.003) for x, z in wall[-2::-1]), (0, 0.006)], 40)
    skin, lining = plain(colour, 32), plain(colour if rng.random() < 0.5 else (236, 232, 222), 32)
    if rng.random() < 0.5:
        skin[26:29] = lining[3:6] = contrast(colour)
    mesh, texture = join([(outside, finished(skin)), (inside, finished(lining))])
    solids = (Solid("cylinder", (0.55 * r, 0.5 * 0.35 * h), (0, 0, 0.5 * 0.35 * h)), *ring(0.93 * r, h, 0.014 * scale))
    yaws = tuple(2 * math.pi * np.arange(14) / 14)
    return Shape(mesh, texture, solids, 350, Grip((0.93 * r, 0, h - 0.018), yaws, 0.014 * scale, on_rim=True), 0.45)


def make_plate(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.105 * scale, 0.018
    outside = lathe([(0, 0), (0.6 * r, 0), (r, h - 0.002), (r, h)], 48)
    inside = lathe([(r, h), (0.68 * r, 0.007), (0.6 * r, 0.005), (0, 0.005)], 48)
    face = plain(colour, 48)
    if rng.random() < 0.6:
        first = int(rng.integers(2, 6))
        face[first : first + 3] = contrast(colour)
    mesh, texture = join([(outside, finished(plain(colour))), (inside, finished(face))])
    solids = (Solid("cylinder", (0.62 * r, 0.003), (0, 0, 0.003)), Solid("cylinder", (r, 0.004), (0, 0, h - 0.005)))
    return Shape(mesh, texture, solids, 900, None, 0.5)


def make_bottle(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.034 * scale, 0.215 * scale
    slim = float(rng.uniform(0.34, 0.42)) * r
    body = lathe(
        [
            (0, 0),
            (0.9 * r, 0),
            (r, 0.006),
            (r, 0.56 * h),
            (0.92 * r, 0.64 * h),
            (0.6 * r, 0.74 * h),
            (slim, 0.82 * h),
            (slim, 0.9 * h),
        ]
    )
    cap_r = slim + 0.003
    cap = lathe([(slim, 0.9 * h), (cap_r, 0.9 * h), (cap_r, 0.985 * h), (cap_r - 0.002, h), (0, h)], 24)
    skin = plain(colour, 64)
    first, last = (14, 38) if rng.random() < 0.5 else (18, 34)
    skin[first:last] = contrast(colour)
    for x in (32, 96):
        cv2.ellipse(skin, (x, (first + last) // 2), (17, 6), 0, 0, 360, (0.85 * colour).tolist(), -1, cv2.LINE_AA)
    cap_colour = ((235, 235, 230), (40, 40, 44), tuple(0.6 * colour))[int(rng.integers(3))]
    mesh, texture = join([(body, finished(skin)), (cap, finished(plain(cap_colour)))])
    solids = (Solid("cylinder", (r, 0.33 * h), (0, 0, 0.33 * h)), Solid("cylinder", (cap_r, 0.17 * h), (0, 0, 0.83 * h)))
    return Shape(mesh, texture, solids, 420, Grip((0, 0, 0.9 * h), all_round(), 2 * cap_r), 0.6)


def make_can(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.033 * scale, 0.115 * scale
    foot = lathe([(0, 0.003), (0.8 * r, 0.002), (0.86 * r, 0), (r, 0.008)])
    side = lathe([(r, 0.008), (r, h - 0.01)])
    top = lathe([(r, h - 0.01), (0.88 * r, h - 0.001), (0.84 * r, h), (0.8 * r, h - 0.004), (0, h - 0.004)])
    skin = plain(colour, 64)
    mark = contrast(colour).tolist()
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
    return Shape(mesh, texture, solids, 600, Grip((0, 0, h - 0.03), all_round(), 2 * r), 0.7)


def make_teapot(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.046 * scale, 0.078 * scale
    turn = np.linspace(-1.25, 1.2, 13)
    belly = lathe(
        [
            (0, 0),
            (0.6 * r, 0),
            *((r * math.cos(t), 0.5 * h + 0.53 * h * math.sin(t)) for t in turn),
            (0.3 * r, h),
            (0, h + 0.004),
        ]
    )
    knob = lathe([(0.006, h), (0.004, h + 0.006), (0.009, h + 0.012), (0.006, h + 0.018), (0, h + 0.019)], 16)
    t = np.linspace(0, 1, 10)
    spout = np.stack([0.8 * r + 0.042 * scale * t, 0 * t, 0.3 * h + 0.62 * h * t**1.6], -1)
    bend = np.linspace(0.5 * math.pi, 1.5 * math.pi, 14)
    handle = np.stack([-0.82 * r + 0.032 * scale * np.cos(bend), 0 * bend, 0.55 * h + 0.33 * h * np.sin(bend)], -1)
    skin = plain(colour, 48)
    if rng.random() < 0.5:
        skin[20:26] = contrast(colour)
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


def make_pan(colour: Float32Array, scale: float, rng: np.random.Generator) -> Shape:
    r, h = 0.078 * scale, 0.034 * scale
    outside = lathe([(0, 0), (0.88 * r, 0), (r, h), (0.98 * r, h)], 44)
    inside = lathe([(0.98 * r, h), (0.86 * r, 0.004), (0, 0.004)], 44)
    handle = tube(
        np.stack([np.linspace(0.97, 2.15, 8) * r, np.zeros(8), np.linspace(0.75, 0.95, 8) * h], -1),
        [0.008] * 7 + [0.003],
        10,
        1.2,
    )
    dark = finished(plain((52, 52, 56)))
    lining = finished(plain(0.72 * colour))
    mesh, texture = join([(outside, finished(plain(colour))), (inside, lining), (handle, dark)])
    solids = (
        Solid("cylinder", (0.9 * r, 0.004), (0, 0, 0.004)),
        *ring(0.95 * r, h, 0.010),
        Solid("box", (0.6 * r, 0.009, 0.008), (1.56 * r, 0, 0.85 * h)),
    )
    return Shape(mesh, texture, solids, 600, Grip((1.3 * r, 0, 0.6 * h), (math.pi / 2, -math.pi / 2), 0.018), 0.4)
