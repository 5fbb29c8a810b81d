"""How the arm does what it is told: each action as poses of the hand, one a tick, planned from what is there when it begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.kinematics import CLOSED, OPEN, REST, HandPose, is_reachable, nearest_yaw
from decaf_ros.synthetic.table.scene import Action

if TYPE_CHECKING:
    from decaf_ros.synthetic.table.simulation import Simulation

Float64Array = npt.NDArray[np.float64]
TICK_S = 0.02
_GAP = 0.03  # to what the hand, and what it holds, go over
_SPEED, _CAREFUL = 0.75, 0.35  # of the hand, metres a second on average
_ACCELERATION = 4.0  # of the hand, metres a second squared at most
_TURN = 2.2  # radians a second on average
_CLOSING_S, _OPENING_S = 0.7, 0.25
_HIGHEST = 0.46  # that the hand goes
_PALM_REACH, _PALM_HEIGHT = 0.08, 0.09  # of the hand above the fingers, from their tips
_FINGER_REACH = 0.018  # from the middle of a finger to its far side
# Why an action does not come off.
OUT_OF_GRIP = "the hand cannot grip it where it is, out of reach or not upright"
OUT_OF_REACH = "it is out of reach"
HAND_IS_FULL, HAND_IS_EMPTY = "the hand holds something", "the hand holds nothing"


def _travel(world: Simulation, goal: HandPose, speed: float = _SPEED) -> Iterator[HandPose]:
    """From where the hand was told to be to a goal, starting and ending at rest."""
    start = world.hand
    goal = replace(goal, yaw=nearest_yaw(goal.yaw, start.yaw))
    path = math.hypot(goal.radius - start.radius, goal.height - start.height, goal.radius * (goal.bearing - start.bearing))
    seconds = max(path / speed, math.sqrt(6 * path / _ACCELERATION), abs(goal.yaw - start.yaw) / _TURN, 0.1)
    ticks = max(2, round(seconds / TICK_S))
    for tick in range(1, ticks + 1):
        share = tick / ticks
        yield start.towards(goal, share * share * (3 - 2 * share))


def _stay(world: Simulation, seconds: float) -> Iterator[HandPose]:
    for _ in range(round(seconds / TICK_S)):
        yield world.hand


def _over(world: Simulation, goal: HandPose) -> Iterator[HandPose]:
    """Up, across, and above the goal, clear of all that stands there."""
    height = max(_clear_height(world), goal.height)
    if world.hand.height < height - 0.01:
        yield from _travel(world, world.hand.raised(height))
    yield from _travel(world, goal.raised(height))


def _wait(world: Simulation, action: Action) -> Iterator[HandPose]:
    yield from _stay(world, action.seconds)


def _pick(world: Simulation, action: Action) -> Iterator[HandPose]:
    """Fingers around the thing, closed until both touch it, and up."""
    assert action.thing is not None
    goal = grip_pose(world, action.thing)
    if goal is None or world.held is not None:
        world.fail(action, OUT_OF_GRIP if goal is None else HAND_IS_FULL)
        return
    yield from _over(world, goal)
    yield from _travel(world, goal, _CAREFUL)
    closing = replace(goal, opening=CLOSED)
    for tick in range(round(_CLOSING_S / TICK_S)):
        yield world.hand.towards(closing, min(1.0, (tick + 1) * TICK_S / _CLOSING_S))
        if world.fasten(action.thing):
            break
    if world.held is None:
        world.fail(action, "the fingers closed on nothing")
        yield from _travel(world, replace(world.hand, opening=OPEN).raised(_clear_height(world)))
        return
    yield from _stay(world, 0.1)
    yield from _travel(world, world.hand.raised(_clear_height(world)), 0.5)


def _place(world: Simulation, action: Action) -> Iterator[HandPose]:
    """What is held goes to a place, down until it stands, and is let go."""
    assert action.xy is not None
    thing = world.held
    if thing is None:
        world.fail(action, HAND_IS_EMPTY)
        return
    position, _ = world.pose_of(thing)
    offset = world.hand.xyz - position
    goal = HandPose.above(
        (action.xy[0] + offset[0], action.xy[1] + offset[1], offset[2] + 0.002), world.hand.yaw, world.hand.opening
    )
    if not is_reachable(goal):
        world.fail(action, OUT_OF_REACH)
        return
    yield from _over(world, goal)
    yield from _travel(world, goal, _CAREFUL)
    yield from _stay(world, 0.1)
    if world.held is None:  # lost on the way
        world.fail(action, "it was lost on the way")
    world.let_go()
    ticks = round(_OPENING_S / TICK_S)
    start, wide = world.hand, replace(world.hand, opening=min(OPEN, world.hand.opening + 0.02))
    for tick in range(ticks):
        yield start.towards(wide, (tick + 1) / ticks)
    yield from _travel(world, world.hand.raised(_clear_height(world)), 0.5)
    yield from _travel(world, replace(world.hand, opening=OPEN))


def _push(world: Simulation, action: Action) -> Iterator[HandPose]:
    """Closed fingers beside the thing, low, and along the table."""
    assert action.thing is not None
    _, high = _size(world, action.thing)
    yield from _shove(world, action, height=min(0.03, 0.35 * high), speed=0.16)


def _topple(world: Simulation, action: Action) -> Iterator[HandPose]:
    """Closed fingers against the upper part of the thing, until it tips."""
    assert action.thing is not None
    _, high = _size(world, action.thing)
    yield from _shove(world, action, height=0.82 * high, speed=0.45)


def _shove(world: Simulation, action: Action, height: float, speed: float) -> Iterator[HandPose]:
    """The closed hand goes in a straight line through where the thing stands, as far as the thing is to go."""
    assert action.thing is not None
    assert action.xy is not None
    position, _ = world.pose_of(action.thing)
    way = np.asarray(action.xy) - position[:2]
    length = float(np.linalg.norm(way))
    ahead = way / max(length, 1e-9)
    wide, _ = _size(world, action.thing)
    yaw = math.atan2(ahead[1], ahead[0]) + 0.5 * math.pi
    start = HandPose.above((*(position[:2] - ahead * (wide + 0.035)), height), yaw, CLOSED)
    end = HandPose.above(
        (*(np.asarray(action.xy) - ahead * (_width_along(world, action.thing, ahead) + 0.011)), height), yaw, CLOSED
    )
    if not (is_reachable(start) and is_reachable(end)) or world.held is not None:
        world.fail(action, OUT_OF_REACH if world.held is None else HAND_IS_FULL)
        return
    yield from _over(world, start)
    yield from _travel(world, start, _CAREFUL)
    line = [
        HandPose.above(start.xyz + share * (end.xyz - start.xyz), world.hand.yaw, CLOSED) for share in np.linspace(0, 1, 9)[1:]
    ]
    ticks = max(4, round(float(np.linalg.norm(end.xyz - start.xyz)) / speed / TICK_S / len(line)))
    for part, goal in enumerate(line):  # a straight line in the world is none in cylinder coordinates
        begin = world.hand
        for tick in range(ticks if part else 2 * ticks):  # gently at first
            yield begin.towards(goal, (tick + 1) / ticks)
    back = HandPose.above(end.xyz - np.array([*(0.03 * ahead), 0.0]), world.hand.yaw, CLOSED)
    yield from _travel(world, back)
    yield from _travel(world, back.raised(_clear_height(world)), 0.5)
    yield from _travel(world, replace(world.hand, opening=OPEN))


def go_to_rest(world: Simulation) -> Iterator[HandPose]:
    """Back to where the arm is in nobody's way."""
    yield from _over(world, REST)


