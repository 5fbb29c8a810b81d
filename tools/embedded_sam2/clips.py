"""Clips to train and judge a mask tracker on: the procedural world with the events that lose an object.

On top of :func:`decaf_ros.synthetic.world.sample_scene`, one body of a clip, its *target*, may be crossed by another body, hide
behind a screen or leave the image and return. A clip depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from decaf_ros.datatypes import BoolArray, Float32Array, UInt8Array
from decaf_ros.synthetic.world import DEFAULT_SIZE_HW, Body, Path, Scene, Screen, sample_scene, with_bodies

EVENTS = ("none", "crossing", "screen", "excursion")

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one scene with the visible pixels of its bodies.

    Attributes:
        event: what happens to the target, one of :data:`EVENTS`.
        target: index of the body that it happens to.
        frames: ``T`` images, ``(H, W, 3)`` uint8 RGB.
        instances_thw: ``(T, H, W)`` uint8: 0 for the ground and screens, ``i + 1`` for body ``i``.
    """

    event: str
    target: int
    frames: tuple[UInt8Array, ...]
    instances_thw: UInt8Array

    def masks_of(self, body_index: int) -> BoolArray:
        """``(T, H, W)`` bool: the visible pixels of one body."""
        return self.instances_thw == body_index + 1

    def bodies_seen_first(self, min_pixels: int) -> list[int]:
        """Bodies of which at least ``min_pixels`` can be seen on the first frame, the target before the others."""
        counts = np.bincount(self.instances_thw[0].reshape(-1))[1:]
        seen = [int(index) for index in np.flatnonzero(counts >= min_pixels)]
        return sorted(seen, key=lambda index: index != self.target)


def sample_clip(
    seed: int,
    length: int,
    event: str | None = None,
    step_s: float | None = None,
    size_hw: tuple[int, int] = DEFAULT_SIZE_HW,
    steps: Sequence[int] | None = None,
) -> Clip:
    """Draw a clip.

    Args:
        seed: of the scene and the event; held out below ``FIRST_TRAINING_SEED``.
        length: steps in which the event is played, the first frame included.
        event: one of :data:`EVENTS`; drawn when left out.
        step_s: seconds between frames; when left out, between the 10 Hz of a live camera and a sparse 2 Hz.
        size_hw: height and width of the camera image in pixels.
        steps: which of them become frames; all when left out.
    """
    rng = np.random.default_rng((seed, length))
    drawn_event = str(rng.choice(EVENTS, p=(0.15, 0.25, 0.35, 0.25)))
    drawn_step = float(rng.choice([0.1, rng.uniform(0.1, 0.25), 0.25, rng.uniform(0.25, 0.5)]))
    event, step_s = event or drawn_event, step_s or drawn_step
    scene = sample_scene(seed, size_hw)
    target = int(rng.integers(len(scene.bodies)))
    scene = _STAGED[event](scene, target, (length - 1) * step_s, rng)
    if event == "crossing":
        target = len(scene.bodies) - 2
    start_s = float(rng.uniform(0, 4)) if event == "none" else 0.0
    views = [scene.render(start_s + index * step_s) for index in steps or range(length)]
    return Clip(event, target, tuple(view.image_rgb for view in views), np.stack([view.instances_hw for view in views]))


def sample_still(seed: int, size_hw: tuple[int, int] = DEFAULT_SIZE_HW) -> Clip:
    """Draw a single image: a scene at any time."""
    return sample_clip(seed, 1, event="none", size_hw=size_hw)


