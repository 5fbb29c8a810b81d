"""Held-out queries about the robot's table, each asked while the camera films, and scored from the answer on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from decaf_ros.datatypes import BoolArray
from decaf_ros.evaluation.held_out import WINDOW_S, HeldOutQuery, render_film
from decaf_ros.evaluation.journal import LiveScores
from decaf_ros.evaluation.live import SHARES, Asker, live_means, score_live
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.synthetic.table.wordings import EVENT_KINDS, STATIC_KINDS

AFTER_S = 4.0  # for which the camera goes on filming when the sentence was asked
HEADER = ("queries", "J", "F", "J&F", "answered", "with a mask", "frames without an answer", "s to the first mask")
DESCRIPTIONS, EVENTS, ALL = "descriptions", "events", "all"


@dataclass(frozen=True)
class LiveQueryScore:
    """How one query went.

    Attributes:
        kind: of the sentence.
        masks: of the frames from the answer on.
        live: how soon it came.
    """

    kind: str
    masks: MaskScores
    live: LiveScores


@dataclass(frozen=True, eq=False)
class _Truth:
    """Of all frames, ``(T, H, W)`` bool; see :class:`~decaf_ros.evaluation.datasets.TruthMasks`."""

    truth_thw: BoolArray

    def read(self, frame: int, size_hw: tuple[int, int]) -> BoolArray:
        mask: BoolArray = self.truth_thw[frame]
        return mask


def score_live_query(query: HeldOutQuery, asker: Asker) -> LiveQueryScore:
    """Film the query's scene, ask its sentence when its window has been seen, and compare what is tracked with the truth."""
    film = render_film(query, AFTER_S)
    answer = asker(film.source, query.sentence.text, WINDOW_S)
    scores, live = score_live(answer, len(film.source), _Truth(film.truth_thw))
    assert scores.masks is not None, "there is truth"
    return LiveQueryScore(query.sentence.kind, scores.masks, live)


def live_rows_of(scores: Sequence[LiveQueryScore]) -> dict[str, dict[str, float]]:
    """Figures by kind of sentence, then of all descriptions, of all events, and of all."""
    kinds = {kind: (kind,) for kind in STATIC_KINDS + EVENT_KINDS}
    rows = {}
    for name, of in (kinds | {DESCRIPTIONS: STATIC_KINDS, EVENTS: EVENT_KINDS, ALL: STATIC_KINDS + EVENT_KINDS}).items():
        if mine := [(score.masks, score.live) for score in scores if score.kind in of]:
            rows[name] = {"queries": len(mine), **live_means(mine)}
    return rows


def cells(row: dict[str, float]) -> list[str]:
    """Below :data:`HEADER`; empty where there is nothing to be told."""
    seconds = "" if math.isnan(row["first_mask_s"]) else f"{row['first_mask_s']:.2f}"
    return [f"{row['queries']:.0f}", *(f"{row[name]:.3f}" for name in SHARES), seconds]
