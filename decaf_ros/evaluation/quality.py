"""How well sentences become masks: each held-out query grounded in its key frames, tracked over its clip, and scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from decaf_ros.datatypes import BoolArray, Frame, FrameWindow
from decaf_ros.evaluation.held_out import CLIP_HZ, KEY_INDICES, ROWS, SIZE_HW, HeldOutQuery, render_clip
from decaf_ros.evaluation.metrics import MaskScores, region_similarity, score_clip
from decaf_ros.method.fusion import coarse_masks
from decaf_ros.models.prompts import cleaned_name
from decaf_ros.models.protocols import MaskTracker, VideoMllm
from decaf_ros.session.attention import fuse
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.offline import GroundedVideo, segment_video
from decaf_ros.synthetic.table.wordings import EVENT_KINDS, STATIC_KINDS

POINTING_TOLERANCE_PX = 8
OFFERED_FROM_POINTING = 0.80


@dataclass(frozen=True)
class TokenGrids:
    """How finely a language model reads a clip's key frames.

    Attributes:
        by_path: steps, rows and columns of the visual tokens of each path, "video" and "frame", that is read.
        temporal_stride: frames that one step of the video path covers.
    """

    by_path: Mapping[str, tuple[int, int, int]]
    temporal_stride: int


@dataclass(frozen=True)
class QueryScore:
    """How one query went.

    Attributes:
        row, contested: of the query.
        pointed: whether the clip's hottest cell lies in the thing's mask or at most 8 pixels from it.
        coarse_iou: of the Otsu masks, mean over key frames that show the thing.
        ceiling_iou: the same of the truth, put on the grids of visual tokens and through the same steps.
        answered: whether the video path's answer is the right name.
        named: whether the name that was settled on is.
        masks: of the tracked masks, over all frames of the clip.
    """

    row: str
    contested: bool
    pointed: bool
    coarse_iou: float
    ceiling_iou: float
    answered: bool
    named: bool
    masks: MaskScores


def token_grids(mllm: VideoMllm, paths: str = "both") -> TokenGrids:
    """The grids of a clip of the table, found by reading one that shows nothing; ``paths`` as in the method's settings."""
    blank = np.zeros((*SIZE_HW, 3), np.uint8)
    window = FrameWindow(tuple(Frame(round(index / CLIP_HZ * 1e9), "", blank) for index in KEY_INDICES))
    read = {"video": mllm.read_video, "frame": mllm.read_frames}
    prefixes = {path: read[path](window) for path in read if paths in (path, "both")}
    stride = prefixes["video"].temporal_stride if "video" in prefixes else 1
    return TokenGrids({path: prefix.grid_thw for path, prefix in prefixes.items()}, stride)


def score_query(query: HeldOutQuery, grounder: Grounder, tracker: MaskTracker, grids: TokenGrids) -> QueryScore:
    """Ground the query's sentence in its clip, track what was found, and compare."""
    clip = render_clip(query)
    frames = clip.source.read(0, len(clip.source))
    grounding = grounder.ground([StoredFrame(frames[index], tracker) for index in KEY_INDICES], query.sentence.text)
    attention, key_truth = grounding.attention, clip.truth_thw[list(KEY_INDICES)]
    grounded = GroundedVideo(KEY_INDICES, grounding)
    masks = np.stack([segmentation.union_hw() for segmentation in segment_video(clip.source, grounded, tracker)])
    return QueryScore(
        row=query.row,
        contested=query.contested,
        pointed=points_at(attention.heat_thw, key_truth),
        coarse_iou=_mean_iou(coarse_masks(attention.heat_thw, SIZE_HW), key_truth),
        ceiling_iou=_mean_iou(ceiling_masks(key_truth, grids), key_truth),
        answered=any(cleaned_name(answer) == query.sentence.answer for answer in attention.answers[:1]),
        named=attention.object_name == query.sentence.answer,
        masks=score_clip(masks, clip.truth_thw),
    )


def points_at(heat_thw: torch.Tensor, truth_thw: BoolArray, tolerance_px: float = POINTING_TOLERANCE_PX) -> bool:
    """Whether the centre of the clip's hottest cell lies in the mask of its frame, or at most ``tolerance_px`` from it."""
    steps, rows, columns = heat_thw.shape
    hottest = int(heat_thw.argmax())
    step, row, column = np.unravel_index(hottest, (steps, rows, columns))
    height, width = truth_thw.shape[1:]
    return lies_on(((column + 0.5) * width / columns, (row + 0.5) * height / rows), truth_thw[step], tolerance_px)