def _clear_height(world: Simulation) -> float:
    """Of the finger tips, so that neither they nor what they hold meet what stands on the table."""
    tops = [_top(world, thing) for thing in range(len(world.shapes)) if thing != world.held]
    below = 0.0 if world.held is None else float(world.hand.height - world.pose_of(world.held)[0][2])
    return min(max(0.12, *tops, 0.0) + _GAP + below, _HIGHEST)


def _top(world: Simulation, thing: int) -> float:
    """Height of a thing's highest point as it stands or lies."""
    position, rotation = world.pose_of(thing)
    return float((world.shapes[thing].mesh.vertices_n3 @ rotation[2]).max() + position[2])


def _size(world: Simulation, thing: int) -> tuple[float, float]:
    """Radius about its own axis, and height."""
    vertices = world.shapes[thing].mesh.vertices_n3
    return float(np.linalg.norm(vertices[:, :2], axis=1).max()), float(vertices[:, 2].max())


def _width_along(world: Simulation, thing: int, ahead: Float64Array) -> float:
    """How far a thing reaches from its origin backwards along a direction."""
    _, rotation = world.pose_of(thing)
    vertices = world.shapes[thing].mesh.vertices_n3 @ rotation.T
    return float(-(vertices[:, :2] @ ahead).min())


def grip_pose(world: Simulation, thing: int) -> HandPose | None:
    """The reachable way to grip a thing that keeps the fingers farthest from all others; None for one that lies tilted."""
    grip = world.shapes[thing].grip
    position, rotation = world.pose_of(thing)
    if grip is None or rotation[2, 2] < 0.96:
        return None
    others = [(world.pose_of(i)[0][:2], _size(world, i)[0], _top(world, i)) for i in range(len(world.shapes)) if i != thing]
    facing = math.atan2(rotation[1, 0], rotation[0, 0])
    best, best_value = None, -math.inf
    for yaw in grip.yaws:
        local = np.asarray(grip.position)
        if grip.on_rim:
            local = np.array([local[0] * math.cos(yaw), local[0] * math.sin(yaw), local[2]])
        opening = min(OPEN, 0.5 * grip.width + 0.016)
        pose = HandPose.above(position + rotation @ local, yaw + facing, opening)
        pose = replace(pose, yaw=nearest_yaw(pose.yaw, world.hand.yaw), height=max(pose.height, 0.006))
        if not is_reachable(pose):
            continue
        close = np.array([math.cos(pose.yaw), math.sin(pose.yaw)])
        tips = [pose.xyz[:2] + side * (opening + 0.007) * close for side in (-1, 1)]
        ends = [pose.xyz[:2] + side * _PALM_REACH * close for side in (-1, 1)]
        room = min(
            (float(np.linalg.norm(end - xy)) - wide - _FINGER_REACH
             for xy, wide, top in others for end in (tips if top < pose.height + _PALM_HEIGHT else tips + ends)),
            default=1.0,
        )  # fmt: skip
        value = min(room, 0.03) - 0.004 * abs(pose.yaw - world.hand.yaw)
        if value > best_value:
            best, best_value = pose, value
    return best


MOTIONS: dict[str, Callable[[Simulation, Action], Iterator[HandPose]]] = {
    "pick": _pick,
    "place": _place,
    "push": _push,
    "topple": _topple,
    "wait": _wait,
}
