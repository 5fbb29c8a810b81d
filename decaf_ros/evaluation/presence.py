"""Whether the language model can tell that nothing fits a sentence: the probability of yes, for sentences true and not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decaf_ros.evaluation.held_out import AT_REST, ROWS, HeldOutQuery, even_counts, key_window
from decaf_ros.models.prompts import presence_prompt
from decaf_ros.models.protocols import VideoMllm
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS, SENTENCE_KINDS

ABSENT, NEAR_MISS = ABSENT_KINDS
ALL = "all"


@dataclass(frozen=True)
class PresenceScore:
    """What was said to one query.

    Attributes:
        kind: of the sentence.
        yes: probability that there is such a thing.
    """

    kind: str
    yes: float


def presence_counts(queries: int) -> dict[str, int]:
    """As many sentences that are true of something, of all kinds alike, as are true of nothing, half of these near misses."""
    return even_counts([row for row in ROWS if row != AT_REST], queries) | even_counts(ABSENT_KINDS, queries)


def score_presence(query: HeldOutQuery, mllm: VideoMllm) -> PresenceScore:
    """Ask on the video path whether there is such a thing."""
    (yes,) = mllm.read_video(key_window(query)).probability_of_yes(presence_prompt(query.sentence.text))
    return PresenceScore(query.sentence.kind, yes)


def area_under_curve(present: Sequence[float], absent: Sequence[float]) -> float:
    """The probability that a value of the first group is larger than one of the second; equal ones count half."""
    if not present or not absent:
        return math.nan
    difference = np.subtract.outer(np.asarray(present), np.asarray(absent))
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def curves_of(scores: Sequence[PresenceScore]) -> dict[str, dict[str, float]]:
    """Present sentences against those of each kind that are true of nothing, and against all of these: numbers and area."""
    present = [score.yes for score in scores if score.kind not in ABSENT_KINDS]
    curves = {}
    for name, kinds in ((ABSENT, (ABSENT,)), (NEAR_MISS, (NEAR_MISS,)), (ALL, ABSENT_KINDS)):
        absent = [score.yes for score in scores if score.kind in kinds]
        curves[name] = {"queries": len(absent), "present_queries": len(present), "auc": area_under_curve(present, absent)}
    return curves


def shares_of(scores: Sequence[PresenceScore]) -> dict[str, dict[str, float]]:
    """By kind of sentence: how many there are, to how many yes was likelier than no, and its mean probability."""
    shares = {}
    for kind in SENTENCE_KINDS:
        if mine := [score.yes for score in scores if score.kind == kind]:
            yes = float(np.mean(np.asarray(mine) > 0.5))
            shares[kind] = {"queries": len(mine), "yes": yes, "probability": float(np.mean(mine))}
    return shares
