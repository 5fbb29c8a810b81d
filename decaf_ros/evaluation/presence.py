"""Whether the language model can tell that nothing fits a sentence, and what a query makes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from decaf_ros.config import GroundingConfig
from decaf_ros.datatypes import BoolArray, FrameWindow
from decaf_ros.evaluation.held_out import AT_REST, KEY_INDICES, ROWS, HeldOutQuery, even_counts, key_window, render_clip
from decaf_ros.evaluation.metrics import region_similarity
from decaf_ros.models.prompts import presence_prompt
from decaf_ros.models.protocols import MaskTracker, VideoMllm, VisualPrefix
from decaf_ros.models.read_memory import ReadMemory
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder, Grounding
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS, SENTENCE_KINDS

ABSENT, NEAR_MISS = ABSENT_KINDS
ALL = "all"
RIGHT_FROM_IOU = 0.5


@dataclass(frozen=True)
class Answers:
    """What the paths say to the question whether there is such a thing.

    Attributes:
        kind: of the sentence.
        video: the video path's probability of yes, alone; empty where it was not asked.
        frames: the frame path's, one a key frame; likewise.
    """

    kind: str
    video: tuple[float, ...]
    frames: tuple[float, ...]


@dataclass(frozen=True)
class PresenceScore:
    """How one query went.

    Attributes:
        answers: of the paths.
        presence: of both, as the query has it.
        right: whether the best object is what the sentence means: never where it means nothing.
        seconds: that the query took, without carrying objects to the present.
        asking_seconds: of these, for the question whether there is such a thing.
    """

    answers: Answers
    presence: float
    right: bool
    seconds: float
    asking_seconds: float

    @property
    def kind(self) -> str:
        """Of the sentence."""
        return self.answers.kind

    @property
    def there(self) -> bool:
        """Whether the sentence is true of something."""
        return self.kind not in ABSENT_KINDS


def presence_counts(queries: int) -> dict[str, int]:
    """As many sentences that are true of something, of all kinds alike, as are true of nothing, half of these near misses."""
    return even_counts([row for row in ROWS if row != AT_REST], queries) | even_counts(ABSENT_KINDS, queries)


def ask_paths(query: HeldOutQuery, mllm: VideoMllm) -> Answers:
    """Ask both paths whether there is such a thing, and nothing else."""
    window, prompt = key_window(query), presence_prompt(query.sentence.text)
    video, frames = (read(window).probability_of_yes(prompt) for read in (mllm.read_video, mllm.read_frames))
    return Answers(query.sentence.kind, video, frames)


def score_presence(query: HeldOutQuery, mllm: VideoMllm, tracker: MaskTracker, config: GroundingConfig) -> PresenceScore:
    """Ground the query's sentence in its key frames, and see what was said and found on the way."""
    clip, overheard = render_clip(query, KEY_INDICES), _Overheard(mllm)
    grounder = Grounder(MllmAttention(cast(VideoMllm, overheard), config), tracker, config)
    stored = [StoredFrame(frame, tracker) for frame in clip.source.read(0, len(clip.source))]
    began = time.perf_counter()
    grounding = grounder.ground(stored, query.sentence.text)
    seconds = time.perf_counter() - began
    answers = Answers(query.sentence.kind, overheard.yes.get("video", ()), overheard.yes.get("frame", ()))
    right = is_right(grounding, clip.truth_thw)
    return PresenceScore(answers, grounding.attention.presence, right, seconds, overheard.seconds)


def is_right(grounding: Grounding, truth_thw: BoolArray) -> bool:
    """Whether the best object's masks, over all key frames, are those of what is meant, from :data:`RIGHT_FROM_IOU` on."""
    if not grounding.objects:
        return False
    masks = grounding.objects[0].tracklets[0].masks_thw
    return bool(truth_thw.any()) and region_similarity(masks, truth_thw) >= RIGHT_FROM_IOU


class _Overheard:
    """A language model whose answers to the question for presence are noted, and how long they take."""

    def __init__(self, mllm: VideoMllm) -> None:
        self._mllm = mllm
        self.yes: dict[str, tuple[float, ...]] = {}
        self.seconds = 0.0

    def read_video(self, window: FrameWindow, memory: ReadMemory | None = None) -> VisualPrefix:
        return cast(VisualPrefix, _OverheardPrefix(self, "video", self._mllm.read_video(window, memory)))

    def read_frames(self, window: FrameWindow, memory: ReadMemory | None = None) -> VisualPrefix:
        return cast(VisualPrefix, _OverheardPrefix(self, "frame", self._mllm.read_frames(window, memory)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mllm, name)


@dataclass(eq=False)
class _OverheardPrefix:
    owner: _Overheard
    path: str
    prefix: VisualPrefix

    def probability_of_yes(self, prompt: str) -> tuple[float, ...]:
        began = time.perf_counter()
        yes = self.prefix.probability_of_yes(prompt)
        self.owner.seconds += time.perf_counter() - began
        self.owner.yes[self.path] = yes
        return yes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prefix, name)