def to_model_input(frames: Sequence[UInt8Array], size: int) -> Float32Array:
    """``(T, 3, size, size)`` float32: the frames as SAM 2's own video loader prepares them."""
    squashed = np.stack([np.asarray(Image.fromarray(frame).resize((size, size))) for frame in frames])
    return np.ascontiguousarray(((squashed.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(0, 3, 1, 2))


def shrink_masks(masks_nhw: BoolArray, size: int) -> Float32Array:
    """``(N, size, size)`` float32 in [0, 1]: which part of each larger pixel is covered."""
    resized = [cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) for mask in masks_nhw]
    return np.stack(resized).astype(np.float32)


def _nothing(scene: Scene, target: int, duration_s: float, rng: np.random.Generator) -> Scene:
    return scene


def _crossed_by_another(scene: Scene, target: int, duration_s: float, rng: np.random.Generator) -> Scene:
    """Let another body, drawn as the front one, pass over the target, which comes second from the front."""
    bodies = list(scene.bodies)
    hidden = bodies.pop(target)
    other = bodies.pop(int(rng.integers(len(bodies))))
    meet_s = float(rng.uniform(0.25, 0.8)) * duration_s
    x, y = hidden.motion.position_at(meet_s)
    turn, reach = rng.uniform(0, 2 * np.pi), (other.radius + hidden.radius) * rng.uniform(1.0, 1.4)
    dx, dy = reach * np.cos(turn) * _per_width(scene), reach * np.sin(turn)
    stay_s = float(rng.uniform(0, 0.3)) * duration_s
    way = ((0.0, x - dx, y - dy), (max(meet_s - stay_s / 2, 1e-3), x, y), (meet_s + stay_s / 2 + 1e-3, x, y))
    passing = Path((*way, (duration_s + 2e-3, x + dx, y + dy)))
    radius = max(other.radius, hidden.radius * float(rng.uniform(0.8, 1.2)))
    return with_bodies(scene, (*bodies, hidden, replace(other, motion=passing, radius=radius)))


def _behind_a_screen(scene: Scene, target: int, duration_s: float, rng: np.random.Generator) -> Scene:
    """Hide the target fully for a while: it walks behind a screen, or the screen passes over it."""
    body = scene.bodies[target]
    width = 2 * body.radius * _per_width(scene) * float(rng.uniform(1.1, 1.7))
    height = min(2 * body.radius * float(rng.uniform(1.1, 2.5)), 1.2)
    away = (0.5 * width + body.radius * _per_width(scene)) * float(rng.uniform(0.9, 1.4)) * float(rng.choice([-1, 1]))
    place = (float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.25, 0.75)))
    waypoints = _there_and_back(away, duration_s, rng)
    grey = int(rng.integers(50, 190))
    if rng.random() < 0.6:
        screen = Screen((width, height), Path(((0.0, *place),)), grey)
        walk = Path(tuple((time_s, place[0] + shift, place[1]) for time_s, shift in waypoints))
    else:
        walk = Path(((0.0, *place),))
        screen = Screen((width, height), Path(tuple((t, place[0] + shift, place[1]) for t, shift in waypoints)), grey)
    return replace(with_bodies(scene, _with_motion(scene.bodies, target, walk)), screens=(screen,))


def _out_and_back(scene: Scene, target: int, duration_s: float, rng: np.random.Generator) -> Scene:
    """Let the target leave the image on one side and, as a rule, return there."""
    body = scene.bodies[target]
    horizontal, far_side = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    reach = body.radius * (_per_width(scene) if horizontal else 1.0)
    gone = 1 + 1.3 * reach if far_side else -1.3 * reach
    inside = float(rng.uniform(0.6, 2.5)) * reach
    along = float(rng.uniform(0.2, 0.8))
    away = (1 - inside if far_side else inside) - gone
    waypoints = _there_and_back(away, duration_s, rng)
    places = [(gone + shift, along) if horizontal else (along, gone + shift) for _, shift in waypoints]
    path = Path(tuple((time_s, *place) for (time_s, _), place in zip(waypoints, places, strict=True)))
    return with_bodies(scene, _with_motion(scene.bodies, target, path))


_STAGED: dict[str, Callable[[Scene, int, float, np.random.Generator], Scene]] = {
    "none": _nothing,
    "crossing": _crossed_by_another,
    "screen": _behind_a_screen,
    "excursion": _out_and_back,
}


def _there_and_back(away: float, duration_s: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """``(time, distance)`` from ``away`` to 0, where it is held for a while, and back; now and then it stays at 0."""
    arrival, hold = float(rng.uniform(0.2, 0.6)), float(rng.uniform(0.1, 0.5))
    end = 0.0 if rng.random() < 0.15 else away
    fractions = (0.0, arrival, arrival + hold, max(1.0, arrival + hold + 0.2))
    return [(fraction * duration_s, distance) for fraction, distance in zip(fractions, (away, 0.0, 0.0, end), strict=True)]


def _with_motion(bodies: Sequence[Body], index: int, motion: Path) -> list[Body]:
    return [replace(body, motion=motion) if number == index else body for number, body in enumerate(bodies)]


def _per_width(scene: Scene) -> float:
    """Turns fractions of image height into fractions of image width."""
    return scene.size_hw[0] / scene.size_hw[1]