def lies_on(xy_px: tuple[float, float], truth_hw: BoolArray, tolerance_px: float = POINTING_TOLERANCE_PX) -> bool:
    """Whether a point of an image lies in a mask, or at most ``tolerance_px`` from it."""
    if not truth_hw.any():
        return False
    distance = cv2.distanceTransform((~truth_hw).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return bool(distance[int(xy_px[1]), int(xy_px[0])] <= tolerance_px)


def ceiling_masks(truth_thw: BoolArray, grids: TokenGrids) -> BoolArray:
    """``(T, H, W)`` bool: the coarse masks of a model that attends to each visual token as far as the truth covers it."""
    perfect = {path: coverage(truth_thw, grid_thw)[None] for path, grid_thw in grids.by_path.items()}
    heat_thw = fuse(perfect, grids.temporal_stride, len(truth_thw))
    return coarse_masks(heat_thw, (truth_thw.shape[1], truth_thw.shape[2]))


def coverage(truth_thw: BoolArray, grid_thw: tuple[int, int, int]) -> torch.Tensor:
    """``(T', H', W')`` float32: the share of each visual token that a mask covers; the last frame fills up the last step."""
    steps, rows, columns = grid_thw
    shares = [cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) for mask in truth_thw]
    stride = math.ceil(len(shares) / steps)
    shares += shares[-1:] * (steps * stride - len(shares))
    return torch.from_numpy(np.stack(shares)).reshape(steps, stride, rows, columns).mean(dim=1)


def _mean_iou(masks_thw: BoolArray, truth_thw: BoolArray) -> float:
    pairs = [(mask, truth) for mask, truth in zip(masks_thw, truth_thw, strict=True) if truth.any()]
    return float(np.mean([region_similarity(mask, truth) for mask, truth in pairs])) if pairs else 0.0


HEADER = (
    "queries",
    "pointing",
    "coarse IoU",
    "of the ceiling",
    "answer",
    "name",
    "J",
    "F",
    "J&F",
    "contested",
    "pointing there",
)
NAMES = (
    "queries",
    "pointing",
    "coarse_iou",
    "coarse_iou_of_ceiling",
    "answer",
    "name",
    "j",
    "f",
    "j_and_f",
    "contested_queries",
    "contested_pointing",
)
DESCRIPTIONS, EVENTS, ALL = "offered_descriptions", "events", "all"


def means(scores: Sequence[QueryScore]) -> dict[str, float]:
    """Figures by :data:`NAMES` of some queries; NaN where there is nothing to be told."""
    contested = [score.pointed for score in scores if score.contested]
    ceiling = sum(score.ceiling_iou for score in scores)
    each = np.mean(
        [(s.pointed, s.coarse_iou, s.answered, s.named, s.masks.j, s.masks.f, s.masks.j_and_f) for s in scores], axis=0
    )
    pointing, coarse, *others = each.tolist()
    of_ceiling = sum(score.coarse_iou for score in scores) / ceiling if ceiling else math.nan
    there = float(np.mean(contested)) if contested else math.nan
    return dict(zip(NAMES, (len(scores), pointing, coarse, of_ceiling, *others, len(contested), there), strict=True))


def rows_of(scores: Sequence[QueryScore]) -> dict[str, dict[str, float]]:
    """Figures by row, those of the held-out queries first; then of all offered descriptions, of all events, and of all.

    A row is offered from :data:`OFFERED_FROM_POINTING` on. What is asked when all rests is in none of the last three.
    """
    found = {row: [score for score in scores if score.row == row] for row in ROWS}
    rows = {row: means(mine) for row, mine in found.items() if mine}
    offered = [row for row in STATIC_KINDS if row in rows and is_offered(rows[row])]
    for name, kinds in ((DESCRIPTIONS, offered), (EVENTS, EVENT_KINDS), (ALL, STATIC_KINDS + EVENT_KINDS)):
        if together := [score for row in kinds for score in found[row]]:
            rows[name] = means(together)
    return rows


def is_offered(row: Mapping[str, float]) -> bool:
    """Whether one can count on it."""
    return row["pointing"] >= OFFERED_FROM_POINTING


def cells(row: Mapping[str, float]) -> list[str]:
    """Below :data:`HEADER`; empty where there is nothing to be told."""
    return [
        "" if math.isnan(row[name]) else str(row[name]) if name.endswith("queries") else f"{row[name]:.3f}" for name in NAMES
    ]
