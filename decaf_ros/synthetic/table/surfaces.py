"""Textures of the room: table tops, floors and walls."""

from __future__ import annotations

import numpy as np

from decaf_ros.datatypes import Float32Array, UInt8Array
from decaf_ros.synthetic.table.meshes import clouds, finished

_PIXELS = 512
_WOODS = {"oak": ((176, 132, 84), (200, 158, 108), (150, 108, 66)), "walnut": ((98, 66, 44), (120, 80, 52), (78, 54, 40))}


def table_top(name: str, rng: np.random.Generator) -> UInt8Array:
    """``(512, 512, 3)`` uint8 of one of the scene's ``TABLE_TOPS``."""
    size = (_PIXELS, _PIXELS)
    if name in _WOODS:
        return finished(_planks(_WOODS[name][int(rng.integers(3))], int(rng.integers(4, 8)), rng))
    if name == "marble":
        folded = np.abs(np.sin(np.linspace(0, 9, _PIXELS)[None] + 4 * clouds(rng, size, (3, 3), 6)))
        veins = np.clip(1 - 9 * folded, 0, 1)[..., None]
        return finished(
            np.asarray(((196, 194, 188), (168, 170, 174))[int(rng.integers(2))], np.float32)
            * (1 - 0.3 * veins)
            * (1 + 0.05 * clouds(rng, size, (4, 4))[..., None])
        )
    if name == "cloth":
        base = np.asarray(
            ((150, 164, 186), (168, 178, 158), (190, 172, 160), (160, 160, 164))[int(rng.integers(4))], np.float32
        )
        stripe = ((np.arange(_PIXELS) // 32) % 2).astype(np.float32)
        checks = 1 - 0.1 * stripe[:, None] - 0.1 * stripe[None]
        return finished(base * (checks * (1 + 0.06 * rng.standard_normal(size).astype(np.float32)))[..., None])
    if name == "laminate":
        base = np.asarray(((188, 188, 182), (150, 156, 162), (184, 172, 152))[int(rng.integers(3))], np.float32)
        return finished(base * (1 + 0.025 * clouds(rng, size, (40, 40), 2))[..., None])
    base = np.asarray(((128, 128, 126), (104, 106, 108))[int(rng.integers(2))], np.float32)  # concrete
    return finished(
        base * (1 + 0.12 * clouds(rng, size, (6, 6), 6) + 0.02 * rng.standard_normal(size).astype(np.float32))[..., None]
    )


def floor(name: str, rng: np.random.Generator) -> UInt8Array:
    """``(512, 512, 3)`` uint8 of one of the scene's ``FLOORS``."""
    size = (_PIXELS, _PIXELS)
    if name == "boards":
        return finished(0.8 * _planks((150, 116, 82), 8, rng))
    if name == "tiles":
        base = np.asarray(((176, 176, 170), (150, 138, 124), (120, 128, 136))[int(rng.integers(3))], np.float32)
        joint = (np.arange(_PIXELS) % 128 < 4)[:, None] | (np.arange(_PIXELS) % 128 < 4)[None]
        return finished(base * np.where(joint, 0.6, 1 + 0.05 * clouds(rng, size, (4, 4)))[..., None])
    base = np.asarray(((96, 88, 92), (84, 98, 104), (120, 104, 88))[int(rng.integers(3))], np.float32)  # carpet
    return finished(base * (1 + 0.12 * rng.standard_normal(size).astype(np.float32))[..., None])


def surroundings(wall_rgb: tuple[float, float, float], rng: np.random.Generator) -> UInt8Array:
    """``(6 * 64, 64, 3)`` uint8 faces of a cube around it all: +x, -x, up, down, and two more walls."""
    side = 64
    across = np.linspace(-1, 1, side, dtype=np.float32)
    base = 255 * np.asarray(wall_rgb, dtype=np.float32)
    faces = []
    for index in range(6):
        corners = 1 - 0.10 * across[None, :] ** 4 - 0.06 * across[:, None]
        face = base * (float(rng.uniform(0.82, 1.0)) * corners)[..., None]
        if index in (0, 1, 4, 5) and rng.random() < 0.4:  # something on the wall: a window, a picture, a cupboard
            width, height = int(rng.integers(10, 26)), int(rng.integers(8, 16))
            x, y = int(rng.integers(0, side - width)), int(rng.integers(14, 30))
            face[y : y + height, x : x + width] = rng.uniform(60, 240) * (1 + rng.uniform(-0.1, 0.1, 3))
        faces.append(face)
    return finished(np.concatenate(faces))


def _planks(base_rgb: tuple[int, int, int], count: int, rng: np.random.Generator) -> Float32Array:
    """Wood in planks along the columns, each with a grain of its own."""
    size = (_PIXELS, _PIXELS)
    row = np.arange(_PIXELS) * count // _PIXELS
    shade = rng.uniform(0.9, 1.1, count).astype(np.float32)[row][:, None]
    grain = 1 + 0.16 * clouds(rng, size, (60, 3), 4) + 0.05 * clouds(rng, size, (5, 5), 3)
    planks = np.asarray(base_rgb, np.float32) * (shade * grain)[..., None]
    planks[np.diff(row, prepend=row[0]) > 0] *= 0.55
    return planks