def area_under_curve(present: Sequence[float], absent: Sequence[float]) -> float:
    """The probability that a value of the first group is larger than one of the second; equal ones count half."""
    if not present or not absent:
        return math.nan
    difference = np.subtract.outer(np.asarray(present), np.asarray(absent))
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def curves_of(kinds: Sequence[str], values: Sequence[float]) -> dict[str, dict[str, float]]:
    """Present sentences against those of each kind that are true of nothing, and against all of these: numbers and area.

    Args:
        kinds: of the sentences.
        values: of each, larger where it is likelier that there is such a thing.
    """
    told = list(zip(kinds, values, strict=True))
    present = [value for kind, value in told if kind not in ABSENT_KINDS]
    curves = {}
    for name, against in ((ABSENT, (ABSENT,)), (NEAR_MISS, (NEAR_MISS,)), (ALL, ABSENT_KINDS)):
        absent = [value for kind, value in told if kind in against]
        curves[name] = {"queries": len(absent), "present_queries": len(present), "auc": area_under_curve(present, absent)}
    return curves


def decisions_of(kinds: Sequence[str], presences: Sequence[float], min_presence: float) -> dict[str, float]:
    """What a threshold makes of sentences.

    Args:
        kinds: of the sentences.
        presences: of each.
        min_presence: from which on something is there.

    Returns:
        Shares: ``present_refused``, ``absent_accepted`` and ``near_misses_accepted`` of these, and ``balanced_accuracy``, the
        mean of present sentences that are accepted and of all others that are refused. NaN where there are none.
    """
    accepted: dict[str, list[bool]] = {"present": [], ABSENT: [], NEAR_MISS: []}
    for kind, presence in zip(kinds, presences, strict=True):
        accepted[kind if kind in ABSENT_KINDS else "present"].append(presence >= min_presence)
    nothing = accepted[ABSENT] + accepted[NEAR_MISS]
    refused = 1.0 - _share(accepted["present"])
    return {
        "balanced_accuracy": (1.0 - refused + 1.0 - _share(nothing)) / 2,
        "present_refused": refused,
        "absent_accepted": _share(accepted[ABSENT]),
        "near_misses_accepted": _share(accepted[NEAR_MISS]),
    }


def wrong_of(scores: Sequence[PresenceScore], min_presence: float) -> dict[str, float]:
    """Shares of all sentences after which something is followed that is not meant: whatever is said, and as a query decides."""
    always = _share([not score.right for score in scores])
    decided = _share([not score.right and score.presence >= min_presence for score in scores])
    return {"without": always, "with": decided, "ratio": decided / always if always else math.nan}


def shares_of(kinds: Sequence[str], presences: Sequence[float], min_presence: float) -> dict[str, dict[str, float]]:
    """By kind of sentence: how many there are, the share that is accepted, and the mean probability."""
    shares = {}
    for kind in SENTENCE_KINDS:
        if mine := [presence for each, presence in zip(kinds, presences, strict=True) if each == kind]:
            accepted = _share([presence >= min_presence for presence in mine])
            shares[kind] = {"queries": len(mine), "accepted": accepted, "probability": float(np.mean(mine))}
    return shares


def cost_of(scores: Sequence[PresenceScore]) -> dict[str, float]:
    """Of the question: its median milliseconds, and the median of its share of a query."""
    shares = [score.asking_seconds / score.seconds for score in scores]
    return {"ms": 1e3 * float(np.median([score.asking_seconds for score in scores])), "share": float(np.median(shares))}


def by_path(answers: Sequence[Answers]) -> dict[str, list[float]]:
    """What each path that was asked says alone: the frame path by its likeliest frame, and by the mean of all."""
    said = {}
    if all(each.video for each in answers):
        said["video path"] = [float(np.mean(each.video)) for each in answers]
    if all(each.frames for each in answers):
        said["frame path, likeliest"] = [max(each.frames) for each in answers]
        said["frame path, mean"] = [float(np.mean(each.frames)) for each in answers]
    return said


def _share(whether: Sequence[bool]) -> float:
    return float(np.mean(whether)) if whether else math.nan
