"""A whole video at once, as the paper evaluates: key frames uniform over it, masks on every frame.

Frames are read when they are needed and masks are given out in order, so that the length of a video costs disk, not memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decaf_ros.datatypes import BoolArray, Frame, Segmentation
from decaf_ros.models.protocols import FrameFeatures, MaskTracker, ObjectTrack, TrackOutput
from decaf_ros.session.frames import StoredFrame, uniform_selection
from decaf_ros.session.grounding import Grounder, Grounding
from decaf_ros.session.objects import object_mask
from decaf_ros.session.stages import StageClock
from decaf_ros.video import FrameSource

_CHUNK_FRAMES = 32
QUERY_ID = 1


@dataclass(frozen=True, eq=False)
class GroundedVideo:
    """What a sentence refers to in a video.

    Attributes:
        key_indices: the video's frames that were looked at.
        grounding: what was found on them.
    """

    key_indices: tuple[int, ...]
    grounding: Grounding


def ground_video(
    source: FrameSource,
    expression: str,
    grounder: Grounder,
    tracker: MaskTracker,
    key_frames: int = 16,
    clock: StageClock | None = None,
) -> GroundedVideo:
    """Find what the expression refers to, on key frames uniform over the video with the first and last among them."""
    indices = tuple(uniform_selection(range(len(source)), key_frames))
    clip = [StoredFrame(source.read(index, index + 1)[0], tracker) for index in indices]
    return GroundedVideo(indices, grounder.ground(clip, expression, clock))


def segment_video(source: FrameSource, grounded: GroundedVideo, tracker: MaskTracker) -> Iterator[Segmentation]:
    """Masks of everything found, on every frame of the video in order; object ids count from 1, best first.

    Each object is carried forwards from its first conditioning frame, and backwards from there, knowing what came after it.
    Frames before it are read first, in reverse, and only their masks are kept, packed.
    """
    given = [
        {grounded.key_indices[key]: mask for key, mask in found.conditioning_masks().items()}
        for found in grounded.grounding.objects
    ]
    earlier = _carry_backwards(source, given, tracker)
    tracks: list[ObjectTrack | None] = [None] * len(given)
    for index, frame in _read_forwards(source):
        outputs = {slot: packed.unpack() for slot, packed in earlier.pop(index, {}).items()}
        outputs |= _carry_one_frame(tracks, given, index, frame, tracker)
        label, found = grounded.grounding.attention.object_name, grounded.grounding.objects
        masks = (object_mask(slot + 1, QUERY_ID, label, found[slot].score, outputs[slot]) for slot in sorted(outputs))
        yield Segmentation(frame, tuple(masks))


@dataclass(frozen=True)
class _PackedOutput:
    """A mask of the backward pass, compressed until its frame comes up."""

    packed: bytes
    size_hw: tuple[int, int]
    presence: float

    def unpack(self) -> TrackOutput:
        bits = np.frombuffer(zlib.decompress(self.packed), dtype=np.uint8)
        mask = np.unpackbits(bits, count=self.size_hw[0] * self.size_hw[1]).reshape(self.size_hw)
        return TrackOutput(mask.astype(np.bool_), self.presence)


def _pack(output: TrackOutput) -> _PackedOutput:
    height, width = output.mask_hw.shape
    return _PackedOutput(zlib.compress(np.packbits(output.mask_hw).tobytes(), level=1), (height, width), output.presence)


def _carry_backwards(
    source: FrameSource, given: Sequence[Mapping[int, BoolArray]], tracker: MaskTracker
) -> dict[int, dict[int, _PackedOutput]]:
    """Masks before each object's first conditioning frame, by frame index and slot of the object."""
    firsts = [min(masks) for masks in given]
    tracks: dict[int, ObjectTrack] = {}
    earlier: dict[int, dict[int, _PackedOutput]] = {}
    for index, frame in _read_backwards(source, max(firsts, default=-1) + 1):
        beginning = [slot for slot, first in enumerate(firsts) if first == index]
        if not (beginning or tracks):
            continue
        features = tracker.encode(frame)
        outputs = tracker.step(list(tracks.values()), features) if tracks else []
        earlier[index] = {slot: _pack(output) for slot, output in zip(tracks, outputs, strict=True)}
        if beginning and index > 0:
            after = source.read(index + 1, min(index + 1 + tracker.reach, len(source)))
            later = [tracker.encode(each) for each in after]
            tracks |= {slot: tracker.start_backwards(features, given[slot][index], later) for slot in beginning}
    return earlier


def _carry_one_frame(
    tracks: list[ObjectTrack | None],
    given: Sequence[Mapping[int, BoolArray]],
    index: int,
    frame: Frame,
    tracker: MaskTracker,
) -> dict[int, TrackOutput]:
    """Start, condition or step every track on a frame; objects that have not begun yet are left out."""
    conditioned = [slot for slot, masks in enumerate(given) if index in masks]
    going_on = {slot: track for slot, track in enumerate(tracks) if track is not None and slot not in conditioned}
    if not conditioned and not going_on:
        return {}
    features = tracker.encode(frame)
    outputs = dict(zip(going_on, tracker.step(list(going_on.values()), features), strict=True)) if going_on else {}
    for slot in conditioned:
        mask = given[slot][index]
        tracks[slot] = _conditioned(tracks[slot], features, mask, tracker)
        outputs[slot] = TrackOutput(mask, presence=1.0)
    return outputs


def _conditioned(track: ObjectTrack | None, features: FrameFeatures, mask: BoolArray, tracker: MaskTracker) -> ObjectTrack:
    if track is None:
        return tracker.start_track(features, mask)
    tracker.condition(track, features, mask)
    return track


def _read_forwards(source: FrameSource) -> Iterator[tuple[int, Frame]]:
    for start in range(0, len(source), _CHUNK_FRAMES):
        yield from enumerate(source.read(start, min(start + _CHUNK_FRAMES, len(source))), start)


def _read_backwards(source: FrameSource, stop: int) -> Iterator[tuple[int, Frame]]:
    while stop > 0:
        start = max(0, stop - _CHUNK_FRAMES)
        yield from reversed(list(enumerate(source.read(start, stop), start)))
        stop = start
