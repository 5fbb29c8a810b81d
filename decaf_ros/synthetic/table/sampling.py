"""Scenes drawn from a seed: what stands where, what the arm does, who looks on.

Seeds below :data:`FIRST_TRAINING_SEED` are held out: evaluation, tests and demo take theirs there, training above.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.arm import HandPose, is_reachable
from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS
from decaf_ros.synthetic.table.scene import (
    ASPECT,
    FLOORS,
    ROBOT_XY,
    TABLE_TOPS,
    TABLE_X,
    TABLE_Y,
    Action,
    Camera,
    Look,
    Scene,
    Thing,
)
from decaf_ros.synthetic.table.shapes import make_shape

FIRST_TRAINING_SEED = 1_000_000
_SECONDS = {"pick": 2.1, "place": 1.9, "push": 2.9, "topple": 2.7, "wait": 0.0}  # about what each takes
WORK_X, WORK_Y = (-0.17, 0.25), (-0.29, 0.29)  # where things stand, before the camera

Float64Array = npt.NDArray[np.float64]


def require_held_out(seed: int) -> int:
    """The seed, unless models may have been trained on its scene.

    Raises:
        ValueError: it is one of the training seeds.
    """
    if not 0 <= seed < FIRST_TRAINING_SEED:
        raise ValueError(f"seed {seed} is not held out: those are 0 to {FIRST_TRAINING_SEED - 1}, models are trained on later ones")
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
    planner = _Planner(rng, camera, _sample_looks(rng))
    actions = planner.plan()
    busy_s = sum(_SECONDS[action.verb] + action.seconds for action in actions)
    return Scene(planner.things, actions, camera, _sample_look(rng), duration_s=max(8.0, busy_s + float(rng.uniform(0.3, 4.0))))


def _sample_camera(rng: np.random.Generator) -> Camera:
    moves = rng.random() < 0.35
    sway = (float(rng.uniform(0.05, 0.22)), float(rng.uniform(0.0, 0.08)), float(rng.uniform(0.0, 0.07))) if moves else (0.0, 0.0, 0.0)
    return Camera(
        target=(float(rng.uniform(0.0, 0.08)), float(rng.uniform(-0.04, 0.04)), float(rng.uniform(0.04, 0.09))),
        distance=float(rng.uniform(0.82, 1.05)),
        azimuth=float(rng.uniform(-1.25, 1.25)),
        elevation=float(rng.uniform(0.45, 0.95)),
        fov_y=float(rng.uniform(0.70, 0.84)),
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
        looks[-1] = (kind, str(rng.choice([colour for colour in KINDS[kind].colours if colour != looks[0][1]] or [looks[0][1]])))
    return looks


class _Planner:
    """Places things, and plans actions that are likely to come off, keeping track of where everything will be.

    Attributes:
        things: as they stand when the scene begins.
    """

    def __init__(self, rng: np.random.Generator, camera: Camera, looks: list[tuple[str, str]]) -> None:
        self._rng, self._camera = rng, camera
        self._gap = float(rng.uniform(0.02, 0.05))
        self._things: list[Thing] = []
        self._radii: list[float] = []
        self._heights: list[float] = []
        self._xy: list[Float64Array] = []
        self._handled: set[int] = set()
        self._toppled: set[int] = set()
        self._hidden = int(rng.integers(len(looks))) if rng.random() < 0.22 and len(looks) > 2 else None
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
            deed = str(self._rng.choice(["carry", "push", "topple", "take away", "hold"], p=[0.36, 0.20, 0.18, 0.10, 0.16]))
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
        """A thing in view that this can be done to, preferably one of several of a kind, and one that nothing was done to yet."""
        kinds = [thing.kind for thing in self._things]
        fit = []
        for index, name in enumerate(kinds):
            kind = KINDS[name]
            possible = kind.upright if deed == "topple" else True if deed == "push" else kind.liftable
            if possible and index not in self._toppled and self._is_shown(self._xy[index]):
                fit.append(index)
        for preferred, odds in (([i for i in fit if i not in self._handled], 0.75), ([i for i in fit if kinds.count(kinds[i]) > 1], 0.6)):
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
        for _ in range(20):
            turn = float(self._rng.uniform(-math.pi, math.pi))
            ahead = np.array([math.cos(turn), math.sin(turn)])
            here, there = self._xy[thing], self._xy[thing] + way * ahead
            reach = there + ahead * (self._heights[thing] if verb == "topple" else 0.0)
            behind = here - ahead * (self._radii[thing] + 0.06)
            others = [index for index in range(len(self._things)) if index != thing]
            clear = all(
                _distance_to_segment(self._xy[other], behind, reach) > self._radii[other] + max(self._radii[thing], 0.05)
                for other in others
            )
            if clear and all(_inside_work(point, 0.04) for point in (there, reach)) and _within_reach(behind) and _within_reach(there):
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
        for _ in range(60):
            xy = np.array([self._rng.uniform(*WORK_X), self._rng.uniform(*WORK_Y)])
            away = float(np.linalg.norm(xy - self._xy[thing]))
            if away >= near and self._is_free(thing, xy) and _within_reach(xy):
                return xy
        return None

    def _hidden_place(self, thing: int) -> Float64Array | None:
        """A place on the table that the camera never sees."""
        for _ in range(80):
            xy = np.array([self._rng.uniform(-0.62, 0.4), self._rng.choice([-1, 1]) * self._rng.uniform(0.34, 0.62)])
            on_table = TABLE_X[0] + 0.1 < xy[0] < TABLE_X[1] - 0.1 and abs(xy[1]) < TABLE_Y[1] - 0.1
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
            points = (corners + [*xy, 0.0] - pose[:3, 3]) @ pose[:3, :3]
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


assert set(COLOURS_RGB) >= {colour for kind in KINDS.values() for colour in kind.colours}
