"""Training data of the embedded Qwen2.5-VL: clips of the procedural world, questions about them, ground truth on the grid.

Everything is drawn from one random generator, so a run is repeated exactly by its seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from decaf_ros.datatypes import Float32Array, UInt8Array
from decaf_ros.models.qwen2_5_vl import fit_grid
from decaf_ros.synthetic.expressions import Expression, expressions_of
from decaf_ros.synthetic.world import FIRST_TRAINING_SEED, Scene, sample_scene, with_bodies
from tools.embedded_mllm.model import IMAGE_TOKENS, TOKEN_PIXELS, VIDEO_FRAME_TOKENS
from tools.embedded_mllm.questions import (
    NO_ROLE,
    ROLES,
    Question,
    background_question,
    choose_expressions,
    object_question,
    role_of,
)

MAX_BODIES = 4
CLIP_FRAMES = 16
SIZES_HW = ((192, 256), (192, 256), (192, 256), (192, 256), (192, 256), (192, 256), (256, 256), (144, 256))
FRAME_INTERVALS_S = (0.1, 0.2, 0.25, 0.25, 0.25, 0.267, 0.333, 0.5)
VIDEO_LENGTHS = (1, 2, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8, 12, 16, 16)
PATCHES_A_BATCH = 7000
CLOSE_UP_GRID_HW, CLOSE_UPS_A_BATCH = (6, 6), 48


@dataclass(frozen=True, eq=False)
class Clip:
    """A scene with its rendered views.

    Attributes:
        scene: what is shown.
        times_s: ``(16,)`` seconds, evenly spaced.
        images_thwc: ``(16, H, W, 3)`` uint8.
        instances_thw: ``(16, H, W)`` uint8, ``i + 1`` on body ``i``.
    """

    scene: Scene
    times_s: Float32Array
    images_thwc: UInt8Array
    instances_thw: UInt8Array


@dataclass(frozen=True, eq=False)
class Sample:
    """One conversation's images, on the grid that the model reads, with its questions and ground truth.

    Attributes:
        clip: where it comes from.
        images_thwc: ``(T, h * 16, w * 16, 3)`` uint8.
        coverage_thwb: ``(T', h, w, MAX_BODIES)`` float32: share of each token's pixels that shows each body.
        displacement_tb: ``(T', MAX_BODIES, 2)`` float32: motion within a step of T', in image heights.
        roles_br: ``(MAX_BODIES, len(ROLES))`` float32, 1 where a comparison holds for a body.
        questions: objects first, background last.
        seconds_per_step: time between the steps of T'.
        is_video: whether the images are one video, or a single image.
    """

    clip: Clip
    images_thwc: UInt8Array
    coverage_thwb: Float32Array
    displacement_tb: Float32Array
    roles_br: Float32Array
    questions: tuple[Question, ...]
    seconds_per_step: float
    is_video: bool


def render_clip(seed: int, size_hw: tuple[int, int], start_s: float, interval_s: float) -> Clip:
    """Render 16 views of the scene of a seed."""
    scene = sample_scene(seed, size_hw)
    times_s = (start_s + interval_s * np.arange(CLIP_FRAMES)).astype(np.float32)
    views = [scene.render(float(time_s)) for time_s in times_s]
    return Clip(scene, times_s, np.stack([v.image_rgb for v in views]), np.stack([v.instances_hw for v in views]))


class ClipPool:
    """Rendered clips that are used a few times each, with other frames and other questions every time.

    Args:
        rng: decides everything.
        size: clips held, over all image sizes.
        reuse: how often a clip is drawn on average before another takes its place.
    """

    def __init__(self, rng: np.random.Generator, size: int = 320, reuse: float = 4.0) -> None:
        self._rng = rng
        self._renewal = 1.0 / reuse
        self._clips = {size_hw: [self._fresh(size_hw)] for size_hw in sorted(set(SIZES_HW))}
        self._capacity = {size_hw: size * SIZES_HW.count(size_hw) // len(SIZES_HW) for size_hw in self._clips}

    def draw(self, size_hw: tuple[int, int]) -> Clip:
        """Some clip of this image size; a fresh one until the pool is full."""
        clips = self._clips[size_hw]
        if len(clips) < self._capacity[size_hw]:
            clips.append(self._fresh(size_hw))
            return clips[-1]
        index = int(self._rng.integers(len(clips)))
        if self._rng.random() < self._renewal:
            clips[index] = self._fresh(size_hw)
        return clips[index]

    def _fresh(self, size_hw: tuple[int, int]) -> Clip:
        rng = self._rng
        start_s = float(rng.uniform(0, 20)) if rng.random() < 0.5 else 0.0
        seed = int(rng.integers(FIRST_TRAINING_SEED, 2**31))
        return render_clip(seed, size_hw, start_s, float(rng.choice(FRAME_INTERVALS_S)))


def draw_batch(pool: ClipPool, rng: np.random.Generator, is_video: bool, kinds: Sequence[str], questions: int) -> list[Sample]:
    """Samples that share image size, grid and length, so that they stack; as many as fit :data:`PATCHES_A_BATCH`."""
    size_hw = SIZES_HW[int(rng.integers(len(SIZES_HW)))]
    grid_hw = fit_grid(size_hw, VIDEO_FRAME_TOKENS if is_video else IMAGE_TOKENS)
    if rng.random() < 0.1:
        grid_hw = (grid_hw[0] + int(rng.integers(-1, 2)), grid_hw[1] + int(rng.integers(-1, 2)))
    length = int(rng.choice(VIDEO_LENGTHS)) if is_video else 1
    patches = 4 * grid_hw[0] * grid_hw[1] * ((length + 1) // 2)
    count = int(np.clip(PATCHES_A_BATCH // patches, 2, 12))
    samples: list[Sample] = []
    while len(samples) < count:
        sample = _draw_sample(pool.draw(size_hw), rng, grid_hw, length, is_video, kinds, questions)
        if sample is not None:
            samples.append(sample)
    return samples


def draw_close_ups(rng: np.random.Generator) -> list[Sample]:
    """Pairs of small views of one to three bodies, large in the image: the cheapest way to learn to see shapes."""
    size_hw = (CLOSE_UP_GRID_HW[0] * TOKEN_PIXELS, CLOSE_UP_GRID_HW[1] * TOKEN_PIXELS)
    return [_close_up(rng, size_hw) for _ in range(CLOSE_UPS_A_BATCH)]


def _close_up(rng: np.random.Generator, size_hw: tuple[int, int]) -> Sample:
    scene = sample_scene(int(rng.integers(FIRST_TRAINING_SEED, 2**31)), size_hw, screens=False)
    count = int(rng.integers(1, min(3, len(scene.bodies)) + 1))
    scale = float(rng.uniform(1.0, 2.4 / math.sqrt(count)))
    scene = with_bodies(scene, [replace(body, radius=scale * body.radius) for body in scene.bodies[:count]])
    times_s = np.float32([0.0, rng.choice([0.0, *FRAME_INTERVALS_S])])
    views = [scene.render(float(time_s)) for time_s in times_s]
    clip = Clip(scene, times_s, np.stack([v.image_rgb for v in views]), np.stack([v.instances_hw for v in views]))
    return Sample(
        clip=clip,
        images_thwc=clip.images_thwc,
        coverage_thwb=coverage_on_grid(clip.instances_thw, CLOSE_UP_GRID_HW),
        displacement_tb=_displacements(clip, np.arange(2)),
        roles_br=_roles(expressions_of(scene, [float(time_s) for time_s in times_s], rng)),
        questions=(),
        seconds_per_step=1.0,
        is_video=True,
    )


def _draw_sample(
    clip: Clip,
    rng: np.random.Generator,
    grid_hw: tuple[int, int],
    length: int,
    is_video: bool,
    kinds: Sequence[str],
    questions: int,
) -> Sample | None:
    """A sample from some frames of a clip, or None when nothing unambiguous can be said about it."""
    span = length if is_video else int(rng.choice([1, 4, 8, 12, 16]))
    stride = 2 if span <= CLIP_FRAMES // 2 and rng.random() < 0.3 else 1
    first = int(rng.integers(CLIP_FRAMES - (span - 1) * stride))
    window = first + stride * np.arange(span)
    shown = window if is_video else window[[int(rng.integers(span))]]
    expressions = expressions_of(clip.scene, [float(t) for t in clip.times_s[window]], rng)
    coverage_thwb = coverage_on_grid(clip.instances_thw[shown], grid_hw)
    visible = coverage_thwb.max(axis=(0, 1, 2)) > 0.25
    expressions = [e for e in expressions if visible[e.body_index]]
    asked = choose_expressions(expressions, rng, kinds, questions)
    if not asked:
        return None
    interval_s = stride * float(clip.times_s[1] - clip.times_s[0])
    return Sample(
        clip=clip,
        images_thwc=resize_images(clip.images_thwc[shown], grid_hw),
        coverage_thwb=coverage_thwb,
        displacement_tb=_displacements(clip, shown),
        roles_br=_roles(expressions),
        questions=(*(object_question(e, rng) for e in asked), background_question(clip.scene, asked, rng)),
        # As the processor has it: a lone frame has a nominal rate of 1 Hz.
        seconds_per_step=2 * interval_s if length > 1 else 2.0,
        is_video=is_video,
    )


def coverage_on_grid(instances_thw: UInt8Array, grid_hw: tuple[int, int]) -> Float32Array:
    """``(T', h, w, MAX_BODIES)`` float32: the share of each token's pixels that shows each body, frames merged in pairs."""
    bodies = np.arange(1, MAX_BODIES + 1, dtype=np.uint8)
    frames = [
        cv2.resize((view[..., None] == bodies).astype(np.float32), grid_hw[::-1], interpolation=cv2.INTER_AREA)
        for view in instances_thw
    ]
    if len(frames) % 2:
        frames.append(frames[-1])
    stacked = np.stack(frames)
    return stacked.reshape(len(frames) // 2, 2, *stacked.shape[1:]).mean(axis=1)


def resize_images(images_thwc: UInt8Array, grid_hw: tuple[int, int]) -> UInt8Array:
    """The images on exactly this grid of visual tokens (bicubic, as at run time)."""
    size_wh = (grid_hw[1] * TOKEN_PIXELS, grid_hw[0] * TOKEN_PIXELS)
    return np.stack([np.asarray(Image.fromarray(image).resize(size_wh, Image.Resampling.BICUBIC)) for image in images_thwc])


def _roles(expressions: Sequence[Expression]) -> Float32Array:
    roles_br = np.zeros((MAX_BODIES, len(ROLES)), dtype=np.float32)
    for expression in expressions:
        if (role := role_of(expression)) != NO_ROLE:
            roles_br[expression.body_index, role] = 1.0
    return roles_br


def _displacements(clip: Clip, shown: np.ndarray) -> Float32Array:
    """``(T', MAX_BODIES, 2)`` float32: how far each body moves within each pair of frames, in image heights."""
    height, width = clip.scene.size_hw
    steps = (len(shown) + 1) // 2
    displacement_tb = np.zeros((steps, MAX_BODIES, 2), dtype=np.float32)
    for step in range(steps):
        pair = clip.times_s[shown[[2 * step, min(2 * step + 1, len(shown) - 1)]]]
        for index, body in enumerate(clip.scene.bodies):
            (x0, y0), (x1, y1) = (body.motion.position_at(float(time_s)) for time_s in pair)
            displacement_tb[step, index] = ((x1 - x0) * width / height, y1 - y0)
    return displacement_tb
