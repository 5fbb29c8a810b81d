"""Batches of the procedural world for a SAM 2.1: single images with clicks, and clips with objects to track."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch

from decaf_ros.datatypes import BoolArray, Float32Array
from decaf_ros.synthetic.world import DEFAULT_SIZE_HW, FIRST_TRAINING_SEED
from tools.embedded_sam2.clips import Clip, sample_clip, sample_still, shrink_masks, to_model_input

_MIN_PROMPT_PIXELS = 80
_MIN_SUPERVISED_PIXELS = 12
_LONG_CLIP = 32

Prompt = Literal["click", "mask"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Objects on clips of equal length, with one kind of prompt on the first frame. ``B`` clips, ``T`` frames, ``N`` objects.

    Attributes:
        images: ``(B * T, 3, S, S)`` float32, clip by clip.
        clip_of: ``(N,)`` int64, the clip that each object is on.
        targets: ``(N, T, S / 2, S / 2)`` float32, covered part of each pixel.
        any_body: the same for all bodies of the clip together.
        visible: ``(N, T)`` float32, 1 where any pixel can be seen.
        clear: ``(N, T)`` float32, 0 where so few pixels can be seen that neither answer is wrong, else 1.
        points: ``(N, 2)`` float32 clicks in pixels of the model's input, for click prompts.
        masks: ``(N, 1, S, S)`` bool, for mask prompts.
    """

    images: torch.Tensor
    clip_of: torch.Tensor
    targets: torch.Tensor
    any_body: torch.Tensor
    visible: torch.Tensor
    clear: torch.Tensor
    points: torch.Tensor | None = None
    masks: torch.Tensor | None = None

    @property
    def frame_count(self) -> int:
        """Frames per clip."""
        return self.targets.shape[1]


def sample_stills_batch(rng: np.random.Generator, image_count: int, clicks: int, size: int) -> Batch:
    """Single images with clicks: in a body, now and then just beside one, or on bare ground, where there is no object."""
    clips: list[Clip] = []
    clip_of: list[int] = []
    masks: list[BoolArray] = []
    points: list[tuple[float, float]] = []
    while len(clips) < image_count:
        clip = sample_still(_training_seed(rng), _camera_size(rng))
        bodies = clip.bodies_seen_first(_MIN_PROMPT_PIXELS)
        if not bodies:
            continue
        for _ in range(clicks):
            mask = clip.masks_of(int(rng.choice(bodies)))
            ground = _far_from_bodies(clip) if rng.random() < 0.1 else None
            if ground is not None and ground.any():
                mask, click = np.zeros_like(mask), _pixel_of(ground, rng)
            else:
                click = _pixel_of(_with_rim(mask[0], clip) if rng.random() < 0.1 else mask[0], rng)
            clip_of.append(len(clips))
            masks.append(mask)
            points.append(click)
        clips.append(clip)
    return _assemble(clips, clip_of, masks, points, "click", size)


def sample_clips_batch(
    rng: np.random.Generator, clip_count: int, objects: int, frame_count: int, prompt: Prompt, size: int
) -> Batch:
    """Clips with the target and other bodies to track, each prompted on the first frame."""
    clips: list[Clip] = []
    clip_of: list[int] = []
    masks: list[BoolArray] = []
    points: list[tuple[float, float]] = []
    while len(clips) < clip_count:
        length, steps = _moments(rng, frame_count)
        clip = sample_clip(_training_seed(rng), length, size_hw=_camera_size(rng), steps=steps)
        bodies = clip.bodies_seen_first(_MIN_PROMPT_PIXELS)
        if not bodies:
            continue
        for slot in range(objects):
            mask = clip.masks_of(bodies[slot % len(bodies)])
            clip_of.append(len(clips))
            masks.append(mask)
            points.append(_pixel_of(mask[0], rng))
        clips.append(clip)
    return _assemble(clips, clip_of, masks, points, prompt, size)


