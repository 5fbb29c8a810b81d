"""Held-out scores of a SAM 2.1 on the procedural world: clicks on images, and masks carried over clips that lose the object.

``python -m tools.embedded_sam2.evaluate`` prints those of the shipped model.
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.evaluation.metrics import boundary_accuracy, region_similarity
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.strict_json import to_json
from tools.embedded_sam2.clips import EVENTS, Clip, sample_clip, sample_still, to_model_input
from tools.embedded_sam2.model import SHIPPED, build_sam2

FIRST_CLICK_SEED = 100_000
FIRST_CLIP_SEED = 200_000
CLIP_FRAMES = 32


@torch.inference_mode()
def click_scores(model: SAM2Base, image_count: int) -> dict[str, float]:
    """Masks from one click each, anywhere in a body: IoU at camera resolution.

    Returns:
        ``click_iou`` of the mask that the model prefers, ``click_best_of_3``, ``iou_correlation`` (Pearson, all masks), and
        ``ground_rejected``: the share of clicks on bare ground that got no mask.
    """
    chosen, best, predicted, true, rejected = [], [], [], [], []
    for seed in range(FIRST_CLICK_SEED, FIRST_CLICK_SEED + image_count):
        clip, rng = sample_still(seed), np.random.default_rng(seed)
        backbone = model.forward_image(torch.from_numpy(to_model_input(clip.frames, model.image_size)))
        for body in clip.bodies_seen_first(min_pixels=80):
            truth = clip.masks_of(body)[0]
            masks, ious = _click(model, backbone, _pick(truth, rng), truth.shape)
            scores = [region_similarity(mask, truth) for mask in masks]
            chosen.append(scores[int(np.argmax(ious))])
            best.append(max(scores))
            predicted += ious
            true += scores
        free = cv2.distanceTransform((clip.instances_thw[0] == 0).astype(np.uint8), cv2.DIST_L2, 3) > 20
        if free.any():
            masks, _ = _click(model, backbone, _pick(free, rng), free.shape)
            rejected.append(not any(mask.any() for mask in masks))
    return {
        "click_iou": float(np.mean(chosen)),
        "click_best_of_3": float(np.mean(best)),
        "iou_correlation": float(np.corrcoef(predicted, true)[0, 1]),
        "ground_rejected": float(np.mean(rejected)),
    }


def tracking_scores(model: SAM2Base, clip_count: int, clicks: bool = False) -> dict[str, float]:
    """Carry the target's first mask over clips of 32 frames; a quarter each has no event, crossings, screens and excursions.

    Args:
        clip_count: clips, alternating between steps of 0.25 s and the live camera's 0.1 s.
        clicks: prompt with a click instead of the true mask.

    Returns:
        ``j_every``: region score over all frames after the first, where no mask on a hidden frame is right, as DAVIS counts;
        ``j`` and ``f``: region and boundary score over visible frames alone; ``j_last_8``: the same over the last 8 frames;
        ``j_occluded``: where 5 to 50 % of its first size can be seen; ``j_after_loss``: after it was fully hidden;
        ``false_masks``: share of fully hidden frames with any mask; ``j_<event>``: by kind of clip.
    """
    tracker = Sam2Tracker(Sam2Network(copy.deepcopy(model)))  # which wants weights that stand still
    collected: dict[str, list[float]] = defaultdict(list)
    seed, done = FIRST_CLIP_SEED, 0
    while done < clip_count:
        clip = sample_clip(seed, CLIP_FRAMES, EVENTS[done % len(EVENTS)], (0.25, 0.1)[done // len(EVENTS) % 2])
        seed += 1
        truth = clip.masks_of(clip.target)
        if np.count_nonzero(truth[0]) < 150:
            continue
        done += 1
        _collect(collected, clip.event, track(tracker, clip, clip.target, clicks), truth)
    return {name: float(np.mean(values)) for name, values in collected.items()}


def _collect(collected: dict[str, list[float]], event: str, masks: BoolArray, truth: BoolArray) -> None:
    """Add the scores of one clip, frame by frame."""
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
        collected[f"j_{event}"].append(j)
        if index >= len(truth) - 8:
            collected["j_last_8"].append(j)
        if 0.05 <= areas[index] / areas[0] <= 0.5:
            collected["j_occluded"].append(j)
        if lost:
            collected["j_after_loss"].append(j)


def track(tracker: Sam2Tracker, clip: Clip, body: int, click: bool = False) -> BoolArray:
    """``(T, H, W)`` bool: one body's masks over a clip from the product's tracker, from its true mask on the first frame.

    With ``click``, the first mask is what the model makes of a click in it.
    """
    frames = [tracker.encode(Frame(index, "camera", image)) for index, image in enumerate(clip.frames)]
    first = clip.masks_of(body)[0]
    if click:
        first = tracker.propose(frames[0], [_pick(first, np.random.default_rng(0))]).masks_phw[0]
    state = tracker.start_track(frames[0], first)
    return np.stack([first, *(tracker.step([state], frame)[0].mask_hw for frame in frames[1:])])


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
    model = build_sam2(image_size=arguments.image_size).eval()
    model.load_state_dict({name: value.float() for name, value in load_file(arguments.weights).items()})
    scores = {
        **click_scores(model, arguments.images),
        "from mask": tracking_scores(model, arguments.clips),
        "from click": tracking_scores(model, arguments.clips, clicks=True),
    }
    print(to_json(scores, indent=2))


if __name__ == "__main__":
    main()
