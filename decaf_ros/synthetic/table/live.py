"""A table that lives: in step with a clock, filmed as time goes on, its arm at the command of whoever points at things."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.catalogue import KINDS, require_known
from decaf_ros.synthetic.table.kinematics import HandPose, is_reachable
from decaf_ros.synthetic.table.motions import HAND_IS_EMPTY, HAND_IS_FULL, OUT_OF_GRIP, OUT_OF_REACH, grip_pose
from decaf_ros.synthetic.table.recording import between
from decaf_ros.synthetic.table.rendering import DEFAULT_SIZE_HW, Renderer, View
from decaf_ros.synthetic.table.scene import Action, Scene
from decaf_ros.synthetic.table.simulation import TICK_S, Simulation

Float64Array = npt.NDArray[np.float64]
ORDERS = ("pick", "place", "push")
SCRIPT = "script"
_OVER_TABLE = 0.15  # metres, of the hand that brings something


@dataclass(frozen=True)
class ArmState:
    """What the arm is at, and what became of what it was told last.

    Attributes:
        busy: whether it is at work.
        order: one of :data:`ORDERS`, or :data:`SCRIPT` for the scene's own actions.
        outcome: ``under way``, ``done`` or ``failed``.
        reason: why it failed.
        holds: whether it has something in its fingers.
    """

    busy: bool
    order: str
    outcome: str
    reason: str
    holds: bool


class LiveTable:
    """A scene in step with a clock. Until its end it shows what an :class:`~.episodes.Episode` of the scene shows then.

    Args:
        scene: its actions are done first; then the arm takes orders.

    Attributes:
        scene: as given.
        world: its physics.

    Raises:
        ValueError: things stand in each other, or in the arm.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.world = Simulation(scene)
        self._renderer = Renderer(scene, self.world.shapes)
        self._ticks = 0
        self._before = self._after = np.array(self.world.data.qpos)
        self._order, self._failures = SCRIPT, 0
        self.advance(0.0)

    @property
    def time_s(self) -> float:
        """Until when it has lived: at most one tick beyond the time that was asked for last."""
        return self._ticks * TICK_S

    def advance(self, time_s: float) -> None:
        """Live until a time of the scene; one that has passed changes nothing."""
        while self._ticks <= time_s / TICK_S:
            self.world.tick()
            self._ticks += 1
            self._before, self._after = self._after, np.array(self.world.data.qpos)

    def render(self, time_s: float, size_hw: tuple[int, int] = DEFAULT_SIZE_HW) -> View:
        """Live until a time, and show it then, at any size; what passed before the last tick is gone, and shown as it was then.

        Raises:
            ValueError: no such size.
        """
        self.advance(time_s)
        share = time_s / TICK_S - (self._ticks - 1)
        return self._renderer.render(between(self._before, self._after, max(0.0, share)), time_s, size_hw)

    @property
    def arm(self) -> ArmState:
        """What the arm is at."""
        busy, failed = not self.world.is_idle, len(self.world.failed) > self._failures
        outcome = "under way" if busy else "failed" if failed else "done"
        reason = self.world.why_failed if failed else ""
        return ArmState(busy, self._order, outcome, reason, self.world.held is not None)

    def order(self, order: str, at: npt.ArrayLike, to: npt.ArrayLike | None = None) -> None:
        """Tell the arm what to do next.

        Args:
            order: ``pick`` what is at a point of the world; ``place`` what it holds at one; ``push`` what is at one to another.
            at: ``(3,)`` metres in the world's frame. Of where something is to go the height is not heeded.
            to: the same, for ``push``.

        Raises:
            ValueError: it cannot, and why; it then does nothing.
        """
        require_known(order, ORDERS, "order")
        if (order == "push") != (to is not None):
            raise ValueError(f"{order} takes {'two points, from and to' if order == 'push' else 'one point'}")
        here, there = np.asarray(at, dtype=np.float64), np.asarray(at if to is None else to, dtype=np.float64)
        if not np.isfinite([here, there]).all():
            raise ValueError("a point has three finite coordinates")
        if not self.world.is_idle:
            raise ValueError("the arm is busy")
        action = self._place(here) if order == "place" else self._handle(order, here, there)
        self._order, self._failures = order, len(self.world.failed)
        self.world.perform(action)

    def why_not_pick(self, thing: int) -> str:
        """Why the empty hand cannot pick up a thing where it is; "" if it can, as far as can be told before it tries."""
        kind = self.scene.things[thing].kind
        if not KINDS[kind].liftable:
            return f"the gripper cannot lift a {kind}"
        return "" if grip_pose(self.world, thing) else OUT_OF_GRIP

    def _place(self, place: Float64Array) -> Action:
        if self.world.held is None:
            raise ValueError(HAND_IS_EMPTY)
        action = Action("place", xy=_xy(place))
        if not is_reachable(HandPose.above((place[0], place[1], _OVER_TABLE), 0.0)):
            raise ValueError(OUT_OF_REACH)
        return action

    def _handle(self, order: str, here: Float64Array, there: Float64Array) -> Action:
        if self.world.held is not None:
            raise ValueError(HAND_IS_FULL)
        thing = self.world.thing_at(here)
        if thing is None:
            raise ValueError(f"nothing is at {_xyz(here)}")
        if order == "push":
            return Action("push", thing, _xy(there))
        if reason := self.why_not_pick(thing):
            raise ValueError(reason)
        return Action("pick", thing)


def _xy(place: Float64Array) -> tuple[float, float]:
    return float(place[0]), float(place[1])


def _xyz(place: Float64Array) -> str:
    return "(" + ", ".join(f"{value:.3f}" if math.fabs(value) < 1e3 else f"{value:.1e}" for value in place) + ") m"
