"""A scene as pure data: what stands where, in which light, seen by which camera, and what the arm is to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from decaf_ros.strict_json import from_json, to_json
from decaf_ros.synthetic.table.catalogue import KINDS, require_known, require_look
from decaf_ros.text import brief, quoted

Float64Array = npt.NDArray[np.float64]
TABLE_TOPS = ("oak", "walnut", "marble", "cloth", "laminate", "concrete")
FLOORS = ("boards", "tiles", "carpet")
VERBS = ("pick", "place", "push", "topple", "wait")
# The world's frame: x away from the robot, y to its left, z up; the table's top is z = 0.
ROBOT_XY = (-0.50, 0.0)
TABLE_X, TABLE_Y = (-0.76, 0.52), (-0.86, 0.86)
MAX_THINGS = 8
ARM_LABEL = 255  # where pictures of instances show the arm; thing i has i + 1
_HUGE = 1e6
ASPECT = 4 / 3  # of the images for which it is said what is in view


@dataclass(frozen=True)
class Thing:
    """Something on the table.

    Attributes:
        kind, colour: words of the catalogue.
        scale: factor on the kind's usual size.
        xy, yaw: where it stands when the scene begins, in metres and radians.
        seed: of proportions and patterns.
    """

    kind: str
    colour: str
    scale: float
    xy: tuple[float, float]
    yaw: float
    seed: int = 0

    def __post_init__(self) -> None:
        require_look(self.kind, self.colour)
        if not 0.5 <= self.scale <= 1.5:
            raise ValueError(f"the scale of an object is 0.5 to 1.5, got {brief(self.scale)}")
        _require_on_table(self.xy)
        _require_finite(self.yaw, "the yaw of an object")
        _require_seed(self.seed)


@dataclass(frozen=True)
class Action:
    """Something that the arm does.

    Attributes:
        verb: ``pick`` lifts a thing; ``place`` puts what is held at ``xy``; ``push`` shoves a thing along the table to ``xy``;
            ``topple`` tips it over, towards ``xy``; ``wait`` rests for ``seconds``.
        thing: index of what is picked, pushed or toppled.
        xy: where to, in metres.
        seconds: how long to wait.
    """

    verb: str
    thing: int | None = None
    xy: tuple[float, float] | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_known(self.verb, VERBS, "action")
        if (self.verb in ("pick", "push", "topple")) != (self.thing is not None):
            raise ValueError(f"action {self.verb}: thing is for pick, push and topple, which need it")
        if (self.verb in ("place", "push", "topple")) != (self.xy is not None):
            raise ValueError(f"action {self.verb}: xy is for place, push and topple, which need it")
        if self.xy is not None:
            _require_on_table(self.xy)
        _require_finite(self.seconds, "seconds of an action")
        if self.seconds < 0:
            raise ValueError(f"seconds of an action are not negative, got {brief(self.seconds)}")


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at a point, from still or on a slow way around it.

    Attributes:
        target: what it looks at, in metres.
        distance: from there in metres.
        azimuth, elevation: of the camera seen from the target, in radians; azimuth 0 faces the robot.
        fov_y: vertical field of view in radians.
        sway: how far azimuth, elevation and distance (as a fraction of it) go to either side; all 0 stands still.
        period_s, phase: of that movement.
    """

    target: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float
    fov_y: float
    sway: tuple[float, float, float] = (0.0, 0.0, 0.0)
    period_s: float = 10.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        for value in (
            *self.target,
            self.distance,
            self.azimuth,
            self.elevation,
            self.fov_y,
            *self.sway,
            self.period_s,
            self.phase,
        ):
            _require_finite(value, "each number of a camera")
        if not (0.2 < self.distance < 10.0 and 0.1 < self.fov_y < 2.0):
            raise ValueError("a camera is 0.2 to 10 m from its target, and sees 0.1 to 2 radians from top to bottom")
        if not (abs(self.elevation) + abs(self.sway[1]) < 1.5 and abs(self.sway[2]) < 0.8 and self.period_s >= 0.1):
            raise ValueError("a camera looks neither straight up nor down, stays before its target, and sways in 0.1 s or more")

    @property
    def moves(self) -> bool:
        """Whether it moves at all."""
        return any(self.sway)

    def world_from_camera(self, time_s: float) -> Float64Array:
        """``(4, 4)``: the optical frame (x right, y down, z forward) in the world."""
        turn = 2 * math.pi * time_s / self.period_s + self.phase
        azimuth = self.azimuth + self.sway[0] * math.sin(turn)
        elevation = self.elevation + self.sway[1] * math.sin(0.7 * turn)
        distance = self.distance * (1 + self.sway[2] * math.sin(1.3 * turn))
        away = np.array([math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)])
        forward = -away
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = np.asarray(self.target) + distance * away
        return pose

    def intrinsics(self, size_hw: tuple[int, int]) -> Float64Array:
        """``(3, 3)`` matrix K for images of this size; whole numbers are centres of pixels."""
        height, width = size_hw
        focal = 0.5 * height / math.tan(0.5 * self.fov_y)
        return np.array([[focal, 0, 0.5 * (width - 1)], [0, focal, 0.5 * (height - 1)], [0, 0, 1.0]])