def discs_at_clicks(batch: Batch) -> Batch:
    """The same images and clicks, to be answered by a disc at the click: what a fresh mask decoder learns first."""
    assert batch.points is not None
    size = batch.targets.shape[-1]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    x, y = (batch.points / 2).unbind(dim=1)
    distance = torch.hypot(columns - x[:, None, None], rows - y[:, None, None])
    discs = (distance < size / 8).float()[:, None]
    ones = torch.ones_like(batch.visible)
    return Batch(batch.images, batch.clip_of, discs, discs, ones, ones, points=batch.points)


def _assemble(
    clips: list[Clip],
    clip_of: list[int],
    masks: list[BoolArray],
    points: list[tuple[float, float]],
    prompt: Prompt,
    size: int,
) -> Batch:
    scales = [(size / mask.shape[2], size / mask.shape[1]) for mask in masks]
    pixels = np.stack([mask.sum(axis=(1, 2)) for mask in masks])
    bodies = [shrink_masks(clip.instances_thw > 0, size // 2) for clip in clips]
    firsts: Float32Array = np.stack([shrink_masks(mask[:1], size) for mask in masks])
    return Batch(
        images=torch.from_numpy(np.concatenate([to_model_input(clip.frames, size) for clip in clips])),
        clip_of=torch.tensor(clip_of),
        targets=torch.from_numpy(np.stack([shrink_masks(mask, size // 2) for mask in masks])),
        any_body=torch.from_numpy(np.stack([bodies[number] for number in clip_of])),
        visible=torch.from_numpy((pixels > 0).astype(np.float32)),
        clear=torch.from_numpy(((pixels == 0) | (pixels >= _MIN_SUPERVISED_PIXELS)).astype(np.float32)),
        points=torch.tensor(points) * torch.tensor(scales) if prompt == "click" else None,
        masks=torch.from_numpy(firsts >= 0.5) if prompt == "mask" else None,
    )


def _training_seed(rng: np.random.Generator) -> int:
    return FIRST_TRAINING_SEED + int(rng.integers(2**31))


def _moments(rng: np.random.Generator, frame_count: int) -> tuple[int, list[int]]:
    """Length of a clip, and the steps that are looked at: an event may fit in, go on for longer, or be joined in the middle.

    The last, a prompt followed by frames from later on, makes the tracker find its object by looks and not by place alone.
    """
    kind = rng.choice(("whole", "part", "later"), p=(0.5, 0.2, 0.3))
    length = frame_count if kind == "whole" else _LONG_CLIP
    start = int(rng.integers(length - frame_count + 1))
    steps = list(range(start, start + frame_count))
    return length, ([0, *steps[1:]] if kind == "later" else steps)


def _camera_size(rng: np.random.Generator) -> tuple[int, int]:
    """Mostly the world's own image size, and now and then a wide or a square one: they are squashed differently."""
    return ((144, 256), (256, 256), DEFAULT_SIZE_HW)[int(rng.choice(3, p=(0.12, 0.12, 0.76)))]


def _pixel_of(mask_hw: BoolArray, rng: np.random.Generator) -> tuple[float, float]:
    """``(x, y)`` of a pixel of a mask: any, or, half of the time, one deep inside, where peaks of attention tend to be."""
    if rng.random() < 0.5:
        depth = cv2.distanceTransform(np.pad(mask_hw, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        mask_hw = depth >= 0.5 * depth.max()
    rows, columns = np.nonzero(mask_hw)
    pick = int(rng.integers(len(rows)))
    return float(columns[pick]), float(rows[pick])


def _with_rim(mask_hw: BoolArray, clip: Clip, rim_px: int = 5) -> BoolArray:
    """A body and the bare ground close around it."""
    wider = cv2.dilate(mask_hw.astype(np.uint8), np.ones((2 * rim_px + 1, 2 * rim_px + 1), np.uint8)).astype(bool)
    return mask_hw | (wider & (clip.instances_thw[0] == 0))


def _far_from_bodies(clip: Clip, distance_px: int = 20) -> BoolArray:
    """``(H, W)`` bool: pixels of the ground or a screen with no body near."""
    free = (clip.instances_thw[0] == 0).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, 3) > distance_px)
