"""Where candidates come from: prompts on the frames of a clip give masks, which compete (DecAF, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from decaf_ros.datatypes import BoolArray, BoxPrompt, ObjectPrompt, PointPrompt
from decaf_ros.method import points
from decaf_ros.models.protocols import FrameFeatures, MaskTracker, ObjectTrack
from decaf_ros.session.objects import NOT_FINITE
from decaf_ros.session.stages import StageClock

Prompt: TypeAlias = PointPrompt | BoxPrompt


@dataclass(eq=False)
class Candidate:
    """A mask proposal that survived so far, its masks from its key frame to the frame at hand, and what carries it on."""

    prompt: Prompt
    predicted_iou: float
    masks: list[BoolArray]
    track: ObjectTrack | None = None

    @property
    def key_mask_hw(self) -> BoolArray:
        """The proposal."""
        return self.masks[0]

    @property
    def current_mask_hw(self) -> BoolArray:
        """Where it is on the frame at hand."""
        return self.masks[-1]

    @property
    def object_score(self) -> float:
        """``s_obj``."""
        return self.prompt.attention + self.predicted_iou


@dataclass(frozen=True, eq=False)
class Contest:
    """Between the masks that prompts on the frames of a clip give. Stateless between calls.

    Attributes:
        tracker: the mask model, whose frames it is to be given.
        nms_iou: mask IoU above which two masks are taken for the same object.
    """

    tracker: MaskTracker
    nms_iou: float

    def candidates(self, features: Sequence[FrameFeatures], prompted: Sequence[Prompt], clock: StageClock) -> list[Candidate]:
        """Masks that survive suppression on their own frame and against those found on earlier key frames.

        Each survivor is carried forwards only, and only until a better one replaces it: all that the comparison needs. What
        is left in the end has been carried to the end of the clip, by the gates of the mask model, if it has any, so that it
        can be followed on.
        """
        alive: list[Candidate] = []
        for key_index, here in enumerate(features):
            clock.check()
            tracks = [old.track for old in alive if old.track is not None]
            if tracks:
                for old, output in zip(alive, self.tracker.step(tracks, here), strict=True):
                    old.masks.append(output.mask_hw)
            on_frame = [prompt for prompt in prompted if prompt.key_index == key_index]
            if on_frame:
                alive = self._compete(alive, self._proposals(here, on_frame, clock.check))
                for newcomer in alive:
                    if newcomer.track is None:
                        newcomer.track = self.tracker.start_track(here, newcomer.key_mask_hw, reversible=True)
        return alive

    def _proposals(self, features: FrameFeatures, on_frame: Sequence[Prompt], check: Callable[[], None]) -> list[Candidate]:
        """What is left of the masks of one frame: all points are asked about in one batch, and each box for itself."""
        by_point = [prompt for prompt in on_frame if isinstance(prompt, PointPrompt)]
        by_box = [prompt for prompt in on_frame if isinstance(prompt, BoxPrompt)]
        masks, iou = [], []
        if by_point:
            proposals = self.tracker.propose(features, [prompt.xy_px for prompt in by_point])
            masks, iou = [proposals.masks_phw], proposals.predicted_iou_p.tolist()
        for prompt in by_box:
            _, output = self.tracker.prompt(features, ObjectPrompt(box_xyxy_px=prompt.xyxy_px))
            masks, iou = [*masks, output.mask_hw[None]], [*iou, output.predicted_iou]
        if not all(map(math.isfinite, iou)):
            raise ValueError(NOT_FINITE)
        prompts: list[Prompt] = [*by_point, *by_box]
        scores = [prompt.attention + value for prompt, value in zip(prompts, iou, strict=True)]
        masks_phw = np.concatenate(masks) if len(masks) > 1 else masks[0]
        return [
            Candidate(prompts[i], iou[i], [masks_phw[i].copy()])  # a view would keep the masks of all points
            for i in points.suppress(masks_phw, scores, self.nms_iou, check)
        ]

    def _compete(self, alive: list[Candidate], newcomers: list[Candidate]) -> list[Candidate]:
        """A newcomer replaces the old candidates that it overlaps if it is better than all of them, else it is dropped."""
        for newcomer in newcomers:
            rivals = [old for old in alive if points.mask_iou(old.current_mask_hw, newcomer.key_mask_hw) > self.nms_iou]
            if all(newcomer.object_score > rival.object_score for rival in rivals):
                alive = [old for old in alive if old not in rivals] + [newcomer]
        return alive

    def over_the_clip(self, candidates: Sequence[Candidate], features: Sequence[FrameFeatures], clock: StageClock) -> BoolArray:
        """``(N, T, H, W)`` bool: their masks on all frames; before their key frames by going back, all together."""
        masks = np.zeros((len(candidates), len(features), *candidates[0].key_mask_hw.shape), dtype=np.bool_)
        going: dict[int, ObjectTrack] = {}
        for index in reversed(range(len(features))):
            clock.check()
            if going:
                outputs = self.tracker.step(list(going.values()), features[index], gated=False)
                for row, output in zip(going, outputs, strict=True):
                    masks[row, index] = output.mask_hw
            for row, candidate in enumerate(candidates):
                if candidate.prompt.key_index == index:
                    masks[row, index:] = candidate.masks
                    assert candidate.track is not None, "it was carried to the end"
                    going[row] = self.tracker.turned_back(candidate.track)
        return masks
