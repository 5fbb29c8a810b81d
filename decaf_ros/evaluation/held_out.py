"""How well sentences become masks: queries about scenes of the procedural world that no model was trained on.

Each query looks at a clip of 32 frames at the 10 Hz of a camera. As in the paper's evaluation the whole clip is given: 16 key
frames, uniform over it, are grounded, and the objects found are tracked over all 32 frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.evaluation.metrics import MaskScores, region_similarity, score_clip
from decaf_ros.method.fusion import coarse_masks
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.offline import ground_video, segment_video
from decaf_ros.synthetic.expressions import KINDS, Expression, expressions_of
from decaf_ros.synthetic.world import FIRST_TRAINING_SEED, sample_scene
from decaf_ros.video import FramesInMemory

# Below FIRST_TRAINING_SEED, and apart from the seeds that training scripts judge their checkpoints by.
FIRST_SEED = 500_000
CLIP_FRAMES = 32
CLIP_HZ = 10.0
KEY_FRAMES = 16
POINTING_TOLERANCE_PX = 8
TARGET_KINDS = ("colour", "shape", "colour_shape", "size", "position")
OFFERED_FROM_POINTING = 0.80


@dataclass(frozen=True)
class HeldOutQuery:
    """A sentence about the scene of a seed."""

    seed: int
    expression: Expression


@dataclass(frozen=True, eq=False)
class Clip:
    """A rendered clip with the truth about one query.

    Attributes:
        source: its frames.
        truth_thw: ``(T, H, W)`` bool, visible pixels of the body that the expression means.
    """

    source: FramesInMemory
    truth_thw: BoolArray


@dataclass(frozen=True)
class QueryScore:
    """How one query went.

    Attributes:
        kind: of its expression.
        pointed: whether the clip's hottest cell lies in the body's mask or at most 8 pixels from it.
        coarse_iou: of the Otsu masks, mean over key frames that show the body.
        named: whether the model's name is the right one.
        masks: of the tracked masks, over all frames of the clip.
    """

    kind: str
    pointed: bool
    coarse_iou: float
    named: bool
    masks: MaskScores


def sample_queries(counts: Mapping[str, int], first_seed: int = FIRST_SEED) -> list[HeldOutQuery]:
    """Draw queries from consecutive scenes, at most one each: of the kind that lacks most, among those the scene allows.

    Args:
        counts: queries by kind of :data:`~decaf_ros.synthetic.expressions.KINDS`.
        first_seed: of the first scene.
    """
    missing = Counter({kind: count for kind, count in counts.items() if count > 0})
    queries: list[HeldOutQuery] = []
    seed = first_seed
    while missing:
        assert seed < FIRST_TRAINING_SEED, "held-out scenes are used up"
        rng = np.random.default_rng(seed)
        candidates = [found for found in expressions_of(sample_scene(seed), clip_times_s(), rng) if found.kind in missing]
        if candidates:
            chosen = max(candidates, key=lambda found: (missing[found.kind], rng.random()))
            queries.append(HeldOutQuery(seed, chosen))
            missing -= Counter([chosen.kind])
        seed += 1
    return queries


def clip_times_s() -> list[float]:
    """Times of a clip's frames in seconds from the scene's start."""
    return [index / CLIP_HZ for index in range(CLIP_FRAMES)]


def render_clip(query: HeldOutQuery) -> Clip:
    """Render the query's clip at the world's own size."""
    scene = sample_scene(query.seed)
    views = [scene.render(time_s) for time_s in clip_times_s()]
    frames = [Frame(round(time_s * 1e9), "camera", view.image_rgb) for time_s, view in zip(clip_times_s(), views, strict=True)]
    return Clip(FramesInMemory(frames, CLIP_HZ), np.stack([view.mask_of(query.expression.body_index) for view in views]))


def score_query(query: HeldOutQuery, grounder: Grounder, tracker: MaskTracker) -> QueryScore:
    """Ground the query's sentence in its clip, track what was found, and compare."""
    clip = render_clip(query)
    grounded = ground_video(clip.source, query.expression.text, grounder, tracker, KEY_FRAMES)
    attention = grounded.grounding.attention
    key_truth = clip.truth_thw[list(grounded.key_indices)]
    masks = np.stack([segmentation.union_hw() for segmentation in segment_video(clip.source, grounded, tracker)])
    return QueryScore(
        kind=query.expression.kind,
        pointed=points_at(attention.heat_thw, key_truth),
        coarse_iou=_mean_iou(coarse_masks(attention.heat_thw, key_truth.shape[1:]), key_truth),
        named=attention.object_name == query.expression.answer,
        masks=score_clip(masks, clip.truth_thw),
    )


def points_at(heat_thw: torch.Tensor, truth_thw: BoolArray, tolerance_px: float = POINTING_TOLERANCE_PX) -> bool:
    """Whether the centre of the clip's hottest cell lies in the mask of its frame, or at most ``tolerance_px`` from it."""
    steps, rows, columns = heat_thw.shape
    hottest = int(heat_thw.argmax())
    step, row, column = np.unravel_index(hottest, (steps, rows, columns))
    truth = truth_thw[step]
    height, width = truth.shape
    y, x = int((row + 0.5) * height / rows), int((column + 0.5) * width / columns)
    if not truth.any():
        return False
    distance = cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return bool(distance[y, x] <= tolerance_px)


def _mean_iou(masks_thw: BoolArray, truth_thw: BoolArray) -> float:
    pairs = [(mask, truth) for mask, truth in zip(masks_thw, truth_thw, strict=True) if truth.any()]
    return float(np.mean([region_similarity(mask, truth) for mask, truth in pairs]))


def even_counts(kinds: Sequence[str], total: int) -> dict[str, int]:
    """``total`` shared out evenly among the kinds, the first ones getting what is left over."""
    return {kind: total // len(kinds) + (index < total % len(kinds)) for index, kind in enumerate(kinds)}


HEADER = ("queries", "pointing", "coarse IoU", "name", "J", "F", "J&F")


def mean_row(scores: Iterable[QueryScore]) -> list[str]:
    """The cells below :data:`HEADER` for some queries."""
    scores = list(scores)
    means = np.mean(
        [(score.pointed, score.coarse_iou, score.named, score.masks.j, score.masks.f, score.masks.j_and_f) for score in scores],
        axis=0,
    )
    return [str(len(scores)), *(f"{value:.3f}" for value in means)]


def kind_rows(scores: Sequence[QueryScore]) -> list[list[str]]:
    """One row a kind, with the mean over all queries of the offered kinds last; the other kinds are marked."""
    rows: list[list[str]] = []
    offered: list[QueryScore] = []
    for kind in KINDS:
        mine = [score for score in scores if score.kind == kind]
        if not mine:
            continue
        good = bool(np.mean([score.pointed for score in mine]) >= OFFERED_FROM_POINTING)
        rows.append([kind.replace("_", " + ") + ("" if good else " (not offered)"), *mean_row(mine)])
        offered += mine if good else []
    return [*rows, ["**offered kinds**", *mean_row(offered)]] if offered else rows
