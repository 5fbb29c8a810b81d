"""Held-out scores of a SAM 2.1 on the robot's table: clicks on images, and masks carried over clips.

``python -m tools.embedded_sam2.evaluate`` prints those of the shipped model; rendering takes most of its minutes.
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from safetensors.torch import load_file
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.datatypes import BoolArray, Frame, UInt8Array
from decaf_ros.evaluation.metrics import boundary_accuracy, region_similarity
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.strict_json import to_json
from decaf_ros.synthetic.table.episodes import Episode, sample_episode
from decaf_ros.synthetic.table.rendering import View
from decaf_ros.synthetic.table.sampling import require_held_out
from tools.embedded_sam2.data import IMAGENET_MEAN, IMAGENET_STD
from tools.embedded_sam2.model import SHIPPED, build_sam2

FIRST_SEED = 200_000
CLIP_FRAMES = 32
INTERVALS_S = (0.25, 0.1)  # the node's key frames, and a live camera
_IMAGES_PER_EPISODE = 4
_MIN_CLICK_PIXELS, _MIN_TRACK_PIXELS = 80, 150
_GLANCE_S = 0.25


@dataclass(frozen=True, eq=False)
class HeldOutClip:
    """Frames of an episode and one thing to track in them.

    Attributes:
        hard: whether less than half of the thing can be seen on some of them: it is hidden, or leaves the image.
        frames: ``T`` images, ``(H, W, 3)`` uint8 RGB.
        truth_thw: ``(T, H, W)`` bool, the visible pixels of the thing.
    """

    hard: bool
    frames: tuple[UInt8Array, ...]
    truth_thw: BoolArray


def held_out_images(count: int, first_seed: int = FIRST_SEED) -> Iterator[tuple[View, np.random.Generator]]:
    """Views of held-out episodes at any time, each with a generator for what is drawn about it."""
    for number in range(count):
        seed = require_held_out(first_seed + number // _IMAGES_PER_EPISODE)
        if number % _IMAGES_PER_EPISODE == 0:
            episode = sample_episode(seed)
        rng = np.random.default_rng((seed, number))
        yield episode.render(float(rng.uniform(0.0, episode.scene.duration_s))), rng


def held_out_clips(count: int, first_seed: int = FIRST_SEED) -> Iterator[HeldOutClip]:
    """Clips of held-out episodes, two at 4 Hz and two at 10 Hz in turn; of each two the first is hard."""
    seed, number = first_seed, 0
    while number < count:
        clip = _sample_clip(require_held_out(seed), INTERVALS_S[number // 2 % 2], hard=number % 2 == 0)
        seed += 1
        if clip is not None:
            number += 1
            yield clip


def _sample_clip(seed: int, interval_s: float, hard: bool) -> HeldOutClip | None:
    """A clip that begins with a thing in full view, unless the episode has none such."""
    episode, rng = sample_episode(seed), np.random.default_rng(seed)
    span_s = (CLIP_FRAMES - 1) * interval_s
    starts = [start for start in _starts(episode, span_s) if start[2] or not hard]
    for index in rng.permutation(len(starts))[:20]:
        start_s, thing, _ = starts[index]
        if np.count_nonzero(episode.render(start_s).mask_of(thing)) < _MIN_TRACK_PIXELS:
            continue
        views = [episode.render(start_s + interval_s * step) for step in range(CLIP_FRAMES)]
        truth = np.stack([view.mask_of(thing) for view in views])
        return HeldOutClip(hard, tuple(view.image_rgb for view in views), truth)
    return None


def _starts(episode: Episode, span_s: float) -> Iterator[tuple[float, int, bool]]:
    """Where a clip can begin: the time, the thing that is in full view then, and whether it is lost sight of later."""
    times = np.arange(0.0, episode.scene.duration_s, _GLANCE_S)
    fractions = np.stack([episode.visible_fractions(float(time_s)) for time_s in times])
    glances = int(np.ceil(span_s / _GLANCE_S))
    for begin in range(len(times) - glances):
        for thing in np.flatnonzero(fractions[begin] >= 0.8):
            lowest = fractions[begin : begin + glances + 1, thing].min()
            yield float(times[begin]), int(thing), bool(lowest < 0.5)


@torch.inference_mode()
def click_scores(model: SAM2Base, image_count: int) -> dict[str, float]:
    """Masks from one click each, anywhere in a thing: IoU at camera resolution.

    Returns:
        ``click_iou`` of the mask that the model prefers, ``click_best_of_3``, ``iou_correlation`` (Pearson, all masks), and
        ``table_rejected``: the share of clicks on the bare table that got no mask.
    """
    chosen, best, predicted, true, rejected = [], [], [], [], []
    for view, rng in held_out_images(image_count):
        backbone = model.forward_image(torch.from_numpy(to_model_input(view.image_rgb, model.image_size)))
        counts = np.bincount(view.instances_hw.reshape(-1), minlength=256)[1:-1]
        for thing in np.flatnonzero(counts >= _MIN_CLICK_PIXELS):
            truth = view.mask_of(int(thing))
            masks, ious = _click(model, backbone, _pick(truth, rng), truth.shape)
            scores = [region_similarity(mask, truth) for mask in masks]
            chosen.append(scores[int(np.argmax(ious))])
            best.append(max(scores))
            predicted += ious
            true += scores
        free = cv2.distanceTransform((view.instances_hw == 0).astype(np.uint8), cv2.DIST_L2, 3) > 20
        if free.any():
            masks, _ = _click(model, backbone, _pick(free, rng), free.shape)
            rejected.append(not any(mask.any() for mask in masks))
    return {
        "click_iou": float(np.mean(chosen)),
        "click_best_of_3": float(np.mean(best)),
        "iou_correlation": float(np.corrcoef(predicted, true)[0, 1]),
        "table_rejected": float(np.mean(rejected)),
    }


def tracking_scores(model: SAM2Base, clips: Sequence[HeldOutClip], clicks: bool = False) -> dict[str, float]:
    """Carry first masks over clips of 32 frames.

    Args:
        model: to judge.
        clips: see :func:`held_out_clips`.
        clicks: prompt with a click instead of the true mask.

    Returns:
        ``j_every``: region score over all frames after the first, where no mask on a hidden frame is right, as DAVIS counts;
        ``j`` and ``f``: region and boundary score over visible frames alone; ``j_last_8``: the same over the last 8 frames;
        ``j_hard`` and ``j_plain``: by clips in which the thing is lost sight of, or not; ``j_partly_hidden``: where 5 to 50 %
        of its first size can be seen; ``j_after_loss``: after it was fully hidden; ``false_masks``: share of fully hidden
        frames with any mask.
    """
    tracker = Sam2Tracker(Sam2Network(copy.deepcopy(model)))  # which wants weights that stand still
    collected: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        _collect(collected, clip, track(tracker, clip, clicks))
    return {name: float(np.mean(values)) for name, values in sorted(collected.items())}


def _collect(collected: dict[str, list[float]], clip: HeldOutClip, masks: BoolArray) -> None:
    """Add the scores of one clip, frame by frame."""
    truth = clip.truth_thw
    areas = truth.sum(axis=(1, 2))
    lost = False
    for index in range(1, len(truth)):
        j = region_similarity(masks[index], truth[index])
        collected["j_every"].append(j)
        if areas[index] == 0:
            collected["false_masks"].append(float(masks[index].any()))
            lost = True
            continue
        collected["j"].append(j)
        collected["f"].append(boundary_accuracy(masks[index], truth[index]))
        collected["j_hard" if clip.hard else "j_plain"].append(j)
        if index >= len(truth) - 8:
            collected["j_last_8"].append(j)
        if 0.05 <= areas[index] / areas[0] <= 0.5:
            collected["j_partly_hidden"].append(j)
        if lost:
            collected["j_after_loss"].append(j)


def track(tracker: Sam2Tracker, clip: HeldOutClip, click: bool = False) -> BoolArray:
    """``(T, H, W)`` bool: the thing's masks over a clip from the product's tracker, from its true mask on the first frame.

    With ``click``, the first mask is what the model makes of a click in it.
    """
    frames = [tracker.encode(Frame(index, "camera", image)) for index, image in enumerate(clip.frames)]
    first = clip.truth_thw[0]
    if click:
        first = tracker.propose(frames[0], [_pick(first, np.random.default_rng(0))]).masks_phw[0]
    state = tracker.start_track(frames[0], first)
    return np.stack([first, *(tracker.step([state], frame)[0].mask_hw for frame in frames[1:])])


def to_model_input(image_rgb: UInt8Array, size: int) -> np.ndarray:
    """``(1, 3, size, size)`` float32: an image as SAM 2's own video loader prepares it."""
    squashed = np.asarray(Image.fromarray(image_rgb).resize((size, size)), dtype=np.float32)
    normal = (squashed / 255 - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def _click(
    model: SAM2Base, backbone: dict[str, Any], point: tuple[int, int], size_hw: tuple[int, ...]
) -> tuple[list[BoolArray], list[float]]:
    """The three masks for a click at camera resolution, and their predicted IoU."""
    maps = backbone["backbone_fpn"]
    low_res, _, ious, *_ = model._forward_sam_heads(
        backbone_features=maps[-1] + model.no_mem_embed.view(1, -1, 1, 1),
        point_inputs=_point_inputs(point, size_hw, model.image_size),
        high_res_features=maps[:-1],
        multimask_output=True,
    )
    logits = F.interpolate(low_res, size=size_hw, mode="bilinear", align_corners=False)[0]
    return list((logits > 0).numpy()), ious[0].tolist()


def _point_inputs(point: tuple[int, int], size_hw: tuple[int, ...], size: int) -> dict[str, torch.Tensor]:
    scaled = torch.tensor([[[point[0] * size / size_hw[1], point[1] * size / size_hw[0]]]])
    return {"point_coords": scaled, "point_labels": torch.ones(1, 1, dtype=torch.int32)}


def _pick(mask_hw: BoolArray, rng: np.random.Generator) -> tuple[int, int]:
    rows, columns = np.nonzero(mask_hw)
    pick = int(rng.integers(len(rows)))
    return int(columns[pick]), int(rows[pick])


def main() -> None:
    """Print the held-out scores of a model as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--weights", type=Path, default=SHIPPED / "model.safetensors", help="safetensors file to judge")
    parser.add_argument("--image-size", type=int, help="input size; that of the shipped config when left out")
    parser.add_argument("--images", type=int, default=100, help="held-out images to click on")
    parser.add_argument("--clips", type=int, default=48, help="held-out clips to track through")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = list(held_out_clips(arguments.clips))
    model = build_sam2(image_size=arguments.image_size).eval()
    model.load_state_dict({name: value.float() for name, value in load_file(arguments.weights).items()})
    scores = {
        **click_scores(model, arguments.images),
        "from mask": tracking_scores(model, clips),
        "from click": tracking_scores(model, clips, clicks=True),
    }
    print(to_json(scores, indent=2))


if __name__ == "__main__":
    main()
