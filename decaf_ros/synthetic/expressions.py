"""Sentences that are true of exactly one body of a scene, with the answers a model should give.

Each kind is a way to tell bodies apart. A sentence is made only when it holds for one body and by a clear margin for no other,
so a correct model can always be right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from decaf_ros.synthetic.world import Body, Scene

KINDS = ("colour", "shape", "colour_shape", "size", "position", "motion")

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "colour": ("the {colour} object", "the {colour} one", "the thing that is {colour}"),
    "shape": ("the {shape}", "the object that is a {shape}", "find the {shape}"),
    "colour_shape": ("the {colour} {shape}", "the {shape} that is {colour}", "find the {colour} {shape}"),
    "largest": ("the largest object", "the biggest one", "the object that is the largest"),
    "smallest": ("the smallest object", "the smallest one", "the object that is the smallest"),
    "left": ("the object on the left", "the leftmost object", "the one on the left"),
    "right": ("the object on the right", "the rightmost object", "the one on the right"),
    "top": ("the object at the top", "the topmost object", "the one at the top"),
    "bottom": ("the object at the bottom", "the lowest object", "the one at the bottom"),
    "moving_left": ("the object moving to the left", "the one that moves left"),
    "moving_right": ("the object moving to the right", "the one that moves right"),
    "moving_up": ("the object moving up", "the one that moves up"),
    "moving_down": ("the object moving down", "the one that moves down"),
    "moving": ("the moving object", "the object that moves"),
    "still": ("the object that stands still", "the one that does not move"),
}

SIZE_MARGIN = 1.25
POSITION_MARGIN = 0.12
MOTION_MARGIN = 0.10
STILL_LIMIT = 0.02
MIN_VISIBLE = 0.3


@dataclass(frozen=True)
class Expression:
    """A sentence about one body.

    Attributes:
        text: as a person would type it.
        kind: one of :data:`KINDS`.
        body_index: the body it refers to.
        answer: the one word that names it (its shape).
    """

    text: str
    kind: str
    body_index: int
    answer: str


def expressions_of(scene: Scene, times_s: Sequence[float], rng: np.random.Generator) -> list[Expression]:
    """All unambiguous sentences about the scene as seen at the given times, in one wording each.

    Args:
        scene: the world.
        times_s: when it is looked at; position and motion are judged over these times.
        rng: chooses the wordings.

    Only bodies of which at least 30 % can be seen in at least half of the views are spoken of; the others still count as
    rivals, so that no sentence would fit one that is hidden.
    """
    in_view = (scene.visible_fractions(times_s) >= MIN_VISIBLE).mean(axis=0) >= 0.5
    found: list[Expression] = []
    for name, body_index in _matches(scene.bodies, times_s, scene.size_hw):
        if in_view[body_index]:
            body = scene.bodies[body_index]
            wording = _TEMPLATES[name][int(rng.integers(len(_TEMPLATES[name])))]
            text = wording.format(colour=body.colour, shape=body.shape)
            found.append(Expression(text, _kind_of(name), body_index, body.shape))
    return found


def vocabulary() -> list[str]:
    """Every word that a sentence can contain, sorted."""
    from decaf_ros.synthetic.world import COLOURS_RGB, SHAPES

    words = {word for wordings in _TEMPLATES.values() for wording in wordings for word in wording.split() if "{" not in word}
    return sorted(words | set(COLOURS_RGB) | set(SHAPES))


def _kind_of(name: str) -> str:
    if name in ("largest", "smallest"):
        return "size"
    if name in ("left", "right", "top", "bottom"):
        return "position"
    return name if name in KINDS else "motion"


def _matches(bodies: Sequence[Body], times_s: Sequence[float], size_hw: tuple[int, int]) -> list[tuple[str, int]]:
    """``(template name, body index)`` of every description that fits one body only."""
    matches: list[tuple[str, int]] = []
    keys: dict[str, Callable[[Body], tuple[str, ...]]] = {
        "colour": lambda body: (body.colour,),
        "shape": lambda body: (body.shape,),
        "colour_shape": lambda body: (body.colour, body.shape),
    }
    for name, key in keys.items():
        counts = Counter(key(body) for body in bodies)
        matches += [(name, index) for index, body in enumerate(bodies) if counts[key(body)] == 1]

    radii = np.array([body.radius for body in bodies])
    matches += _winner("largest", np.log(radii), float(np.log(SIZE_MARGIN)))
    matches += _winner("smallest", -np.log(radii), float(np.log(SIZE_MARGIN)))

    aspect = size_hw[1] / size_hw[0]
    track = np.array([[body.motion.position_at(time_s) for body in bodies] for time_s in times_s])  # (T, bodies, xy)
    x, y = track[..., 0].mean(axis=0) * aspect, track[..., 1].mean(axis=0)
    for name, value in (("left", -x), ("right", x), ("top", -y), ("bottom", y)):
        matches += _winner(name, value, POSITION_MARGIN)

    if len(times_s) > 1:
        shift = (track[-1] - track[0]) * np.array([aspect, 1.0])
        travelled = np.abs(np.diff(track, axis=0) * np.array([aspect, 1.0])).sum(axis=(0, 2))
        directions = [("moving_left", -shift[:, 0]), ("moving_right", shift[:, 0])]
        directions += [("moving_up", -shift[:, 1]), ("moving_down", shift[:, 1])]
        for name, value in directions:
            matches += [match for match in _winner(name, value, MOTION_MARGIN) if value[match[1]] >= MOTION_MARGIN]
        moves, still = travelled >= MOTION_MARGIN, travelled <= STILL_LIMIT
        if (moves | still).all():
            matches += [("moving", int(index)) for index in np.flatnonzero(moves) if moves.sum() == 1]
            matches += [("still", int(index)) for index in np.flatnonzero(still) if still.sum() == 1]
    return matches


def _winner(name: str, values: np.ndarray, margin: float) -> list[tuple[str, int]]:
    """The index of the largest value, if it leads the second by the margin."""
    order = np.argsort(values)
    if len(values) < 2 or values[order[-1]] - values[order[-2]] < margin:
        return []
    return [(name, int(order[-1]))]
