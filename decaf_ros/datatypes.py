"""The values that flow through decaf_ros, from the camera to the published mask.

All are frozen and validated when built, so that a wrong shape is reported where it was made and not three modules later.
Shape suffixes: ``t`` frames, ``h``/``w`` pixels (or grid cells, where the docstring says so), ``n`` objects.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]


def _require(array: np.ndarray, name: str, dtype: type, ndim: int, last: int | None = None) -> None:
    """Raise ``ValueError``, with what was expected and what came, unless the array has this dtype and rank."""
    if array.dtype != dtype or array.ndim != ndim or (last is not None and array.shape[-1] != last):
        expected = f"{np.dtype(dtype).name} of rank {ndim}" + (f" with last dimension {last}" if last else "")
        raise ValueError(f"{name} must be {expected}, got {array.dtype.name} of shape {array.shape}")


def _require_finite(owner: object, *names: str) -> None:
    """Raise ``ValueError`` if a number is NaN or infinite."""
    for name in names:
        if not math.isfinite(value := getattr(owner, name)):
            raise ValueError(f"{type(owner).__name__}.{name} must be finite, got {value}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image with the header it came with.

    Attributes:
        stamp_ns: acquisition time in nanoseconds, as stamped by the camera driver; never the time of arrival.
        frame_id: the tf frame of the camera.
        image_rgb: ``(H, W, 3)`` uint8, RGB.
    """

    stamp_ns: int
    frame_id: str
    image_rgb: UInt8Array

    def __post_init__(self) -> None:
        _require(self.image_rgb, "Frame.image_rgb", np.uint8, 3, last=3)
        if 0 in self.image_rgb.shape:
            raise ValueError(f"Frame.image_rgb is empty: shape {self.image_rgb.shape}")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image_rgb.shape[0], self.image_rgb.shape[1]


@dataclass(frozen=True, eq=False)
class FrameWindow:
    """Key frames of one size, oldest first, with strictly increasing stamps: what a query looks at.

    Raises:
        ValueError: no frame, mixed image sizes, or stamps that do not increase.
    """

    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError("a FrameWindow needs at least one frame")
        sizes = {frame.size_hw for frame in self.frames}
        if len(sizes) > 1:
            raise ValueError(f"all frames of a FrameWindow must have one size, got {sorted(sizes)}")
        stamps = [frame.stamp_ns for frame in self.frames]
        if any(later <= earlier for earlier, later in itertools.pairwise(stamps)):
            raise ValueError(f"stamps of a FrameWindow must increase strictly, got {stamps}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels, the same for all frames."""
        return self.frames[0].size_hw

    @property
    def frames_per_second(self) -> float:
        """Mean rate of the key frames; 1.0 for a single frame, for which no rate exists."""
        if len(self.frames) == 1:
            return 1.0
        return (len(self.frames) - 1) * 1e9 / (self.frames[-1].stamp_ns - self.frames[0].stamp_ns)


@dataclass(frozen=True, eq=False)
class HeatMap:
    """The fused attention over one frame.

    Attributes:
        frame: the frame it was computed from.
        query_id: the query it answers.
        values_hw: ``(H', W')`` float32 in [0, 1], on the grid of visual tokens (not pixels).
    """

    frame: Frame
    query_id: int
    values_hw: Float32Array

    def __post_init__(self) -> None:
        _require(self.values_hw, "HeatMap.values_hw", np.float32, 2)
        if not np.all((self.values_hw >= 0) & (self.values_hw <= 1)):
            raise ValueError("HeatMap.values_hw must lie in [0, 1]")


@dataclass(frozen=True)
class PointPrompt:
    """One point query to SAM 2 (DecAF, section 3.4).

    Attributes:
        key_index: index of its key frame in the window.
        xy_px: position in pixels of the frame, at the centre of the grid cell.
        attention: value of the heat map there, in [0, 1].
    """

    key_index: int
    xy_px: tuple[float, float]
    attention: float


@dataclass(frozen=True)
class BoxPrompt:
    """One box query to SAM 2: what the language model answered when it was asked where something is.

    Attributes:
        key_index: index of its key frame in the window.
        xyxy_px: ``(x_min, y_min, x_max, y_max)`` in pixels of the frame, inside of it.
        attention: greatest value of the heat map in it, in [0, 1].
    """

    key_index: int
    xyxy_px: tuple[float, float, float, float]
    attention: float


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """Where an object is on one frame, as somebody other than DecAF says: a person's click, a detector's box, a known mask.

    Attributes:
        on_xy_px, off_xy_px: points on the object, and on what does not belong to it, in pixels.
        box_xyxy_px: ``(x_min, y_min, x_max, y_max)`` around it, in pixels.
        mask_hw: ``(H, W)`` bool, its pixels; stands alone.

    Raises:
        ValueError: nothing that tells the object from the rest, a point that is no number or that lies nowhere, an empty box,
            or a mask together with anything else.
    """

    on_xy_px: tuple[tuple[float, float], ...] = ()
    off_xy_px: tuple[tuple[float, float], ...] = ()
    box_xyxy_px: tuple[float, float, float, float] | None = None
    mask_hw: BoolArray | None = None

    def __post_init__(self) -> None:
        if self.mask_hw is not None:
            _require(self.mask_hw, "ObjectPrompt.mask_hw", np.bool_, 2)
            if self.on_xy_px or self.off_xy_px or self.box_xyxy_px:
                raise ValueError("a mask says all there is to say: give no points or box beside it")
            if not self.mask_hw.any():
                raise ValueError("the mask of the prompt is empty")
        elif not self.on_xy_px and self.box_xyxy_px is None:
            raise ValueError("a prompt needs a point on the object, a box around it, or its mask")
        if self.box_xyxy_px is not None:
            x_min, y_min, x_max, y_max = self.box_xyxy_px
            if not (x_min < x_max and y_min < y_max):
                raise ValueError(f"the box of the prompt is empty: {self.box_xyxy_px} (x_min, y_min, x_max, y_max)")
        for point in (*self.on_xy_px, *self.off_xy_px):
            if not all(map(math.isfinite, point)):
                raise ValueError(f"a point of the prompt is outside the image, wherever that ends: {point}")


@dataclass(frozen=True, eq=False)
class Tracklet:
    """A mask that was proposed on one key frame and propagated over the whole window.

    Attributes:
        prompt: the point or the box that proposed it.
        masks_thw: ``(T, H, W)`` bool, at the resolution of the camera image.
        predicted_iou: SAM 2's own estimate for the mask on the prompt's frame, in [0, 1].
        consistency: attention consistency ``s_ac``; positive values are divided by the window's largest.
        score: ``s_trk``, the mean of attention, predicted IoU and consistency.
    """

    prompt: PointPrompt | BoxPrompt
    masks_thw: BoolArray
    predicted_iou: float
    consistency: float
    score: float

    def __post_init__(self) -> None:
        _require(self.masks_thw, "Tracklet.masks_thw", np.bool_, 3)
        _require_finite(self, "predicted_iou", "consistency", "score")

    @property
    def grounder(self) -> str:
        """Where it came from: "decaf" for a point, or "box"."""
        return "box" if isinstance(self.prompt, BoxPrompt) else "decaf"

    @property
    def key_mask_hw(self) -> BoolArray:
        """``(H, W)`` bool: the mask on its key frame."""
        mask: BoolArray = self.masks_thw[self.prompt.key_index]
        return mask


def box_of(mask_hw: BoolArray) -> tuple[int, int, int, int]:
    """Tight box ``(x_min, y_min, x_max, y_max)`` around a ``(H, W)`` bool mask, max exclusive; all 0 for an empty one."""
    rows = np.flatnonzero(mask_hw.any(axis=1))
    if rows.size == 0:
        return 0, 0, 0, 0
    y_min, y_max = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask_hw[y_min:y_max].any(axis=0))
    return int(columns[0]), y_min, int(columns[-1]) + 1, y_max


