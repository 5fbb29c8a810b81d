"""A sentence that is asked while a video plays, scored as a robot has the masks: from the answer on.

The video plays at its rate through the node's own session, in simulated time (:mod:`decaf_ros.evaluation.replay`): the sentence
is grounded in what the window holds when it is asked, the answer comes when the query has taken its time, and its objects are
carried to the newest frame and followed from there.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import BoolArray, Frame, Segmentation
from decaf_ros.evaluation.datasets import DatasetVideo, Foreground, ImageFiles, ReferringExpression, TruthMasks
from decaf_ros.evaluation.journal import Journal, LiveScores, Record
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.evaluation.replay import Latency, Replay
from decaf_ros.evaluation.runner import FrameScores, asked_presence, record_of, score_frames
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.outputs import OutputFolder
from decaf_ros.session.errors import NotThereError, SessionError
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.jobs import QueryRequest, QueryResult
from decaf_ros.text import quoted
from decaf_ros.video import FrameSource


@dataclass(frozen=True)
class AskAt:
    """When in a video a sentence is asked.

    Attributes:
        value: seconds from its beginning, or percent of it.
        unit: "s" or "%".
    """

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> AskAt:
        """Seconds as "2.5", or a share of each video as "50%".

        Raises:
            ValueError: it is neither.
        """
        number, unit = (text[:-1], "%") if text.endswith("%") else (text.removesuffix("s"), "s")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (0 <= value < 100 if unit == "%" else 0 <= value < math.inf):
            raise ValueError(
                f"{quoted(text)} is no time in a video: give seconds, such as 2.5, or a share below 100%, such as 50%"
            )
        return cls(value, unit)

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def in_video(self, video_s: float) -> float:
        """In seconds from the beginning of a video that takes so long."""
        return self.value / 100 * video_s if self.unit == "%" else self.value


class LiveMask(NamedTuple):
    """What a robot has of one frame.

    Attributes:
        frame: index of the frame.
        after_s: seconds from the question until it has it.
        mask_hw: ``(H, W)`` bool, the union of all objects.
    """

    frame: int
    after_s: float
    mask_hw: BoolArray


@dataclass(frozen=True, eq=False)
class LiveAnswer:
    """What became of a sentence.

    Attributes:
        asked_frame: the newest frame when it was asked.
        answered_frame: the newest one when the answer came, good or bad, which is what it is about; ``None`` when the video
            was over before.
        answer_s: seconds until then; NaN when the video was over before.
        masks: of the answer's frame and all later ones, computed as they are taken; when the video was over before, empty ones
            from the question on.
        object_name: what the model called it.
        confident: false when no tracklet passed the threshold.
        refusal: why all masks are empty; "" when objects were found.
        presence: how likely it is that there is such a thing at all, in [0, 1]; ``None`` where it was not asked, and where that
            was enough, but no mask was found.
    """

    asked_frame: int
    answered_frame: int | None
    answer_s: float
    masks: Iterator[LiveMask]
    object_name: str = ""
    confident: bool = False
    refusal: str = ""
    presence: float | None = None


def ask_live(replay: Replay, expression: str, asked_s: float, ends_s: float) -> LiveAnswer:
    """Play a video up to the answer to a sentence.

    Args:
        replay: of the video, from its beginning; its frames' stamps begin with 0.
        expression: the sentence.
        asked_s: when it is asked.
        ends_s: when the video is over, a period after its last frame.

    Raises:
        Exception: what a frame could not be read for, or is wrong with a model.
    """
    newest: deque[Segmentation] = deque(maxlen=1)
    replay.tell = newest.append
    replay.run_until(asked_s)
    asked_frame, asked_ns = replay.followed - 1, replay.now_ns
    answered: list[tuple[int, int]] = []
    future = _asked(replay, expression)
    future.add_done_callback(lambda _: answered.append((replay.followed - 1, replay.now_ns)))
    while not future.done() and replay.step():
        pass
    if not answered or answered[0][1] >= round(ends_s * 1e9):
        nothing = np.zeros(newest[0].frame.size_hw, dtype=np.bool_)
        missed = (LiveMask(frame, math.nan, nothing) for frame in range(asked_frame, replay.followed))
        return LiveAnswer(asked_frame, None, math.nan, missed, refusal="the video was over before the answer came")
    ((answered_frame, answered_ns),) = answered
    error = future.exception()
    first = Segmentation(newest[0].frame, ()) if error else future.result().segmentation
    masks = _masks(replay, first, answered_frame, asked_ns, answered_ns)
    answer_s = (answered_ns - asked_ns) / 1e9
    if error:
        presence = error.presence if isinstance(error, NotThereError) else None
        return LiveAnswer(asked_frame, answered_frame, answer_s, masks, refusal=str(error), presence=presence)
    record = future.result().record
    return LiveAnswer(
        asked_frame,
        answered_frame,
        answer_s,
        masks,
        record.object_name,
        record.confident,
        presence=asked_presence(record.presence),
    )


def _asked(replay: Replay, expression: str) -> Future[QueryResult]:
    try:
        return replay.ask(QueryRequest(expression)).future
    except SessionError as error:  # refused at once
        refused: Future[QueryResult] = Future()
        refused.set_exception(error)
        return refused


def _masks(replay: Replay, first: Segmentation, answered_frame: int, asked_ns: int, answered_ns: int) -> Iterator[LiveMask]:
    yield LiveMask(answered_frame, (answered_ns - asked_ns) / 1e9, first.union_hw())
    published: deque[Segmentation] = deque()
    replay.tell = published.append
    frame = answered_frame
    while not replay.is_over or published:
        if not published:
            replay.step()
            continue
        segmentation = published.popleft()
        frame += 1
        yield LiveMask(frame, (segmentation.frame.stamp_ns - asked_ns) / 1e9, segmentation.union_hw())


def score_live(
    answer: LiveAnswer, frame_count: int, truth: TruthMasks | None, foreground: Foreground | None = None
) -> tuple[FrameScores, LiveScores]:
    """Score what a robot has, by taking all of an answer's masks.

    Args:
        answer: of a sentence.
        frame_count: of the video.
        truth: masks of the video's frames, if there are any.
        foreground: how much there is of all objects on them, if that is known.

    Raises:
        DatasetError: truth that cannot be read.
    """
    first_mask_s = math.nan

    def noted() -> Iterator[tuple[int, BoolArray]]:
        nonlocal first_mask_s
        for each in answer.masks:
            if math.isnan(first_mask_s) and each.mask_hw.any():
                first_mask_s = each.after_s
            yield each.frame, each.mask_hw

    scores = score_frames(noted(), truth, foreground)
    answered_frame = frame_count if answer.answered_frame is None else answer.answered_frame
    without = (answered_frame - answer.asked_frame) / (frame_count - answer.asked_frame)
    return scores, LiveScores(answer.answer_s, first_mask_s, without)


SHARES = ("j", "f", "j_and_f", "answered", "with_mask", "without_answer")
"""Of :func:`live_means`, those in [0, 1]: of masks from the answer on, of sentences answered before the video was over and with
any mask, and of frames that passed before the answer."""


def live_means(scores: Sequence[tuple[MaskScores, LiveScores]]) -> dict[str, float]:
    """Means by :data:`SHARES`, and ``first_mask_s`` of the sentences with a mask; NaN where there is none."""
    each = [
        (
            masks.j,
            masks.f,
            masks.j_and_f,
            float(not math.isnan(live.answer_s)),
            float(not math.isnan(live.first_mask_s)),
            live.without_answer,
            live.first_mask_s,
        )
        for masks, live in scores
    ]
    return dict(zip((*SHARES, "first_mask_s"), map(mean_of_numbers, zip(*each, strict=True)), strict=True))


def mean_of_numbers(values: Iterable[float]) -> float:
    """The mean of those that are numbers; NaN where none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


