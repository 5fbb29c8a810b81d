"""Objects that are followed: what is known of each, when its track is in doubt, and whether another find is the same thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import BoolArray, EventKind, Frame, ObjectMask, TrackEvent, Visibility
from decaf_ros.method.points import mask_iou
from decaf_ros.models.protocols import ObjectTrack, TrackOutput

_PRESENCE_THRESHOLD = 0.5
_SAME_PLACE_IOU = 0.5
NOT_FINITE = (
    "the mask model's numbers are not finite: it overflows in its number format; use bfloat16 or float32 (parameter dtype)"
)


def object_mask(
    object_id: int,
    query_id: int,
    label: str,
    score: float,
    output: TrackOutput,
    attention_consistency: float = float("nan"),
) -> ObjectMask:
    """What the tracker says of an object on one frame: lost, with an empty mask, unless it is there and has pixels.

    One whose presence is not finite, as the model overflowed, is not there.
    """
    presence = output.presence if math.isfinite(output.presence) else 0.0
    visible = presence >= _PRESENCE_THRESHOLD and bool(output.mask_hw.any())
    return ObjectMask(
        object_id=object_id,
        query_id=query_id,
        label=label,
        mask_hw=output.mask_hw if visible else np.zeros_like(output.mask_hw),
        score=score,
        presence=presence,
        visibility=Visibility.VISIBLE if visible else Visibility.LOST,
        attention_consistency=attention_consistency,
    )


@dataclass(frozen=True, eq=False)
class FoundObject:
    """An object on its way into the session.

    Attributes:
        track: its memory, up to the snapshot's last frame.
        score: tracklet score, in [0, 1].
        mask_hw: where it is on that frame.
        appearance: what it looks like where it was found, see :meth:`MaskTracker.appearance`.
    """

    track: ObjectTrack
    score: float
    mask_hw: BoolArray
    appearance: torch.Tensor


@dataclass(eq=False)
class LiveObject:
    """An object that is followed. Not thread-safe; the session guards it.

    Attributes:
        object_id, query_id, label, score: see :class:`~decaf_ros.datatypes.ObjectMask`.
        track: its memory.
        appearances: what it looked like when it was found, and when attention last agreed with its mask.
        attention_consistency: of the newest heat map that its mask was compared with; NaN before the first.
        doubts: how many heat maps in a row disagreed with its mask, since its query was asked last.
        disputed: whether so many did that its query was to be asked again, and none has agreed since.
        lost_since_ns: stamp of the first frame without it; ``None`` while it is seen.
    """

    object_id: int
    query_id: int
    label: str
    score: float
    track: ObjectTrack
    appearances: list[torch.Tensor]
    attention_consistency: float = float("nan")
    doubts: int = 0
    disputed: bool = False
    lost_since_ns: int | None = None

    def seen(self, frame: Frame, output: TrackOutput) -> ObjectMask:
        """Where it is on a frame."""
        seen = object_mask(self.object_id, self.query_id, self.label, self.score, output, self.attention_consistency)
        if seen.visibility is Visibility.VISIBLE:
            self.lost_since_ns = None
        elif self.lost_since_ns is None:
            self.lost_since_ns = frame.stamp_ns
        return seen

    def compare(self, consistency: float, appearance: torch.Tensor, config: SessionConfig) -> None:
        """Note how a heat map agrees with its mask; where it does, that is what the object looks like."""
        self.attention_consistency = consistency
        if consistency < config.reacquire_consistency:
            self.doubts += 1
            self.disputed |= self.doubts >= config.reacquire_after_refreshes
        else:
            self.doubts, self.disputed = 0, False
            self.appearances[1:] = [appearance]

    def in_doubt(self, now_ns: int, config: SessionConfig) -> bool:
        """Whether vision has lost it for long enough, or attention keeps saying that its mask is on something else."""
        lost = self.lost_since_ns is not None and now_ns - self.lost_since_ns >= config.reacquire_seconds * 1e9
        return lost or self.doubts >= config.reacquire_after_refreshes

    @property
    def settled(self) -> bool:
        """Whether it is seen, and attention does not say that its mask is on something else."""
        return self.lost_since_ns is None and not self.disputed

    def start_anew(self, frame: Frame) -> None:
        """Go on with a frame that may be of an earlier time: what was lost later than that, is lost since now."""
        if self.lost_since_ns is not None:
            self.lost_since_ns = min(self.lost_since_ns, frame.stamp_ns)

    def likeness(self, appearance: torch.Tensor) -> float:
        """Cosine similarity, in [-1, 1], to what it looked like when it was certain."""
        return max(float(known @ appearance) for known in self.appearances)

    def take_over(self, found: FoundObject) -> None:
        """Go on with the track of a find that is the same thing."""
        self.track, self.score = found.track, found.score
        self.doubts, self.lost_since_ns = 0, None

    def event(self, kind: EventKind, frame: Frame) -> TrackEvent:
        """Something happened to it on a frame."""
        return TrackEvent(kind, self.object_id, self.query_id, self.label, frame.stamp_ns, frame.frame_id)


def recognise(
    found: Sequence[FoundObject],
    masks: Sequence[TrackOutput],
    followed: Sequence[BoolArray],
    doubtful: Sequence[LiveObject],
    min_likeness: float,
) -> tuple[dict[int, LiveObject], list[int]]:
    """Tell which finds are objects that are in doubt.

    A find that lies where an object is followed, is that object, and needs nothing. Any other is the doubtful object that it
    looks most like, if it looks like one at all.

    Args:
        found: what a query found, best first.
        masks: where they are on the newest frame.
        followed: ``(H, W)`` masks of the query's objects on the same frame; empty for those that are lost.
        doubtful: objects whose track is in doubt.
        min_likeness: cosine similarity from which two are the same thing.

    Returns:
        The object by index of the find, and the indices of finds that are none of those known. Finds that are not to be seen on
        the newest frame are in neither.
    """
    recognised: dict[int, LiveObject] = {}
    new: list[int] = []
    for index, (item, output) in enumerate(zip(found, masks, strict=True)):
        if not output.mask_hw.any() or any(mask_iou(output.mask_hw, mask) > _SAME_PLACE_IOU for mask in followed):
            continue
        open_still = [each for each in doubtful if each not in recognised.values()]
        best = max(open_still, key=lambda each: each.likeness(item.appearance), default=None)
        if best is not None and best.likeness(item.appearance) >= min_likeness:
            recognised[index] = best
        else:
            new.append(index)
    return recognised, new
