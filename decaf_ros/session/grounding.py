"""The slow path: a clip of key frames and a sentence become objects with masks (DecAF, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from decaf_ros.config import GroundingConfig
from decaf_ros.datatypes import BoolArray, FrameWindow, PointPrompt, Tracklet, box_of
from decaf_ros.method import points, scoring
from decaf_ros.models.protocols import FrameFeatures, MaskTracker, ObjectTrack
from decaf_ros.session.attention import Attention, AttentionSource
from decaf_ros.session.errors import Guess
from decaf_ros.session.frames import StoredFrame, window_of
from decaf_ros.session.objects import NOT_FINITE
from decaf_ros.session.stages import StageClock


@dataclass(frozen=True, eq=False)
class GroundedObject:
    """One object: tracklets that are the same thing (mask IoU above the NMS threshold on a common frame).

    Attributes:
        tracklets: best first.
        score: the best tracklet's.
    """

    tracklets: tuple[Tracklet, ...]

    @property
    def score(self) -> float:
        """Score of the best tracklet."""
        return self.tracklets[0].score

    def conditioning_masks(self) -> dict[int, BoolArray]:
        """Masks ``(H, W)`` by key frame index from which SAM 2 tracks on; the better tracklet wins a shared key frame."""
        masks: dict[int, BoolArray] = {}
        for tracklet in self.tracklets:
            masks.setdefault(tracklet.prompt.key_index, tracklet.key_mask_hw)
        return dict(sorted(masks.items()))


@dataclass(frozen=True, eq=False)
class Grounding:
    """Everything that a query found out about its window, for tracking on and for looking at.

    Attributes:
        window: the key frames.
        attention: heat map, name and answers.
        point_prompts: all points that were tried.
        tracklets: all that survived suppression, best first; the paper's candidates.
        objects: those above the threshold, merged into instances, best first; when none passed, the best one alone.
        confident: false when no tracklet passed the threshold.
        doubted: by the language model nothing fits: presence is below ``min_presence``.
    """

    window: FrameWindow
    attention: Attention
    point_prompts: tuple[PointPrompt, ...]
    tracklets: tuple[Tracklet, ...]
    objects: tuple[GroundedObject, ...]
    confident: bool
    doubted: bool = False

    @property
    def guess(self) -> Guess | None:
        """The best object as a box, on the newest key frame that shows it; ``None`` where there is none."""
        for tracklet in self.objects[0].tracklets[:1] if self.objects else ():
            for frame, mask_hw in zip(reversed(self.window.frames), tracklet.masks_thw[::-1], strict=True):
                if mask_hw.any():
                    return Guess(box_of(mask_hw), tracklet.score, frame.stamp_ns)
        return None

    def union_masks(self) -> BoolArray:
        """``(T, H, W)`` bool: the paper's output, the union of the kept tracklets."""
        union = np.zeros((len(self.window), *self.window.size_hw), dtype=np.bool_)
        for found in self.objects:
            for tracklet in found.tracklets:
                union |= tracklet.masks_thw
        return union