class Asker(Protocol):
    """A node under evaluation."""

    def __call__(self, source: FrameSource, expression: str, asked_s: float) -> LiveAnswer:
        """Play a video from its beginning, and ask a sentence so many seconds after it."""


@dataclass(frozen=True, eq=False)
class LiveAsker:
    """The node's session with some models. Each sentence has a session of its own.

    Attributes:
        tracker, grounder: the models.
        config: of the session.
        latency: what a query takes; ``None``: as long as on this machine.
    """

    tracker: MaskTracker
    grounder: Grounder
    config: SessionConfig = field(default_factory=SessionConfig)
    latency: Latency | None = field(default_factory=Latency)

    def __call__(self, source: FrameSource, expression: str, asked_s: float) -> LiveAnswer:
        """See :class:`Asker`."""
        replay = Replay(_played(source), self.tracker, self.grounder, self.config, self.latency)
        return ask_live(replay, expression, asked_s, len(source) / source.frames_per_second)


def _played(source: FrameSource) -> Iterator[Frame]:
    return (frame for index in range(len(source)) for frame in source.read(index, index + 1))


def evaluate_live(
    videos: Sequence[DatasetVideo],
    variant: str,
    ask_at: AskAt,
    asker: Asker,
    journal: Journal,
    frames_per_second: float,
    mask_folder: OutputFolder | None = None,
) -> Iterator[Record]:
    """Ask every sentence that the journal does not hold yet, and score it; as :func:`~decaf_ros.evaluation.runner.evaluate`.

    Args:
        videos: what is evaluated.
        variant: name of the method's variant in the records, and of when sentences are asked.
        ask_at: when that is.
        asker: the node.
        journal: takes the records.
        frames_per_second: at which videos are played.
        mask_folder: where masks are written, empty ones for frames before the answer; ``None`` for not at all.

    Raises:
        DatasetError, VideoError, OutputError: as there.
    """
    for video in videos:
        source = ImageFiles(video.images, frames_per_second)
        asked_s = ask_at.in_video(len(source) / frames_per_second)
        for expression in video.expressions:
            if (variant, video.name, expression.expression_id) in journal.records:
                continue
            record = _evaluate_one(video, expression, variant, asker, source, asked_s, mask_folder)
            journal.add(record)
            yield record


def _evaluate_one(
    video: DatasetVideo,
    expression: ReferringExpression,
    variant: str,
    asker: Asker,
    source: FrameSource,
    asked_s: float,
    mask_folder: OutputFolder | None,
) -> Record:
    start = time.perf_counter()
    answer = asker(source, expression.text, asked_s)
    if mask_folder is not None:
        folder = mask_folder.folder(*video.name.split("/"), expression.expression_id)
        answer = replace(answer, masks=_written(answer.masks, video.images, folder))
    scores, live = score_live(answer, len(source), expression.truth, video.foreground)
    record = record_of(video, expression, variant, answer, scores, time.perf_counter() - start)
    return replace(record, live=live)


def _written(masks: Iterator[LiveMask], images: Sequence[Path], folder: OutputFolder) -> Iterator[LiveMask]:
    written = 0
    for each in masks:
        pixels = each.mask_hw.astype(np.uint8) * 255
        for image in images[written : each.frame]:
            folder.write_png(f"{image.stem}.png", np.zeros_like(pixels))
        folder.write_png(f"{images[each.frame].stem}.png", pixels)
        written = each.frame + 1
        yield each
