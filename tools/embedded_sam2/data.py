"""Batches of the robot's table for a SAM 2.1, made on the device: single images with clicks, and clips with things to track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from decaf_ros.synthetic.table.scene import MAX_THINGS
from tools.embedded_sam2.staging import ARM, any_of, constant, stage, whereabouts
from tools.table_clips import Clip

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_MIN_PROMPT_PIXELS = 80  # of a camera image
_MIN_STAGED_PIXELS = 60  # of an image of 256 x 256, where something may be in front
_MIN_SUPERVISED_PIXELS = 12
_NOTHING = 200  # a label that nothing has

Prompt = Literal["click", "mask"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Objects on clips of equal length, with one kind of prompt on the first frame.

    ``B`` clips of ``T`` frames; ``N`` objects, clip by clip, as many on each.

    Attributes:
        images: ``(B * T, 3, S, S)`` float32, clip by clip, as SAM 2 takes them.
        targets: ``(N, T, S / 2, S / 2)`` float32, covered part of each pixel.
        anything: ``(B, T, S / 2, S / 2)`` float32, the same for all things, arms and screens together.
        visible: ``(N, T)`` float32, 1 where any pixel can be seen.
        clear: ``(N, T)`` float32, 0 where so few pixels can be seen that neither answer is wrong, else 1; all 0 for an object
            that cannot be prompted.
        points: ``(N, 2)`` float32 clicks in pixels of the model's input, for click prompts.
        masks: ``(N, 1, S, S)`` bool, for mask prompts.
    """

    images: torch.Tensor
    targets: torch.Tensor
    anything: torch.Tensor
    visible: torch.Tensor
    clear: torch.Tensor
    points: torch.Tensor | None = None
    masks: torch.Tensor | None = None

    @property
    def frame_count(self) -> int:
        """Frames per clip."""
        return self.targets.shape[1]

    @property
    def objects(self) -> int:
        """Objects per clip."""
        return len(self.targets) // len(self.anything)


