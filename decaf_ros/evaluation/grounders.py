"""Grounders side by side: a held-out query by points where the model looks, by boxes that it answers with, and by both."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decaf_ros.config import GROUNDERS, GrounderName
from decaf_ros.datatypes import BoolArray, BoxPrompt, Tracklet
from decaf_ros.evaluation.held_out import KEY_INDICES, HeldOutQuery, render_clip
from decaf_ros.evaluation.metrics import MaskScores, score_clip
from decaf_ros.evaluation.quality import lies_on
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.offline import GroundedVideo, segment_video

NAMES = ("queries", "found", "pointing", "j", "f", "j_and_f", "seconds", "by_box")


@dataclass(frozen=True)
class GrounderScore:
    """How one query went by one grounder.

    Attributes:
        row: of the query.
        grounder: the one that was asked for.
        winner: where the best object came from, "decaf" or "box"; "" where nothing was found.
        pointed: whether the prompt of the best object, the point or the centre of the box, lies on what the sentence means.
        masks: of the tracked masks, over all frames of the clip.
        seconds: that the query took, with nothing read before, without carrying objects to the present.
    """

    row: str
    grounder: GrounderName
    winner: str
    pointed: bool
    masks: MaskScores
    seconds: float


def score_grounders(query: HeldOutQuery, grounder: Grounder, tracker: MaskTracker) -> list[GrounderScore]:
    """Ground the query's sentence in its clip by each of the grounders, track what was found, and compare."""
    clip = render_clip(query)
    frames, key_truth = clip.source.read(0, len(clip.source)), clip.truth_thw[list(KEY_INDICES)]
    scores = []
    for name in GROUNDERS:
        stored = [StoredFrame(frames[index], tracker) for index in KEY_INDICES]
        began = time.perf_counter()
        grounding = grounder.ground(stored, query.sentence.text, grounder=name)
        seconds = time.perf_counter() - began
        pointed = bool(grounding.objects) and points_at_truth(grounding.objects[0].tracklets[0], key_truth)
        segmented = segment_video(clip.source, GroundedVideo(KEY_INDICES, grounding), tracker)
        masks = np.stack([segmentation.union_hw() for segmentation in segmented])
        masks_score = score_clip(masks, clip.truth_thw)
        scores.append(GrounderScore(query.row, name, grounding.grounder, pointed, masks_score, seconds))
    return scores


def points_at_truth(tracklet: Tracklet, key_truth_thw: BoolArray) -> bool:
    """Whether the prompt of a tracklet, a point or the centre of a box, lies on the thing on its key frame, or close by."""
    prompt = tracklet.prompt
    if isinstance(prompt, BoxPrompt):
        x_min, y_min, x_max, y_max = prompt.xyxy_px
        xy_px = (x_min + x_max) / 2, (y_min + y_max) / 2
    else:
        xy_px = prompt.xy_px
    return lies_on(xy_px, key_truth_thw[prompt.key_index])


def means(scores: Sequence[GrounderScore]) -> dict[str, float]:
    """Figures by :data:`NAMES` of some queries, all by one grounder; of the seconds, the median."""
    each = [(bool(s.winner), s.pointed, s.masks.j, s.masks.f, s.masks.j_and_f) for s in scores]
    seconds = float(np.median([score.seconds for score in scores]))
    by_box = float(np.mean([score.winner == "box" for score in scores]))
    return dict(zip(NAMES, (len(scores), *np.mean(each, axis=0).tolist(), seconds, by_box), strict=True))


def side_by_side(scores: Iterable[GrounderScore]) -> dict[str, dict[str, dict[str, float]]]:
    """By grounder and row, in the order in which rows come, the figures of :func:`means`; "all" is the last row."""
    rows: dict[str, dict[str, list[GrounderScore]]] = {name: {} for name in GROUNDERS}
    for score in scores:
        rows[score.grounder].setdefault(score.row, []).append(score)
    return {name: _with_all(by_row) for name, by_row in rows.items()}


def _with_all(by_row: Mapping[str, Sequence[GrounderScore]]) -> dict[str, dict[str, float]]:
    everything = [score for mine in by_row.values() for score in mine]
    return {row: means(mine) for row, mine in by_row.items()} | {"all": means(everything)}
