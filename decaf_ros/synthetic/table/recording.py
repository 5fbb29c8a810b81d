"""What was simulated: where everything was and who touched it, at any time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property

import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import UInt8Array
from decaf_ros.synthetic.table.scene import Action, Scene
from decaf_ros.synthetic.table.shapes import Shape

Float64Array = npt.NDArray[np.float64]
ARM_NUMBERS = 7  # five joints and two fingers come first in qpos


class Touch(IntFlag):
    """Who touches a thing."""

    LEFT = 1  # finger, with its inner side
    RIGHT = 2  # the same
    ARM = 4  # any part of it, fingers included
    GROUND = 8
    THING = 16


@dataclass(frozen=True, eq=False)
class Recording:
    """A scene that was played through.

    Attributes:
        scene: what was played.
        shapes: of its things.
        times_s: ``(T,)`` seconds from 0, evenly spaced.
        qpos_tq: ``(T, 7 + 7 * things)``: joints, fingers, then position and quaternion of each thing.
        touches_tn: ``(T, things)`` uint8 flags of :class:`Touch`.
        deepest_metres: how deep bodies pressed into each other, but for fingers.
        failed: actions that did not come off.
    """

    scene: Scene
    shapes: tuple[Shape, ...]
    times_s: Float64Array
    qpos_tq: Float64Array
    touches_tn: UInt8Array
    deepest_metres: float = 0.0
    failed: tuple[Action, ...] = ()

    def qpos_at(self, time_s: float) -> Float64Array:
        """``(7 + 7 * things,)`` at any time: in a straight line between two moments, and as at the first or last outside."""
        step = float(self.times_s[1] - self.times_s[0])
        exact = min(max(time_s / step, 0.0), len(self.times_s) - 1.0)
        first = min(int(exact), len(self.times_s) - 2)
        return between(self.qpos_tq[first], self.qpos_tq[first + 1], exact - first)

    def poses_at(self, time_s: float) -> Float64Array:
        """``(things, 4, 4)``: each thing's own frame in the world."""
        return poses_of(self.qpos_at(time_s))

    @cached_property
    def positions_tn3(self) -> Float64Array:
        """``(T, things, 3)`` origins of the things, which are the middles of their undersides."""
        positions: Float64Array = self.qpos_tq[:, ARM_NUMBERS:].reshape(len(self.times_s), -1, 7)[..., :3]
        return positions

    @cached_property
    def middles_tn3(self) -> Float64Array:
        """``(T, things, 3)`` middles of the things, which stay where they are when a thing turns on the spot or rolls over."""
        numbers = self.qpos_tq[:, ARM_NUMBERS:].reshape(len(self.times_s), -1, 7)
        vertices = [shape.mesh.vertices_n3 for shape in self.shapes]
        offsets = np.stack([0.5 * (each.min(axis=0) + each.max(axis=0)) for each in vertices])
        return numbers[..., :3] + np.einsum("tnij,nj->tni", rotations(numbers[..., 3:]), offsets)

    @cached_property
    def tilts_tn(self) -> Float64Array:
        """``(T, things)`` angles of the things' own z axes from the vertical, in radians."""
        quaternions = self.qpos_tq[:, ARM_NUMBERS:].reshape(len(self.times_s), -1, 7)[..., 3:]
        tilts: Float64Array = np.arccos(np.clip(rotations(quaternions)[..., 2, 2], -1.0, 1.0))
        return tilts


def between(before: Float64Array, after: Float64Array, share: float) -> Float64Array:
    """``(7 + 7 * things,)`` where all is at a share of the way from one moment to the next."""
    after = after.copy()
    for start in range(ARM_NUMBERS + 3, len(before), 7):  # a quaternion and its negative are the same rotation
        if before[start : start + 4] @ after[start : start + 4] < 0:
            after[start : start + 4] *= -1
    mixed = before + share * (after - before)
    for start in range(ARM_NUMBERS + 3, len(before), 7):
        mixed[start : start + 4] /= np.linalg.norm(mixed[start : start + 4])
    return np.asarray(mixed, dtype=np.float64)


def poses_of(qpos: Float64Array) -> Float64Array:
    """``(things, 4, 4)`` frames in the world from positions ``(7 + 7 * things,)``."""
    numbers = qpos[ARM_NUMBERS:].reshape(-1, 7)
    poses = np.tile(np.eye(4), (len(numbers), 1, 1))
    poses[:, :3, :3] = rotations(numbers[:, 3:])
    poses[:, :3, 3] = numbers[:, :3]
    return poses


def rotations(quaternions: Float64Array) -> Float64Array:
    """``(..., 3, 3)`` from unit quaternions ``(..., 4)`` with the real part first."""
    w, x, y, z = np.moveaxis(quaternions, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))
