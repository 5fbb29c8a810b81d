"""The physics of a scene: step by step for a live world, or played through once into a :class:`Recording`.

The arm moves by the forces of its servos, and touches, pushes and topples things by contact. A thing is fastened to the hand
only while both fingers touch it at the same time, and only once they do; from then on it hangs as firmly as in a real grip,
which the friction of two simulated pads alone does not give.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.arm import FINGERS, JOINTS
from decaf_ros.synthetic.table.extras import load
from decaf_ros.synthetic.table.kinematics import REST, HandPose, joints_of
from decaf_ros.synthetic.table.model import TIMESTEP_S, build_model, thing_name
from decaf_ros.synthetic.table.motions import MOTIONS, go_to_rest
from decaf_ros.synthetic.table.recording import Recording, Touch
from decaf_ros.synthetic.table.scene import Action, Scene
from decaf_ros.synthetic.table.things import make_shape

mujoco = load("mujoco")

Float64Array = npt.NDArray[np.float64]
STEPS_A_TICK = 5
TICK_S = STEPS_A_TICK * TIMESTEP_S
_SETTLING_S, _JOLT_S = 0.4, 0.2
_DEEPEST_METRES = 0.004  # that bodies may begin in each other
_GRIP = int(Touch.LEFT | Touch.RIGHT)
_LEFT, _RIGHT, _ARM, _GROUND = -1, -2, -3, -4  # who touches, where it is no thing
_INNER_SIDE = 0.7  # cosine between the closing of the fingers and the normal of a contact on their inner side


class Simulation:
    """A scene that lives: the physics go on with every :meth:`tick`, and the arm does what it is told.

    Args:
        scene: its actions are done first, in their order; more may be given to :meth:`perform`.

    Attributes:
        model, data: MuJoCo's own; positions of arm and fingers come first in ``qpos``, then 7 numbers a thing.
        shapes: of the things.
        hand: the pose that the arm was last told.
        touches_n: ``(things,)`` flags of :class:`Touch` of the last tick.
        held: index of the thing that is fastened to the hand.
        is_idle: whether the arm had nothing to do at the last tick, nor was told anything since.
        deepest: how deep, in metres, bodies have pressed into each other, but for fingers.
        failed: actions that did not come off: a grip that closed on nothing, a place out of reach.
        why_failed: the reason for the last of them.

    Raises:
        ValueError: things stand in each other, or in the arm.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.shapes = [make_shape(thing.kind, thing.colour, thing.scale, thing.seed) for thing in scene.things]
        self.model: Any = build_model(scene, self.shapes)
        self.data: Any = mujoco.MjData(self.model)
        self.hand = REST
        self.touches_n = np.zeros(len(scene.things), dtype=np.uint8)
        self.deepest = 0.0
        self.held: int | None = None
        self._ticks_lost = 0
        self.failed: list[Action] = []
        self.why_failed = ""
        self._owners = self._owners_of_geoms()
        self._welds = [self.model.equality(thing_name(index)).id for index in range(len(scene.things))]
        self.is_idle = False
        self._waiting = list(scene.actions)
        self._orders = self._follow_orders()
        self._command(REST)
        self.data.qpos[: len(JOINTS)] = joints_of(REST)
        self.data.qpos[len(JOINTS) : len(JOINTS) + 2] = REST.opening
        self._require_apart()
        for _ in range(round(_SETTLING_S / TIMESTEP_S)):
            mujoco.mj_step(self.model, self.data)
        self.data.time = 0.0
        self._observe()
        self.deepest = 0.0

    @property
    def time_s(self) -> float:
        """Since the scene began."""
        return float(self.data.time)

    def perform(self, action: Action) -> None:
        """Have the arm do something after what it was told before."""
        self._waiting.append(action)
        self.is_idle = False

    def tick(self) -> None:
        """Go on by :data:`TICK_S`."""
        pose = next(self._orders)
        self.is_idle = pose is None
        if pose is not None:
            self._command(pose)
        for _ in range(STEPS_A_TICK):
            mujoco.mj_step(self.model, self.data)
        self._observe()
        self._check_grip()

    def pose_of(self, thing: int) -> tuple[Float64Array, Float64Array]:
        """Position ``(3,)`` and rotation ``(3, 3)`` of a thing in the world."""
        body = self.data.body(thing_name(thing))
        return np.array(body.xpos), np.array(body.xmat).reshape(3, 3)

    def thing_at(self, xyz: npt.ArrayLike, within_metres: float = 0.04) -> int | None:
        """The thing at a point of the world, for orders by place: the one whose own box it is in, or nearest to.

        Where boxes meet, it is the one whose middle is nearer. None where no box is so near.
        """
        away = []
        for index, shape in enumerate(self.shapes):
            position, rotation = self.pose_of(index)
            low, high = shape.mesh.vertices_n3.min(axis=0), shape.mesh.vertices_n3.max(axis=0)
            point = (np.asarray(xyz) - position) @ rotation
            outside = np.linalg.norm(np.maximum(0.0, np.maximum(low - point, point - high)))
            away.append((float(outside), float(np.linalg.norm(point - 0.5 * (low + high))), index))
        distance, _, nearest = min(away)
        return nearest if distance <= within_metres else None

    def fasten(self, thing: int) -> bool:
        """Fasten a thing to the hand as it lies between the fingers; False, and nothing, unless both touch it."""
        if (self.touches_n[thing] & _GRIP) != _GRIP:
            return False
        hand, body = self.data.body("roll"), self.data.body(thing_name(thing))
        inverse, relative, offset = np.zeros(4), np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(inverse, hand.xquat)
        mujoco.mju_mulQuat(relative, inverse, body.xquat)
        mujoco.mju_rotVecQuat(offset, body.xpos - hand.xpos, inverse)
        weld = self._welds[thing]
        self.model.eq_data[weld, :3] = 0.0
        self.model.eq_data[weld, 3:10] = [*offset, *relative]
        self.data.eq_active[weld] = 1
        self.held = thing
        return True

    def let_go(self) -> None:
        """Loosen what is fastened to the hand."""
        if self.held is not None:
            self.data.eq_active[self._welds[self.held]] = 0
            self.held = None

    def _check_grip(self) -> None:
        """What the fingers have lost touch of for longer than a jolt takes, the hand has lost."""
        gripped = self.held is None or (self.touches_n[self.held] & _GRIP) == _GRIP
        self._ticks_lost = 0 if gripped else self._ticks_lost + 1
        if self._ticks_lost * TICK_S > _JOLT_S:
            self.let_go()

    def fail(self, action: Action, why: str) -> None:
        """Note that an action did not come off, and why."""
        self.failed.append(action)
        self.why_failed = why

    def _follow_orders(self) -> Iterator[HandPose | None]:
        """Poses of the hand for ever, None when it has nothing to do: then it goes out of the way, unless it holds one."""
        while True:
            while self._waiting:
                action = self._waiting.pop(0)
                yield from MOTIONS[action.verb](self, action)
            if self.held is None and self.hand.xyz[0] > REST.xyz[0] + 0.05:
                yield from go_to_rest(self)
            else:
                yield None

    def _require_apart(self) -> None:
        """Raise ``ValueError`` with what stands in what: the physics would blow it apart."""
        mujoco.mj_forward(self.model, self.data)
        contacts = self.data.contact
        for (one, other), distance in zip(self._owners[contacts.geom].tolist(), contacts.dist.tolist(), strict=True):
            if distance < -_DEEPEST_METRES and max(one, other) >= 0:
                names = [f"the {self.scene.things[i].kind} ({i})" if i >= 0 else "the arm or the table" for i in (one, other)]
                raise ValueError(f"{names[0]} and {names[1]} stand in each other, by {-1e3 * distance:.0f} mm")

    def _command(self, pose: HandPose) -> None:
        self.hand = pose
        self.data.ctrl[: len(JOINTS)] = joints_of(pose)
        self.data.ctrl[len(JOINTS) : len(JOINTS) + 2] = pose.opening

    def _owners_of_geoms(self) -> npt.NDArray[np.int64]:
        """``(geoms,)``: index of the thing that a geom is part of, or who else."""
        owners = {thing_name(index): index for index in range(len(self.scene.things))}
        owners |= {"world": _GROUND, FINGERS[0]: _LEFT, FINGERS[1]: _RIGHT}
        bodies = [owners.get(self.model.body(int(body)).name, _ARM) for body in self.model.geom_bodyid]
        return np.array(bodies, dtype=np.int64)

    def _observe(self) -> None:
        """Who touches whom, and how deep bodies press into each other, but for fingers.

        A finger's touch counts as such only on its inner side: a closed hand that pushes has both fingers on one side of what
        it pushes.
        """
        contacts = self.data.contact
        pairs, depths = self._owners[contacts.geom].reshape(-1, 2), -contacts.dist
        closing = self.data.body("roll").xmat.reshape(3, 3)[:, 1]
        along = contacts.frame[:, :3] @ closing  # from the first body of a pair to the second
        meet = depths >= 0
        self.touches_n[:] = 0
        for things, touchers, inward in ((pairs[:, 0], pairs[:, 1], -along), (pairs[:, 1], pairs[:, 0], along)):
            flags = np.where(touchers >= 0, Touch.THING, np.where(touchers == _GROUND, Touch.GROUND, Touch.ARM))
            flags |= np.where((touchers == _LEFT) & (inward < -_INNER_SIDE), Touch.LEFT, 0)
            flags |= np.where((touchers == _RIGHT) & (inward > _INNER_SIDE), Touch.RIGHT, 0)
            met = meet & (things >= 0)
            np.bitwise_or.at(self.touches_n, things[met], flags[met].astype(np.uint8))
        pressed = depths[~np.isin(pairs, (_LEFT, _RIGHT)).any(axis=1)]
        self.deepest = max(self.deepest, float(pressed.max(initial=0.0)))


def simulate(scene: Scene) -> Recording:
    """Play a scene through.

    Raises:
        ValueError: things stand in each other, or in the arm.
    """
    return record(Simulation(scene), scene.duration_s)


def record(world: Simulation, seconds: float) -> Recording:
    """Let a world go on, and note where everything is."""
    ticks = max(1, round(seconds / TICK_S))
    qpos, touches = [], []
    for tick in range(ticks + 1):
        if tick:
            world.tick()
        qpos.append(np.array(world.data.qpos))
        touches.append(world.touches_n.copy())
    return Recording(
        scene=world.scene,
        shapes=tuple(world.shapes),
        times_s=np.arange(ticks + 1, dtype=np.float64) * TICK_S,
        qpos_tq=np.stack(qpos),
        touches_tn=np.stack(touches),
        deepest_metres=world.deepest,
        failed=tuple(world.failed),
    )