class Visibility(Enum):
    """Whether the tracker sees an object on a frame."""

    VISIBLE = "visible"
    LOST = "lost"


class EventKind(Enum):
    """What can happen to an object."""

    FOUND = "found"
    LOST = "lost"
    SEEN_AGAIN = "seen again"
    REACQUIRED = "re-acquired"
    REMOVED = "removed"


@dataclass(frozen=True)
class TrackEvent:
    """Something happened to an object.

    Attributes:
        kind: found by a query, lost from view, seen again by the tracker, re-acquired by asking its query again, or removed.
        object_id, query_id, label: see :class:`ObjectMask`.
        stamp_ns, frame_id: of the frame on which it happened.
    """

    kind: EventKind
    object_id: int
    query_id: int
    label: str
    stamp_ns: int
    frame_id: str


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One tracked object on one frame.

    Attributes:
        object_id: permanent, from 1 on, never used twice until a reset.
        query_id: the query that found it.
        label: the name that the language model gave.
        mask_hw: ``(H, W)`` bool at camera resolution; all false when lost.
        score: tracklet score at birth, in [0, 1].
        presence: SAM 2's object score as a probability in [0, 1].
        visibility: visible or lost.
        attention_consistency: ``s_ac`` of the mask against the newest heat map of its query; NaN before the first.
    """

    object_id: int
    query_id: int
    label: str
    mask_hw: BoolArray
    score: float
    presence: float
    visibility: Visibility
    attention_consistency: float = float("nan")

    def __post_init__(self) -> None:
        _require(self.mask_hw, "ObjectMask.mask_hw", np.bool_, 2)
        _require_finite(self, "score", "presence")

    # Every output needs box and size. Masks are large, and are not written to once they are here.

    @cached_property
    def pixel_count(self) -> int:
        """Number of pixels of the mask."""
        return int(np.count_nonzero(self.mask_hw[self.box_slices]))

    @cached_property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Tight box ``(x_min, y_min, x_max, y_max)`` in pixels, max exclusive; all 0 for an empty mask."""
        return box_of(self.mask_hw)

    @property
    def box_slices(self) -> tuple[slice, slice]:
        """Rows and columns of the box, to index images and masks with."""
        x_min, y_min, x_max, y_max = self.box_xyxy
        return slice(y_min, y_max), slice(x_min, x_max)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What the tracker says about one frame: the one result type that every output is made from."""

    frame: Frame
    objects: tuple[ObjectMask, ...]

    def __post_init__(self) -> None:
        for tracked in self.objects:
            if tracked.mask_hw.shape != self.frame.size_hw:
                raise ValueError(
                    f"mask of object {tracked.object_id} has shape {tracked.mask_hw.shape}, its frame {self.frame.size_hw}"
                )

    def union_hw(self) -> BoolArray:
        """``(H, W)`` bool: pixels of any object."""
        union = np.zeros(self.frame.size_hw, dtype=np.bool_)
        for tracked in self.objects:
            union[tracked.box_slices] |= tracked.mask_hw[tracked.box_slices]
        return union

    def labels_hw(self) -> UInt16Array:
        """``(H, W)`` uint16: the id of the object at each pixel, 0 for none; where masks overlap the smaller one wins."""
        labels = np.zeros(self.frame.size_hw, dtype=np.uint16)
        for tracked in sorted(self.objects, key=lambda tracked: tracked.pixel_count, reverse=True):
            labels[tracked.box_slices][tracked.mask_hw[tracked.box_slices]] = tracked.object_id
        return labels
