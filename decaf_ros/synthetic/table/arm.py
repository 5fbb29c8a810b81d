"""The arm as bodies for MuJoCo: five joints, a parallel gripper, and the servos that move them."""

from __future__ import annotations

import math
from typing import Any

from decaf_ros.synthetic.table.extras import load
from decaf_ros.synthetic.table.kinematics import FOREARM, OPEN, SHOULDER_HEIGHT, UPPER_ARM, WRIST_TO_TIP
from decaf_ros.synthetic.table.scene import ROBOT_XY

mujoco = load("mujoco")

JOINTS = ("turn", "shoulder", "elbow", "wrist", "roll")
FINGERS = ("left_finger", "right_finger")
ARM_CONTACT, THING_CONTACT = 2, 1  # bits: the arm meets things and the table, not itself
_ROLL_FROM_WRIST = 0.075


def add_arm(spec: Any, shell_rgb: tuple[float, float, float], accent_rgb: tuple[float, float, float]) -> None:
    """Put the arm into a MuJoCo specification: bodies, joints, position servos, and the two sites between the finger tips."""
    shell, accent, dark = [*shell_rgb, 1.0], [*accent_rgb, 1.0], [0.16, 0.16, 0.18, 1.0]

    def body(parent: Any, name: str, position: tuple[float, float, float], axis: tuple[int, int, int] | None) -> Any:
        made = parent.add_body(name=name, pos=position, gravcomp=1.0)
        if axis is not None:
            made.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, armature=0.1)
        return made

    def part(
        parent: Any,
        form: str,
        size: tuple[float, ...],
        position: tuple[float, float, float],
        rgba: list[float],
        along: str = "z",
    ) -> None:
        quat = {"z": (1, 0, 0, 0), "y": (math.sqrt(0.5), math.sqrt(0.5), 0, 0)}[along]
        parent.add_geom(
            type=getattr(mujoco.mjtGeom, f"mjGEOM_{form.upper()}"),
            size=[*size, 0.0, 0.0][:3],
            pos=position,
            quat=quat,
            rgba=rgba,
            density=700,
            contype=ARM_CONTACT,
            conaffinity=THING_CONTACT,
            friction=[0.4, 0.006, 0.001],
            condim=4,
        )

    base = body(spec.worldbody, "base", (*ROBOT_XY, 0.0), None)
    part(base, "cylinder", (0.085, 0.012), (0, 0, 0.012), dark)
    part(base, "cylinder", (0.068, 0.09), (0, 0, 0.11), shell)
    turn = body(base, "turn", (0, 0, 0.20), (0, 0, 1))
    part(turn, "cylinder", (0.071, 0.012), (0, 0, 0.012), accent)
    part(turn, "cylinder", (0.06, 0.05), (0, 0, 0.07), shell)
    shoulder = body(turn, "shoulder", (0, 0, SHOULDER_HEIGHT - 0.20), (0, 1, 0))
    part(shoulder, "cylinder", (0.062, 0.075), (0, 0, 0), accent, along="y")
    part(shoulder, "capsule", (0.05, 0.5 * UPPER_ARM - 0.05), (0, 0, 0.5 * UPPER_ARM), shell)
    elbow = body(shoulder, "elbow", (0, 0, UPPER_ARM), (0, 1, 0))
    part(elbow, "cylinder", (0.053, 0.062), (0, 0, 0), accent, along="y")
    part(elbow, "capsule", (0.04, 0.5 * FOREARM - 0.04), (0, 0, 0.5 * FOREARM), shell)
    wrist = body(elbow, "wrist", (0, 0, FOREARM), (0, 1, 0))
    part(wrist, "cylinder", (0.043, 0.05), (0, 0, 0), accent, along="y")
    part(wrist, "cylinder", (0.036, 0.022), (0, 0, 0.045), shell)
    hand = body(wrist, "roll", (0, 0, _ROLL_FROM_WRIST), (0, 0, 1))
    part(hand, "box", (0.026, 0.075, 0.016), (0, 0, 0.012), dark)
    hand.add_site(name="tip", pos=(0, 0, WRIST_TO_TIP - _ROLL_FROM_WRIST))
    for name, side in zip(FINGERS, (1.0, -1.0), strict=True):
        finger = hand.add_body(name=name, pos=(0, 0, 0.028), gravcomp=1.0)
        finger.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, side, 0), range=(-0.002, OPEN + 0.002), armature=0.02
        )
        length = WRIST_TO_TIP - _ROLL_FROM_WRIST - 0.028
        part(finger, "box", (0.010, 0.007, 0.5 * length), (0, side * 0.007, 0.5 * length), [0.30, 0.31, 0.33, 1.0])

    for name, stiffness in zip(JOINTS, (6000.0, 6000.0, 4000.0, 1200.0, 600.0), strict=True):
        _add_servo(spec, name, stiffness, 0.04 * stiffness, 600.0)
    for name in FINGERS:
        _add_servo(spec, name, 900.0, 40.0, 14.0)


def _add_servo(spec: Any, joint: str, stiffness: float, damping: float, strongest: float) -> None:
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
    servo.gainprm[0] = stiffness
    servo.biasprm[1], servo.biasprm[2] = -stiffness, -damping
    servo.forcelimited, servo.forcerange = True, [-strongest, strongest]