def sample_stills_batch(clips: Sequence[Clip], rng: np.random.Generator, image_count: int, clicks: int, size: int) -> Batch:
    """Single images with clicks: in a thing, now and then just beside one, in an arm, or on the bare table."""
    images, labels = _frames(clips, rng, image_count, frame_count=1)
    chances, _ = _chances(labels)
    device = labels.device
    things = _drawn(chances[:, None].expand(-1, clicks, -1)) + 1  # (B, K) labels
    shots = stage(images, labels, things[:, 0].to(torch.uint8), size)
    seen = shots.labels[:, 0]
    kind = any_of((0.76, 0.08, 0.08, 0.08), (image_count, clicks), device)
    wanted = torch.where(kind == 2, ARM, torch.where(kind == 3, _NOTHING, things))
    masks = seen[:, None] == wanted[..., None, None]  # (B, K, S, S)
    chosen = kind[..., None, None]
    bare = F.max_pool2d((seen > 0).float()[:, None], size // 16 * 2 + 1, stride=1, padding=size // 16) == 0
    rim = F.max_pool2d(masks.float(), 9, stride=1, padding=4) * (masks | (seen == 0)[:, None])
    weights = torch.where(chosen == 3, bare.float(), torch.where(chosen == 1, rim, _inner(masks)))
    usable = torch.where(kind == 3, bare.any(dim=(2, 3)).expand_as(kind), _enough(masks, size))
    return _assemble(shots.images, shots.labels, wanted, usable, size, points=_pixels(weights.flatten(0, 1)))


def sample_clips_batch(
    clips: Sequence[Clip],
    rng: np.random.Generator,
    clip_count: int,
    objects: int,
    frame_count: int,
    prompt: Prompt,
    size: int,
) -> Batch:
    """Clips with things to track, each prompted on the first frame; those that move or get hidden are likelier than others."""
    images, labels = _frames(clips, rng, clip_count, frame_count)
    still, lively = _chances(labels)
    chances = still * 0.3 + lively
    order = (chances / torch.empty_like(chances).exponential_()).topk(objects, dim=1).indices
    order = torch.where(chances.gather(1, order) > 0, order, order[:, :1])
    things = order + 1
    shots = stage(images, labels, things[:, 0].to(torch.uint8), size)
    masks = shots.labels[:, :1] == things[..., None, None]
    usable = _enough(masks, size)
    if prompt == "click":
        return _assemble(shots.images, shots.labels, things, usable, size, points=_pixels(_inner(masks).flatten(0, 1)))
    masks = masks.flatten(0, 1)[:, None]
    if rng.random() < 0.3:  # what a tracker is given is not always the truth
        grown = F.max_pool2d(masks.float(), 3, stride=1, padding=1) > 0
        masks = grown if rng.random() < 0.5 else masks & (F.avg_pool2d(masks.float(), 3, stride=1, padding=1) > 0.7)
    return _assemble(shots.images, shots.labels, things, usable, size, masks=masks)


def discs_at_clicks(batch: Batch) -> Batch:
    """The same images and clicks, to be answered by a disc at the click: what a fresh mask decoder learns first."""
    assert batch.points is not None
    size = batch.targets.shape[-1]
    ticks = torch.arange(size, device=batch.points.device)
    x, y = (batch.points / 2)[:, :, None, None].unbind(dim=1)
    discs = (torch.hypot(ticks - x, ticks[:, None] - y) < size / 8).float()[:, None]
    ones = torch.ones_like(batch.visible)
    nothing = torch.zeros_like(batch.anything)
    return Batch(batch.images, discs, nothing, ones, ones, points=batch.points)


def _frames(
    clips: Sequence[Clip], rng: np.random.Generator, clip_count: int, frame_count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B, T, H, W, 3)`` and ``(B, T, H, W)`` uint8: frames of clips, forwards or backwards, close together or not."""
    available = len(clips)
    images, labels = [], []
    for _ in range(clip_count):
        clip = clips[int(rng.integers(available))]
        for frame in _moments(rng, len(clip.times_s), frame_count):
            images.append(clip.images[frame])
            labels.append(clip.instances[frame])
    shape = (clip_count, frame_count)
    return torch.stack(images).unflatten(0, shape), torch.stack(labels).unflatten(0, shape)


def _moments(rng: np.random.Generator, length: int, frame_count: int) -> list[int]:
    """Which frames of a clip of some length.

    In a third of the clips the prompt is followed by frames from later on: they make the tracker find its object by looks and
    not by place alone.
    """
    stride = min(int(rng.choice((1, 2, 3), p=(0.6, 0.25, 0.15))), max(1, (length - 1) // max(1, frame_count - 1)))
    start = int(rng.integers(max(1, length - (frame_count - 1) * stride)))
    frames = [min(start + stride * number, length - 1) for number in range(frame_count)]
    if rng.random() < 0.33:
        frames[0] = int(rng.integers(length))
    elif rng.random() < 0.5:
        frames.reverse()
    return frames


def _chances(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B, things)``: 1 for things that can be prompted on the first frame; and 1 for those of them that get away after it."""
    labels = labels[..., ::2, ::2]
    numbers = torch.arange(1, MAX_THINGS + 1, device=labels.device, dtype=torch.uint8)
    found = whereabouts(labels[:, :, None] == numbers[:, None, None])
    can = (4 * found.counts[:, 0] >= _MIN_PROMPT_PIXELS).float()
    hidden = found.counts.amin(dim=1) < 0.6 * found.counts[:, 0]
    moved = ((found.places - found.places[:, :1]).abs().amax(dim=-1) * (found.counts > 0)).amax(dim=1) > 0.06
    return can, can * (hidden | moved)


def _drawn(chances: torch.Tensor) -> torch.Tensor:
    """One index for each row of ``(..., n)`` weights that need not sum to 1; any for rows of zeros."""
    return (chances / torch.empty_like(chances).exponential_()).argmax(dim=-1)


def _enough(masks: torch.Tensor, size: int) -> torch.Tensor:
    """``(B, K)`` bool: whether so much of ``(B, K, S, S)`` masks can be seen that one can point at it."""
    return masks.sum(dim=(-1, -2)) >= _MIN_STAGED_PIXELS * (size / 256) ** 2


def _inner(masks: torch.Tensor) -> torch.Tensor:
    """``(B, K, S, S)``: weights of clicks: the mask, or, half of the time, its inner part, where peaks of attention are."""
    depth = F.avg_pool2d(masks.float(), 9, stride=1, padding=4) * masks
    deep = depth >= 0.8 * depth.amax(dim=(-1, -2), keepdim=True)
    either = torch.rand(masks.shape[:2], device=masks.device)[..., None, None] < 0.5
    return (masks & (deep | either)).float()


def _pixels(weights: torch.Tensor) -> torch.Tensor:
    """``(N, 2)`` float32 ``(x, y)`` of a pixel each, drawn by ``(N, S, S)`` weights."""
    picks = _drawn(weights.flatten(1))
    return torch.stack([picks % weights.shape[-1], picks // weights.shape[-1]], dim=1).float()


def _assemble(
    images: torch.Tensor,
    labels: torch.Tensor,
    wanted: torch.Tensor,
    usable: torch.Tensor,
    size: int,
    points: torch.Tensor | None = None,
    masks: torch.Tensor | None = None,
) -> Batch:
    """A batch of ``(B, T, 3, S, S)`` images and ``(B, T, S, S)`` labels, of which ``(B, K)`` are wanted where usable."""
    device = labels.device
    shown = (labels[:, None] == wanted[..., None, None, None]).flatten(0, 1)
    pixels = shown.sum(dim=(-1, -2))
    clear = (pixels == 0) | (pixels >= _MIN_SUPERVISED_PIXELS * (size / 256) ** 2)
    mean, std = (constant(values, device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return Batch(
        images=((images - mean) / std).flatten(0, 1),
        targets=F.avg_pool2d(shown.float(), 2),
        anything=F.avg_pool2d((labels > 0).float(), 2),
        visible=(pixels > 0).float(),
        clear=(clear & usable.flatten()[:, None]).float(),
        points=points,
        masks=masks,
    )
