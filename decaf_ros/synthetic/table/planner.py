"""Where things stand when a scene begins, and what the arm shall do: drawn so that it is likely to come off."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.catalogue import KINDS
from decaf_ros.synthetic.table.kinematics import HandPose, is_reachable
from decaf_ros.synthetic.table.scene import ASPECT, ROBOT_XY, TABLE_X, TABLE_Y, Action, Camera, Thing
from decaf_ros.synthetic.table.things import make_shape

Float64Array = npt.NDArray[np.float64]
WORK_X, WORK_Y = (-0.17, 0.25), (-0.29, 0.29)  # where things stand, before the camera


class Planner:
    """Places things, and plans actions that are likely to come off, keeping track of where everything will be.

    Attributes:
        things: as they stand when the scene begins.
    """

    def __init__(self, rng: np.random.Generator, camera: Camera, looks: list[tuple[str, str]]) -> None:
        self._rng, self._camera = rng, camera
        self._gap = float(rng.uniform(0.02, 0.05))
        self._sociable = int(rng.integers(0, 3))  # things stand beside each other where it is 0, and sometimes where it is 1
        self._things: list[Thing] = []
        self._radii: list[float] = []
        self._heights: list[float] = []
        self._xy: list[Float64Array] = []
        self._handled: set[int] = set()
        self._toppled: set[int] = set()
        self._hidden = int(rng.integers(len(looks))) if rng.random() < 0.45 and len(looks) > 2 else None
        for index, (kind, colour) in enumerate(looks):
            self._add(kind, colour, index == self._hidden)
        if self._hidden is not None and self._hidden >= len(self._things):
            self._hidden = None

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(self._things)

    def plan(self) -> tuple[Action, ...]:
        """What the arm does: one to three deeds with pauses."""
        rng = self._rng
        actions: list[Action] = [_wait(rng.uniform(0.0, 1.2))]
        if rng.random() < 0.05:
            return tuple(actions)
        if self._hidden is not None:
            actions += self._carry(self._hidden, self._free_place(self._hidden)) or []
            self._handled.add(self._hidden)
        deeds = int(rng.integers(1, 4))
        for last in [False] * (deeds - 1) + [True]:
            actions += self._deed(last)
            actions.append(_wait(rng.uniform(0.0, 2.5)))
        return tuple(actions)

    def _deed(self, last: bool) -> list[Action]:
        """Something with some thing; nothing when nothing fits."""
        for _ in range(12):
            deed = str(self._rng.choice(["carry", "push", "topple", "take away", "hold"], p=[0.30, 0.17, 0.27, 0.12, 0.14]))
            thing = self._choose(deed)
            if thing is None or (deed == "hold" and not last):
                continue
            actions: list[Action] | None = [Action("pick", thing)]
            if deed == "carry":
                actions = self._carry(thing, self._free_place(thing))
            elif deed == "take away":
                actions = self._carry(thing, self._hidden_place(thing))
            elif deed == "push":
                actions = self._shove("push", thing, float(self._rng.uniform(0.07, 0.16)))
            elif deed == "topple":
                actions = self._shove("topple", thing, 0.45 * self._heights[thing] + self._radii[thing])
            if actions:
                self._handled.add(thing)
                return actions
        return []

    def _choose(self, deed: str) -> int | None:
        """A thing in view that this can be done to, preferably one of several of a kind, and one that was left alone so far."""
        kinds = [thing.kind for thing in self._things]
        fit = []
        for index, name in enumerate(kinds):
            kind = KINDS[name]
            possible = kind.upright if deed == "topple" else True if deed == "push" else kind.liftable
            if possible and index not in self._toppled and self._is_shown(self._xy[index]):
                fit.append(index)
        for preferred, odds in (
            ([i for i in fit if i not in self._handled], 0.75),
            ([i for i in fit if kinds.count(kinds[i]) > 1], 0.6),
        ):
            if preferred and self._rng.random() < odds:
                fit = preferred
        return int(self._rng.choice(fit)) if fit else None

    def _carry(self, thing: int, xy: Float64Array | None) -> list[Action] | None:
        if xy is None:
            return None
        self._xy[thing] = xy
        return [Action("pick", thing), _wait(self._rng.choice([0.0, 0.0, 0.8])), Action("place", xy=_pair(xy))]

    def _shove(self, verb: str, thing: int, way: float) -> list[Action] | None:
        """Along a direction in which nothing stands, neither where the hand comes down nor where the thing goes."""
        for _ in range(40):
            turn = float(self._rng.uniform(-math.pi, math.pi))
            ahead = np.array([math.cos(turn), math.sin(turn)])
            here, there = self._xy[thing], self._xy[thing] + way * ahead
            reach = there + ahead * (self._heights[thing] if verb == "topple" else 0.0)
            behind = here - ahead * (self._radii[thing] + 0.06)
            others = [index for index in range(len(self._things)) if index != thing]
            clear = all(
                _distance_to_segment(self._xy[other], behind, reach) > self._radii[other] + max(self._radii[thing], 0.045)
                for other in others
            )
            if (
                clear
                and _inside_work(there, 0.04)
                and _inside_work(reach, 0.12)
                and _within_reach(behind)
                and _within_reach(there)
            ):
                self._xy[thing] = there if verb == "push" else 0.5 * (there + reach)
                if verb == "topple":  # it lies now, longer than it was wide
                    self._radii[thing] = max(self._radii[thing], 0.6 * self._heights[thing])
                    self._toppled.add(thing)
                return [Action(verb, thing, _pair(there))]
        return None

    def _add(self, kind: str, colour: str, hidden: bool) -> None:
        rng = self._rng
        scale, seed = float(rng.uniform(*KINDS[kind].scales)), int(rng.integers(2**31))
        vertices = make_shape(kind, colour, scale, seed).mesh.vertices_n3
        self._radii.append(float(np.linalg.norm(vertices[:, :2], axis=1).max()))
        self._heights.append(float(vertices[:, 2].max()))
        self._xy.append(np.full(2, np.inf))
        index = len(self._radii) - 1
        xy = self._hidden_place(index) if hidden and KINDS[kind].liftable else None
        if xy is None:
            xy = self._free_place(index, near=0.0)
            self._hidden = None if hidden else self._hidden
        if xy is None:  # the table is full
            for numbers in (self._radii, self._heights, self._xy):
                numbers.pop()
            return
        self._xy[index] = xy
        self._things.append(Thing(kind, colour, scale, _pair(xy), float(rng.uniform(-math.pi, math.pi)), seed))

    def _free_place(self, thing: int, near: float = 0.12) -> Float64Array | None:
        """A place before the camera where nothing else stands, not nearer than so to where the thing is."""
        neighbours = [index for index, xy in enumerate(self._xy) if index != thing and self._is_shown(xy)]
        for attempt in range(60):
            xy = np.array([self._rng.uniform(*WORK_X), self._rng.uniform(*WORK_Y)])
            if attempt < 20 and neighbours and attempt % 2 == self._sociable:  # right beside another one
                other, turn = int(self._rng.choice(neighbours)), float(self._rng.uniform(-math.pi, math.pi))
                apart = self._radii[thing] + self._radii[other] + self._gap + 0.005
                xy = self._xy[other] + apart * np.array([math.cos(turn), math.sin(turn)])
            away = float(np.linalg.norm(xy - self._xy[thing]))
            if away >= near and self._is_free(thing, xy) and _inside_work(xy, 0.0) and _within_reach(xy):
                return xy
        return None

    def _hidden_place(self, thing: int) -> Float64Array | None:
        """A place on the table that the camera never sees."""
        for _ in range(200):
            xy = np.array([self._rng.uniform(-0.62, 0.4), self._rng.choice([-1, 1]) * self._rng.uniform(0.32, TABLE_Y[1])])
            on_table = TABLE_X[0] + 0.12 < xy[0] < TABLE_X[1] - 0.12 and abs(xy[1]) < TABLE_Y[1] - 0.12
            if on_table and _within_reach(xy) and self._is_free(thing, xy) and not self._may_be_seen(thing, xy):
                return xy
        return None

    def _is_free(self, thing: int, xy: Float64Array) -> bool:
        return all(
            float(np.linalg.norm(xy - other)) > self._radii[thing] + self._radii[index] + self._gap
            for index, other in enumerate(self._xy)
            if index != thing and np.isfinite(other).all()
        )

    def _is_shown(self, xy: Float64Array) -> bool:
        return WORK_X[0] - 0.05 < xy[0] < WORK_X[1] + 0.05 and WORK_Y[0] - 0.05 < xy[1] < WORK_Y[1] + 0.05

    def _may_be_seen(self, thing: int, xy: Float64Array) -> bool:
        """Whether any of the thing there is in the image at any time, with a margin."""
        radius, height = self._radii[thing] + 0.01, self._heights[thing] + 0.01
        corners = np.array([[x, y, z] for x in (-radius, radius) for y in (-radius, radius) for z in (0.0, height)])
        tangent = math.tan(0.5 * self._camera.fov_y)
        times = np.linspace(0.0, 18.0, 13) if self._camera.moves else (0.0,)
        for time_s in times:
            pose = self._camera.world_from_camera(float(time_s))
            points = (corners + np.array([*xy, 0.0]) - pose[:3, 3]) @ pose[:3, :3]
            x, y = points[:, 0] / points[:, 2] / (ASPECT * tangent), points[:, 1] / points[:, 2] / tangent
            outside = x.min() > 1 or x.max() < -1 or y.min() > 1 or y.max() < -1
            if points[:, 2].min() > 0.05 and not outside:
                return True
        return False


def _wait(seconds: float) -> Action:
    return Action("wait", seconds=float(seconds))


def _pair(xy: Float64Array) -> tuple[float, float]:
    return float(xy[0]), float(xy[1])


def _within_reach(xy: Float64Array) -> bool:
    """Whether the hand can come down there, and go over it with something tall."""
    if math.hypot(xy[0] - ROBOT_XY[0], xy[1] - ROBOT_XY[1]) < 0.27:
        return False
    return all(is_reachable(HandPose.above((*xy, height), 0.0)) for height in (0.01, 0.40))


def _inside_work(xy: Float64Array, margin: float) -> bool:
    return bool(WORK_X[0] - margin < xy[0] < WORK_X[1] + margin and WORK_Y[0] - margin < xy[1] < WORK_Y[1] + margin)


def _distance_to_segment(point: Float64Array, start: Float64Array, end: Float64Array) -> float:
    along = end - start
    share = float(np.clip((point - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0))
    return float(np.linalg.norm(point - start - share * along))