@dataclass(frozen=True)
class Look:
    """Surfaces and light.

    Attributes:
        table, floor: words of :data:`TABLE_TOPS` and :data:`FLOORS`.
        wall_rgb, light_rgb: colours in 0..1; the light's with its strength.
        light_azimuth, light_elevation: where the light stands, in radians.
        ambient: light from everywhere.
        noise: standard deviation of the sensor noise in grey levels.
        seed: of the textures and the noise.
    """

    table: str = "oak"
    floor: str = "boards"
    wall_rgb: tuple[float, float, float] = (0.75, 0.75, 0.72)
    light_rgb: tuple[float, float, float] = (0.75, 0.75, 0.72)
    light_azimuth: float = 0.8
    light_elevation: float = 1.0
    ambient: float = 0.35
    noise: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_known(self.table, TABLE_TOPS, "table")
        require_known(self.floor, FLOORS, "floor")
        _require_seed(self.seed)
        for value in (*self.wall_rgb, *self.light_rgb, self.light_azimuth, self.light_elevation, self.ambient, self.noise):
            _require_finite(value, "each number of a look")


@dataclass(frozen=True)
class Scene:
    """What is there, how it looks, and what will be done; :func:`~decaf_ros.synthetic.table.simulation.simulate` plays it.

    Attributes:
        things: on the table, at most :data:`MAX_THINGS`.
        actions: one after the other; the arm then rests.
        camera, look: how it is seen.
        duration_s: how long it is played.
    """

    things: tuple[Thing, ...]
    actions: tuple[Action, ...]
    camera: Camera
    look: Look
    duration_s: float = 12.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.things) <= MAX_THINGS:
            raise ValueError(f"a scene holds 1 to {MAX_THINGS} objects, got {len(self.things)}")
        if not 0 < self.duration_s <= 3600:
            raise ValueError(f"a scene takes up to 3600 s, got {brief(self.duration_s)}")
        for action in self.actions:
            if action.thing is not None and not 0 <= action.thing < len(self.things):
                raise ValueError(
                    f"action {action.verb}: there is no object {brief(action.thing)}, there are {len(self.things)}, from 0 on"
                )
            if action.verb == "pick" and action.thing is not None and not KINDS[self.things[action.thing].kind].liftable:
                raise ValueError(f"action pick: the gripper cannot lift a {self.things[action.thing].kind}")

    def to_json(self) -> str:
        """The scene as the text of a scene file."""
        return to_json(asdict(self), indent=1)


_T = TypeVar("_T")


def scene_from_json(text: str | bytes) -> Scene:
    """The scene of a scene file, as :meth:`Scene.to_json` writes it; what has a default may be left out.

    Raises:
        ValueError: it is no JSON, lacks something, or holds something unknown; the message names it, and what is known.
    """
    given = _mapping(from_json(text), "a scene file")
    things = tuple(_make(Thing, each, f"things[{i}]") for i, each in enumerate(_listed(given, "things")))
    actions = tuple(_make(Action, each, f"actions[{i}]") for i, each in enumerate(_listed(given, "actions")))
    parts: dict[str, Any] = {"things": things, "actions": actions}
    if "camera" in given:
        parts["camera"] = _make(Camera, given["camera"], "camera")
    if "look" in given:
        parts["look"] = _make(Look, given["look"], "look")
    return _make(Scene, {**given, **parts}, "the scene")


def _listed(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name} of a scene file is a list, got {quoted(repr(value))}")
    return value


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object, got {quoted(repr(value))}")
    return value


def _make(part: type[_T], value: Any, where: str) -> _T:
    """An instance from a JSON object: lists become tuples, and every key and type is checked."""
    given = _mapping(value, where)
    known = {field.name: str(field.type) for field in fields(part)}  # type: ignore[arg-type]
    for key, each in given.items():
        require_known(key, known, f"key of {where}")
        if not _fits(each, known[key]):
            raise ValueError(f"{where}: {key} is {known[key]}, got {quoted(repr(each))}")
    try:
        return part(**{key: tuple(each) if isinstance(each, list) else each for key, each in given.items()})
    except TypeError as error:  # something without a default is missing
        raise ValueError(f"{where}: {str(error).partition(') ')[2] or error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value of JSON, or a part already made, can stand for a field of this annotation."""
    if value is None:
        return "None" in annotation
    if annotation.startswith("tuple[float"):
        return (
            isinstance(value, list) and len(value) == annotation.count("float") and all(_fits(each, "float") for each in value)
        )
    if annotation.startswith(("int", "float")):
        return isinstance(value, (int, float) if annotation.startswith("float") else int) and not isinstance(value, bool)
    if annotation == "str":
        return isinstance(value, str)
    return isinstance(value, tuple) or type(value).__name__ == annotation


def _require_finite(value: float, what: str) -> None:
    if not -_HUGE < value < _HUGE:  # infinities and NaN, and whole numbers that no float can hold
        raise ValueError(f"{what} must be a number of ordinary size, got {brief(value)}")


def _require_on_table(xy: tuple[float, float]) -> None:
    if not (TABLE_X[0] <= xy[0] <= TABLE_X[1] and TABLE_Y[0] <= xy[1] <= TABLE_Y[1]):
        raise ValueError(f"{brief(xy)} is not on the table, which spans x {TABLE_X} and y {TABLE_Y} metres")


def _require_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"a seed is not negative, got {brief(seed)}")
