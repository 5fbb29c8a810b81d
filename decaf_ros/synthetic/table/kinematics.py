"""How the arm reaches: poses of its hand, which points down, and the joints for them in closed form.

The joints are a turn about the vertical, shoulder, elbow and wrist in one upright plane, and a roll of the hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.scene import ROBOT_XY

SHOULDER_HEIGHT, UPPER_ARM, FOREARM, WRIST_TO_TIP = 0.34, 0.46, 0.44, 0.20
OPEN, CLOSED = 0.056, 0.0  # of each finger from the middle, in metres


@dataclass(frozen=True)
class HandPose:
    """Where the finger tips are, in cylinder coordinates about the robot.

    Attributes:
        bearing, radius, height: of the point between the tips; radians, metres.
        yaw: direction in which the fingers close, in the world, in radians.
        opening: of each finger from the middle, in metres.
    """

    bearing: float
    radius: float
    height: float
    yaw: float
    opening: float = OPEN

    @staticmethod
    def above(xyz: npt.ArrayLike, yaw: float, opening: float = OPEN) -> HandPose:
        """The hand with its tips at a point of the world."""
        x, y, z = np.asarray(xyz, dtype=np.float64)
        east, north = x - ROBOT_XY[0], y - ROBOT_XY[1]
        return HandPose(math.atan2(north, east), math.hypot(east, north), float(z), yaw, opening)

    @property
    def xyz(self) -> npt.NDArray[np.float64]:
        """The point between the tips in the world."""
        x = ROBOT_XY[0] + self.radius * math.cos(self.bearing)
        return np.array([x, ROBOT_XY[1] + self.radius * math.sin(self.bearing), self.height])

    def raised(self, height: float) -> HandPose:
        """The same at another height."""
        return replace(self, height=height)

    def towards(self, other: HandPose, share: float) -> HandPose:
        """A pose on the way to another one."""
        a, b = np.array(self.as_tuple()), np.array(other.as_tuple())
        return HandPose(*(a + share * (b - a)).tolist())

    def as_tuple(self) -> tuple[float, float, float, float, float]:
        """Bearing, radius, height, yaw and opening."""
        return self.bearing, self.radius, self.height, self.yaw, self.opening


REST = HandPose(bearing=0.0, radius=0.42, height=0.40, yaw=math.pi / 2)


def is_reachable(pose: HandPose) -> bool:
    """Whether the arm can bring its hand there, pointing down."""
    reach = math.hypot(pose.radius, pose.height + WRIST_TO_TIP - SHOULDER_HEIGHT)
    return pose.radius >= 0.22 and 0.2 <= reach <= 0.995 * (UPPER_ARM + FOREARM) and abs(pose.bearing) < 2.6


def joints_of(pose: HandPose) -> npt.NDArray[np.float64]:
    """``(5,)`` angles of :data:`JOINTS` that bring the hand there; the nearest that the arm can do where it is out of reach."""
    away, up = pose.radius, pose.height + WRIST_TO_TIP - SHOULDER_HEIGHT
    reach = math.hypot(away, up)
    longest = 0.9999 * (UPPER_ARM + FOREARM)
    cosine = (min(reach, longest) ** 2 - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM)
    elbow = math.acos(max(-1.0, min(1.0, cosine)))
    shoulder = math.atan2(away, up) - math.atan2(FOREARM * math.sin(elbow), UPPER_ARM + FOREARM * math.cos(elbow))
    return np.array([pose.bearing, shoulder, elbow, math.pi - shoulder - elbow, pose.bearing + 0.5 * math.pi - pose.yaw])


def nearest_yaw(yaw: float, current: float) -> float:
    """The same direction of closing, or its opposite, whichever is nearer to the current one: fingers are alike."""
    return current + (yaw - current + 0.5 * math.pi) % math.pi - 0.5 * math.pi