@dataclass(eq=False)
class _Candidate:
    """A mask proposal that survived so far, its masks from its key frame to the frame at hand, and what carries it on."""

    prompt: PointPrompt
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
class Grounder:
    """DecAF: prompts the mask model where the language model looks. Stateless between calls.

    Attributes:
        attention: says where that is.
        tracker: the mask model, whose frames it is to be given.
        config: thresholds.
    """

    attention: AttentionSource
    tracker: MaskTracker
    config: GroundingConfig = field(default_factory=GroundingConfig)

    def ground(self, clip: Sequence[StoredFrame], expression: str, clock: StageClock | None = None) -> Grounding:
        """Find what the expression refers to.

        Args:
            clip: key frames, oldest first.
            expression: the sentence.
            clock: told about stages; takes their time.

        Raises:
            ValueError: attention or masks are not finite; the message names the way out.
        """
        clock = clock or StageClock()
        window = window_of(list(clip))
        attention = self.attention.attend(window, expression, clock)
        with clock.stage("prompting"):
            found = points.select_points(attention.heat_thw, self.config.point_threshold, window.size_hw)
            features = [stored.features() for stored in clip]
            candidates = self._candidates(features, found, clock)
            tracklets = self._scored(candidates, features, attention.heat_thw, clock)
        passed = [tracklet for tracklet in tracklets if tracklet.score > self.config.tracklet_threshold]
        objects = merge_same(passed or tracklets[:1], self.config.nms_iou, clock.check)
        doubted = attention.presence < self.config.min_presence  # never where it was not asked
        return Grounding(window, attention, tuple(found), tuple(tracklets), tuple(objects), bool(passed), doubted)

    def appearances(self, grounding: Grounding, clip: Sequence[StoredFrame]) -> list[torch.Tensor]:
        """What every object looks like on the key frame of its best tracklet."""
        best = [found.tracklets[0] for found in grounding.objects]
        return [self.tracker.appearance(clip[each.prompt.key_index].features(), each.key_mask_hw) for each in best]

    def build_tracks(
        self, grounding: Grounding, clip: Sequence[StoredFrame], clock: StageClock | None = None
    ) -> list[ObjectTrack]:
        """Streaming memory for every object, carried from its first key frame to the last frame of the clip."""
        clock = clock or StageClock()
        masks = [found.conditioning_masks() for found in grounding.objects]
        tracks: list[ObjectTrack | None] = [None] * len(masks)
        for index, stored in enumerate(clip):
            clock.check()
            going_on = [track for track, given in zip(tracks, masks, strict=True) if track is not None and index not in given]
            if going_on:
                self.tracker.step(going_on, stored.features())
            for slot, given in enumerate(masks):
                if index in given:
                    tracks[slot] = self._condition(tracks[slot], stored.features(), given[index])
        return [track for track in tracks if track is not None]

    def _condition(self, track: ObjectTrack | None, features: FrameFeatures, mask_hw: BoolArray) -> ObjectTrack:
        if track is None:
            return self.tracker.start_track(features, mask_hw)
        self.tracker.condition(track, features, mask_hw)
        return track

    def _candidates(
        self, features: Sequence[FrameFeatures], prompted: Sequence[PointPrompt], clock: StageClock
    ) -> list[_Candidate]:
        """Masks that survive suppression on their own frame and against those found on earlier key frames.

        Each survivor is carried forwards only, and only until a better one replaces it: all that the comparison needs. What
        is left in the end has been carried to the end of the clip.
        """
        alive: list[_Candidate] = []
        for key_index, here in enumerate(features):
            clock.check()
            tracks = [old.track for old in alive if old.track is not None]
            if tracks:
                for old, output in zip(alive, self.tracker.step(tracks, here, gated=False), strict=True):
                    old.masks.append(output.mask_hw)
            on_frame = [prompt for prompt in prompted if prompt.key_index == key_index]
            if on_frame:
                alive = self._compete(alive, self._proposals(here, on_frame, clock.check))
                for newcomer in alive:
                    if newcomer.track is None:
                        newcomer.track = self.tracker.start_track(here, newcomer.key_mask_hw, reversible=True)
        return alive

    def _proposals(
        self, features: FrameFeatures, on_frame: Sequence[PointPrompt], check: Callable[[], None]
    ) -> list[_Candidate]:
        proposals = self.tracker.propose(features, [prompt.xy_px for prompt in on_frame])
        if not proposals.predicted_iou_p.isfinite().all():
            raise ValueError(NOT_FINITE)
        iou = proposals.predicted_iou_p.tolist()
        scores = [prompt.attention + value for prompt, value in zip(on_frame, iou, strict=True)]
        masks = proposals.masks_phw
        return [
            _Candidate(on_frame[i], iou[i], [masks[i].copy()])  # a view would keep the masks of all points
            for i in points.suppress(masks, scores, self.config.nms_iou, check)
        ]

    def _compete(self, alive: list[_Candidate], newcomers: list[_Candidate]) -> list[_Candidate]:
        """A newcomer replaces the old candidates that it overlaps if it is better than all of them, else it is dropped."""
        for newcomer in newcomers:
            rivals = [old for old in alive if points.mask_iou(old.current_mask_hw, newcomer.key_mask_hw) > self.config.nms_iou]
            if all(newcomer.object_score > rival.object_score for rival in rivals):
                alive = [old for old in alive if old not in rivals] + [newcomer]
        return alive

    def _scored(
        self, candidates: Sequence[_Candidate], features: Sequence[FrameFeatures], heat_thw: torch.Tensor, clock: StageClock
    ) -> list[Tracklet]:
        """Score the survivors by their masks over the whole clip, best first."""
        if not candidates:
            return []
        masks = self._over_the_clip(candidates, features, clock)
        agreements = []
        for mask in torch.from_numpy(masks)[:, None]:
            clock.check()
            agreements.append(scoring.attention_consistency(mask, heat_thw))
        consistency = scoring.normalise_positive(torch.cat(agreements))
        scores = scoring.tracklet_scores(
            torch.tensor([candidate.prompt.attention for candidate in candidates]),
            torch.tensor([candidate.predicted_iou for candidate in candidates]),
            consistency,
        )
        order = scores.argsort(descending=True, stable=True).tolist()
        return [
            Tracklet(candidates[i].prompt, masks[i], candidates[i].predicted_iou, float(consistency[i]), float(scores[i]))
            for i in order
        ]

    def _over_the_clip(
        self, candidates: Sequence[_Candidate], features: Sequence[FrameFeatures], clock: StageClock
    ) -> BoolArray:
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


def merge_same(
    tracklets: Sequence[Tracklet], iou_threshold: float, check: Callable[[], None] = lambda: None
) -> list[GroundedObject]:
    """Tracklets, best first, that overlap by more than the threshold on any common frame become one object.

    ``check`` is called before each of them, and raises to abandon the work.
    """
    groups: list[list[Tracklet]] = []
    for tracklet in tracklets:
        check()
        same = [group for group in groups if any(_same_object(tracklet, member, iou_threshold) for member in group)]
        merged = [member for group in same for member in group] + [tracklet]
        groups = [group for group in groups if group not in same] + [merged]
    objects = [GroundedObject(tuple(sorted(group, key=lambda member: -member.score))) for group in groups]
    return sorted(objects, key=lambda found: -found.score)


def _same_object(a: Tracklet, b: Tracklet, iou_threshold: float) -> bool:
    intersection = (a.masks_thw & b.masks_thw).sum(axis=(1, 2))
    union = (a.masks_thw | b.masks_thw).sum(axis=(1, 2))
    return bool(np.any(intersection > iou_threshold * np.maximum(union, 1)))
