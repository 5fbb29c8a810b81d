"""Every sentence of a dataset through the method, scored against ground truth (DecAF, section 4.1).

As in the authors' evaluation, the Otsu masks are scored on the key frames and the tracked masks on all frames, and the language
model takes key frames to lie half a second apart, whatever the rate of the dataset: its own default for frames without a rate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.evaluation.datasets import DatasetVideo, Foreground, ImageFiles, ReferringExpression, TruthMasks
from decaf_ros.evaluation.journal import Journal, Record
from decaf_ros.evaluation.metrics import MaskScores, boundary_accuracy, region_similarity, robustness
from decaf_ros.method.fusion import coarse_masks
from decaf_ros.outputs import OutputFolder
from decaf_ros.session.frames import StoredFrame, uniform_selection
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.offline import GroundedVideo, segment_video
from decaf_ros.video import FrameSource

KEY_FRAME_HZ = 2.0
ALL_OF_A_VIDEO_MB = 1 << 20
"""Of ``prefix_cache_mb``: what was read of a video serves all sentences about it."""
HEAD_SAMPLE = 100
"""Sentences by which heads are found."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a sentence refers to in a video.

    Attributes:
        key_indices: the frames that were looked at.
        coarse_thw: ``(len(key_indices), H, W)`` bool, masks straight from the heat map.
        masks: ``(H, W)`` bool for every frame in order, computed as they are taken.
        object_name: what the model called it.
        confident: false when no tracklet passed the threshold.
        presence: how likely it holds it that there is such a thing at all, in [0, 1]; ``None`` where it does not ask. Where it
            says that there is none, all masks are empty.
    """

    key_indices: tuple[int, ...]
    coarse_thw: BoolArray
    masks: Iterator[BoolArray]
    object_name: str
    confident: bool
    presence: float | None = None


class Segmenter(Protocol):
    """A method under evaluation."""

    def __call__(self, source: FrameSource, expression: str) -> Prediction:
        """Segment what the expression refers to. Sentences about one source come one after the other."""


class GroundingSegmenter:
    """A method that grounds sentences in key frames, which both models read once for all sentences about a video.

    The language model does so where the grounder's settings have it keep what it read: :data:`ALL_OF_A_VIDEO_MB`.
    """

    def __init__(self, grounder: Grounder, key_frames: int = 16) -> None:
        self._grounder = grounder
        self._tracker = grounder.tracker
        self._key_frames = key_frames
        self._source: FrameSource | None = None
        self._key_indices: tuple[int, ...] = ()
        self._clip: list[StoredFrame] = []

    def __call__(self, source: FrameSource, expression: str) -> Prediction:
        """See :class:`Segmenter`."""
        if source is not self._source:
            self._source = source
            self._key_indices = tuple(uniform_selection(range(len(source)), self._key_frames))
            self._clip = [StoredFrame(source.read(index, index + 1)[0], self._tracker) for index in self._key_indices]
        grounding = self._grounder.ground(self._clip, expression)
        attention, size_hw = grounding.attention, grounding.window.size_hw
        coarse = coarse_masks(attention.heat_thw, size_hw)
        grounded = GroundedVideo(self._key_indices, grounding)
        masks = (segmentation.union_hw() for segmentation in segment_video(source, grounded, self._tracker))
        if grounding.doubted:
            coarse, masks = np.zeros_like(coarse), (np.zeros(size_hw, np.bool_) for _ in range(len(source)))
        presence = asked_presence(attention.presence)
        return Prediction(self._key_indices, coarse, masks, attention.object_name, grounding.confident, presence)


def asked_presence(presence: float) -> float | None:
    """What records tell of a presence: ``None`` where it was not asked, for NaN."""
    return None if math.isnan(presence) else presence


def evaluate(
    videos: Sequence[DatasetVideo],
    variant: str,
    segmenter: Segmenter,
    journal: Journal,
    key_frames: int = 16,
    mask_folder: OutputFolder | None = None,
) -> Iterator[Record]:
    """Score every sentence that the journal does not hold yet; each record is given out once it is written.

    Args:
        videos: what is evaluated.
        variant: name of the method's variant in the records.
        segmenter: the method.
        journal: takes the records.
        key_frames: of the method, at most; they set the rate that videos are told to have.
        mask_folder: where masks are written, ``<video>/<expression>/<frame>.png``, pixels 0 and 255; ``None`` for not at all.

    Raises:
        DatasetError: ground truth that cannot be read, or is not as large as the images.
        VideoError: an image that cannot be read, or is not as large as the first one.
        OutputError: a mask or a record that cannot be written.
    """
    for video in videos:
        missing = [each for each in video.expressions if (variant, video.name, each.expression_id) not in journal.records]
        source = ImageFiles(video.images, _frames_per_second(len(video.images), key_frames))
        for expression in missing:
            record = _evaluate_one(video, expression, variant, segmenter, source, mask_folder)
            journal.add(record)
            yield record


def middle_frames(videos: Sequence[DatasetVideo], count: int = HEAD_SAMPLE) -> Iterator[tuple[Frame, str]]:
    """At most so many sentences, spread evenly over those of all videos, each with the middle frame of its video.

    Raises:
        VideoError: an image that cannot be read.
    """
    asked = [(video, expression.text) for video in videos for expression in video.expressions]
    for video, text in uniform_selection(asked, count):
        middle = len(video.images) // 2
        yield ImageFiles(video.images, KEY_FRAME_HZ).read(middle, middle + 1)[0], text


def _frames_per_second(frame_count: int, key_frames: int) -> float:
    """The rate at which key frames, the first and the last frame among them, come at :data:`KEY_FRAME_HZ`."""
    intervals = min(frame_count, key_frames) - 1
    return KEY_FRAME_HZ * (frame_count - 1) / intervals if intervals else KEY_FRAME_HZ


def _evaluate_one(
    video: DatasetVideo,
    expression: ReferringExpression,
    variant: str,
    segmenter: Segmenter,
    source: FrameSource,
    mask_folder: OutputFolder | None,
) -> Record:
    start = time.perf_counter()
    prediction = segmenter(source, expression.text)
    masks = prediction.masks
    if mask_folder is not None:
        masks = _written(masks, video.images, mask_folder.folder(*video.name.split("/"), expression.expression_id))
    tracked = score_frames(enumerate(masks), expression.truth, video.foreground)
    coarse = score_frames(zip(prediction.key_indices, prediction.coarse_thw, strict=True), expression.truth)
    record = record_of(video, expression, variant, prediction, tracked, time.perf_counter() - start)
    return replace(record, coarse=coarse.masks)


class Answered(Protocol):
    """What every method tells of a sentence beside masks."""

    @property
    def object_name(self) -> str:
        """See :class:`Prediction`."""

    @property
    def confident(self) -> bool:
        """See :class:`Prediction`."""

    @property
    def presence(self) -> float | None:
        """See :class:`Prediction`."""


def record_of(
    video: DatasetVideo,
    expression: ReferringExpression,
    variant: str,
    answer: Answered,
    scores: FrameScores,
    seconds: float,
) -> Record:
    """What is written down of a sentence.

    Args:
        video, expression, variant: what was asked, and by which variant of the method.
        answer: what it told.
        scores: of its tracked masks.
        seconds: that it took.
    """
    return Record(
        variant=variant,
        video=video.name,
        expression_id=expression.expression_id,
        expression=expression.text,
        category=expression.category,
        object_name=answer.object_name,
        confident=answer.confident,
        seconds=round(seconds, 2),
        coarse=None,
        masks=scores.masks,
        robustness=scores.robustness,
        found=scores.found,
        there=scores.there,
        presence=answer.presence,
    )


@dataclass(frozen=True)
class FrameScores:
    """Of the masks of one sentence, means over frames; see :class:`~decaf_ros.evaluation.journal.Record`.

    Attributes:
        found: whether a mask holds anything.
        there: whether the truth does; ``None`` without.
        masks: J and F; ``None`` without truth.
        robustness: R; ``None`` also where it is not known what else is there.
    """

    found: bool
    there: bool | None = None
    masks: MaskScores | None = None
    robustness: float | None = None


def score_frames(
    masks: Iterable[tuple[int, BoolArray]], truth: TruthMasks | None, foreground: Foreground | None = None
) -> FrameScores:
    """Compare masks with the truth of their frames, which is read one at a time.

    Args:
        masks: index of the frame, and ``(H, W)`` bool; all are taken, also without truth, so that they are written.
        truth: to compare with; ``None`` gives no scores.
        foreground: how much else there is; ``None`` gives no R.

    Raises:
        DatasetError: truth that cannot be read, or is not as large as the masks.
    """
    found = there = False
    scores, robust = [], []
    for index, mask in masks:
        found = found or bool(mask.any())
        if truth is None:
            continue
        size_hw = mask.shape[0], mask.shape[1]
        true_mask = truth.read(index, size_hw)
        there = there or bool(true_mask.any())
        scores.append((region_similarity(mask, true_mask), boundary_accuracy(mask, true_mask)))
        if foreground is not None:
            robust.append(robustness(mask, true_mask, foreground.pixels(index, size_hw)))
    if truth is None:
        return FrameScores(found)
    j, f = np.mean(scores, axis=0).tolist()
    return FrameScores(found, there, MaskScores(j, f), float(np.mean(robust)) if robust else None)


def _written(masks: Iterator[BoolArray], images: Sequence[Path], folder: OutputFolder) -> Iterator[BoolArray]:
    for image, mask in zip(images, masks, strict=True):
        folder.write_png(f"{image.stem}.png", mask.astype(np.uint8) * 255)
        yield mask
