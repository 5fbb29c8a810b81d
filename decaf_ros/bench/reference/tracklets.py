"""The tracklets of a query as the method is written down: nothing is shared, and nothing given up early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.models.protocols import FrameFeatures, MaskProposals
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.candidates import Candidate, Contest, Prompt
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.stages import StageClock


class PlainTracker:
    """A tracker that shares nothing: every frame is encoded when it is needed, and points and masks go one by one."""

    def __init__(self, tracker: Sam2Tracker) -> None:
        self._tracker = tracker
        self._propagated: dict[tuple[int, bytes], BoolArray] = {}

    def encode(self, frame: Frame) -> Frame:
        """Nothing is kept."""
        return frame

    def propose(self, frame: Frame, points_xy_px: Sequence[tuple[float, float]]) -> MaskProposals:
        """One point after another."""
        each = [self._tracker.propose(self._tracker.encode(frame), [point]) for point in points_xy_px]
        return MaskProposals(
            np.concatenate([proposals.masks_phw for proposals in each]),
            torch.cat([proposals.predicted_iou_p for proposals in each]),
        )

    def propagate(self, clip: Sequence[Frame], key_index: int, masks_nhw: BoolArray) -> BoolArray:
        """One mask after another, each only once in its life."""
        return np.stack([self._propagate(clip, key_index, mask) for mask in masks_nhw])

    def _propagate(self, clip: Sequence[Frame], key_index: int, mask_hw: BoolArray) -> BoolArray:
        key = (key_index, mask_hw.tobytes())
        if key not in self._propagated:
            features = [self._tracker.encode(frame) for frame in clip]
            self._propagated[key] = self._tracker.propagate(features, key_index, mask_hw[None])[0]
        return self._propagated[key]

    def forget(self) -> None:
        """Begin another query."""
        self._propagated.clear()


class PlainGrounder(Grounder):
    """The method as it is written down, with a :class:`PlainTracker`."""

    @property
    def _contest(self) -> Contest:
        return _PlainContest(self.tracker, self.config.nms_iou)


class _PlainContest(Contest):
    """What survives on its frame is propagated over the whole clip, and only then they compete."""

    def candidates(self, features: Sequence[FrameFeatures], prompted: Sequence[Prompt], clock: StageClock) -> list[Candidate]:
        alive: list[Candidate] = []
        for key_index, here in enumerate(features):
            for old in alive:
                old.masks.append(self._propagated(old, features)[key_index])
            on_frame = [prompt for prompt in prompted if prompt.key_index == key_index]
            newcomers = self._proposals(here, on_frame, clock.check) if on_frame else []
            for newcomer in newcomers:
                self._propagated(newcomer, features)
            alive = self._compete(alive, newcomers)
        return alive

    def over_the_clip(self, candidates: Sequence[Candidate], features: Sequence[FrameFeatures], clock: StageClock) -> BoolArray:
        return np.stack([self._propagated(candidate, features) for candidate in candidates])

    def _propagated(self, candidate: Candidate, features: Sequence[FrameFeatures]) -> BoolArray:
        plain: Any = self.tracker  # a PlainTracker
        return plain.propagate(features, candidate.prompt.key_index, candidate.key_mask_hw[None])[0]
