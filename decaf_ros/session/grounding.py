"""The slow path: a clip of key frames and a sentence become objects with masks (DecAF, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from decaf_ros.config import GrounderName, GroundingConfig
from decaf_ros.datatypes import BoolArray, FrameWindow, PointPrompt, Tracklet, box_of
from decaf_ros.method import points, scoring
from decaf_ros.models.protocols import FrameFeatures, MaskTracker, ObjectTrack
from decaf_ros.session.attention import Attention, AttentionSource
from decaf_ros.session.candidates import Candidate, Contest
from decaf_ros.session.errors import Guess
from decaf_ros.session.frames import StoredFrame, window_of
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

    @property
    def grounder(self) -> str:
        """Where the best tracklet came from: "decaf" or "box"."""
        return self.tracklets[0].grounder

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
        tracks: what carried the tracklets from their key frames to the end of the window. A track has one owner:
            :meth:`Grounder.build_tracks` takes out those that are followed on, and starts anew where there is none.
    """

    window: FrameWindow
    attention: Attention
    point_prompts: tuple[PointPrompt, ...]
    tracklets: tuple[Tracklet, ...]
    objects: tuple[GroundedObject, ...]
    confident: bool
    doubted: bool = False
    tracks: dict[Tracklet, ObjectTrack | None] = field(default_factory=dict, repr=False)

    @property
    def grounder(self) -> str:
        """Where the best object came from: "decaf" or "box"; "" where there is none."""
        return self.objects[0].grounder if self.objects else ""

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

    def ground(
        self,
        clip: Sequence[StoredFrame],
        expression: str,
        clock: StageClock | None = None,
        grounder: GrounderName | None = None,
    ) -> Grounding:
        """Find what the expression refers to.

        Args:
            clip: key frames, oldest first.
            expression: the sentence.
            clock: told about stages; takes their time.
            grounder: where candidates come from; ``None`` for what ``config`` says.

        Raises:
            NoBoxesError: boxes are asked for, and the language model was not taught to answer with any.
            ValueError: attention or masks are not finite; the message names the way out.
        """
        grounder = grounder or self.config.grounder
        clock = clock or StageClock()
        window = window_of(list(clip))
        attention = self.attention.attend(window, expression, clock, grounder)
        with clock.stage("prompting"):
            found = (
                points.select_points(attention.heat_thw, self.config.point_threshold, window.size_hw)
                if grounder != "box"
                else []
            )
            features = [stored.features() for stored in clip]
            candidates = self._contest.candidates(features, [*found, *attention.boxes], clock)
            tracks = self._scored(candidates, features, attention.heat_thw, clock)
        tracklets = tuple(tracks)
        passed = [tracklet for tracklet in tracklets if tracklet.score > self.config.tracklet_threshold]
        objects = merge_same(passed or tracklets[:1], self.config.nms_iou, clock.check)
        doubted = attention.presence < self.config.min_presence  # never where it was not asked
        return Grounding(window, attention, tuple(found), tracklets, tuple(objects), bool(passed), doubted, tracks)

    def appearances(self, grounding: Grounding, clip: Sequence[StoredFrame]) -> list[torch.Tensor]:
        """What every object looks like on the key frame of its best tracklet."""
        best = [found.tracklets[0] for found in grounding.objects]
        return [self.tracker.appearance(clip[each.prompt.key_index].features(), each.key_mask_hw) for each in best]

    def build_tracks(
        self, grounding: Grounding, clip: Sequence[StoredFrame], clock: StageClock | None = None
    ) -> list[ObjectTrack]:
        """Streaming memory for every object, carried from its first key frame to the last frame of the clip.

        An object with a mask on one key frame goes on with what carried that; others begin anew.
        """
        carried = [self._carried(grounding, found) for found in grounding.objects]
        masks = [found.conditioning_masks() for found, track in zip(grounding.objects, carried, strict=True) if track is None]
        built = iter(self._from_masks(masks, clip, clock or StageClock()))
        return [next(built) if track is None else track for track in carried]

    def _carried(self, grounding: Grounding, found: GroundedObject) -> ObjectTrack | None:
        return grounding.tracks.pop(found.tracklets[0], None) if len(found.conditioning_masks()) == 1 else None

    def _from_masks(
        self, masks: Sequence[dict[int, BoolArray]], clip: Sequence[StoredFrame], clock: StageClock
    ) -> list[ObjectTrack]:
        """A track for each object from its masks by key frame."""
        tracks: list[ObjectTrack | None] = [None] * len(masks)
        for index, stored in enumerate(clip if masks else ()):
            clock.check()
            going_on = [track for track, given in zip(tracks, masks, strict=True) if track is not None and index not in given]
            if going_on:
                self.tracker.step(going_on, stored.features())
            for slot, given in enumerate(masks):
                if index in given:
                    tracks[slot] = self._condition(tracks[slot], stored.features(), given[index])
        return [track for track in tracks if track is not None]

    @property
    def _contest(self) -> Contest:
        return Contest(self.tracker, self.config.nms_iou)

    def _condition(self, track: ObjectTrack | None, features: FrameFeatures, mask_hw: BoolArray) -> ObjectTrack:
        if track is None:
            return self.tracker.start_track(features, mask_hw)
        self.tracker.condition(track, features, mask_hw)
        return track

    def _scored(
        self, candidates: Sequence[Candidate], features: Sequence[FrameFeatures], heat_thw: torch.Tensor, clock: StageClock
    ) -> dict[Tracklet, ObjectTrack | None]:
        """Score the survivors by their masks over the whole clip, best first, with what carried them to its end."""
        if not candidates:
            return {}
        masks = self._contest.over_the_clip(candidates, features, clock)
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
        tracks: dict[Tracklet, ObjectTrack | None] = {}
        for row in scores.argsort(descending=True, stable=True).tolist():
            own, agreement, score = candidates[row], float(consistency[row]), float(scores[row])
            tracks[Tracklet(own.prompt, masks[row], own.predicted_iou, agreement, score)] = own.track
        return tracks


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
