"""Where an object is heading, and which parts of its mask lie elsewhere.

SAM 2's memory knows how things look, not how they move: when something that looks like the object passes it, its mask soon
covers both. Here the part stays that is where the object was going. This is no part of SAM 2, and off unless asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import BoolArray

_Vector = npt.NDArray[np.float64]

# A straight line is fitted to the last frames, over so long a time or to so many: fewer follow a turn sooner, more are led
# astray less by a touch.
_MEMORY_S, _MEMORY_FRAMES = 0.75, 8
_SIZE_GAIN = 0.2
# How far a box may lie from where it is expected, in its own size, and how much larger or smaller it may be.
_NEAR, _ALIKE = 0.4, 1.2
_SETTLED_FRAMES = 5
# Time without the object where it was expected, after which it is looked at afresh.
_PATIENCE_S = 2.0
# A part is at home when half of it lies in the expected box, give or take a margin, and it fills a fair part of the box.
_LEAST_INSIDE, _LEAST_FILLED, _MARGIN = 0.5, 0.3, 0.15


@dataclass(frozen=True, eq=False)
class BoxMotion:
    """The box of one object at a constant velocity, in pixels of the masks that it is made of.

    Only a box like the one that was expected teaches it anything; while there is none, it goes on as before. Frames may come at
    any rate, evenly or not: key frames first, then those that passed while a query ran, then those of the camera.

    Attributes:
        stamps_ns: of the last frames that taught it, increasing.
        centres_nxy: ``(N, 2)`` of the box on each of them.
        size_wh: ``(2,)`` of the box.
        seen: frames that taught it.
    """

    stamps_ns: tuple[int, ...]
    centres_nxy: _Vector
    size_wh: _Vector
    seen: int = 1

    @property
    def settled(self) -> bool:
        """Whether it was watched for long enough to tell what belongs to the object."""
        return self.seen >= _SETTLED_FRAMES

    def is_outdated(self, stamp_ns: int) -> bool:
        """Whether nothing taught it for too long a time, or time went back."""
        return not 0 < stamp_ns - self.stamps_ns[-1] <= _PATIENCE_S * 1e9

    def centre_at(self, stamp_ns: int) -> _Vector:
        """``(2,)`` where the box's centre is at a later time, by the straight line that fits best."""
        times_s = (np.array(self.stamps_ns) - self.stamps_ns[-1]) * 1e-9
        apart_s = times_s - times_s.mean()
        velocity_xy = apart_s @ self.centres_nxy / max(apart_s @ apart_s, 1e-12)
        passed_s = (stamp_ns - self.stamps_ns[-1]) * 1e-9 - times_s.mean()
        return self.centres_nxy.mean(axis=0) + velocity_xy * passed_s

    def expected_xyxy(self, stamp_ns: int) -> _Vector | None:
        """``(4,)`` left, top, right and bottom on a later frame; ``None`` while that is not known."""
        if not self.settled or self.is_outdated(stamp_ns):
            return None
        centre_xy = self.centre_at(stamp_ns)
        return np.concatenate([centre_xy - self.size_wh / 2, centre_xy + self.size_wh / 2])

    def leads_to(self, other: BoxMotion) -> bool:
        """Whether a later box is about where this one goes, and as large; two that touch are larger."""
        near = np.abs(other.centres_nxy[0] - self.centre_at(other.stamps_ns[0])) <= _NEAR * self.size_wh
        alike = np.abs(np.log(other.size_wh / self.size_wh)) <= np.log(_ALIKE)
        return bool((near.all() or self.seen == 1) and alike.all())  # the velocity is not known before the second frame


def motion_after(motion: BoxMotion | None, mask_hw: BoolArray, stamp_ns: int) -> BoxMotion | None:
    """What is known of a motion after one more frame; ``None`` when that is nothing.

    Args:
        motion: what was known before.
        mask_hw: ``(H, W)`` the object on the frame; its largest part counts.
        stamp_ns: of the frame.
    """
    found = _largest_part(mask_hw, stamp_ns)
    if motion is None or motion.is_outdated(stamp_ns):
        return found
    if found is None or not motion.leads_to(found):
        return motion if motion.settled else found
    past = sum(stamp_ns - each <= _MEMORY_S * 1e9 for each in motion.stamps_ns)
    first = -max(past, _MEMORY_FRAMES - 1)
    return BoxMotion(
        (*motion.stamps_ns[first:], stamp_ns),
        np.concatenate([motion.centres_nxy[first:], found.centres_nxy]),
        motion.size_wh + _SIZE_GAIN * (found.size_wh - motion.size_wh),
        motion.seen + 1,
    )


def stray_parts(mask_hw: BoolArray, expected_xyxy: _Vector) -> BoolArray:
    """``(H, W)`` bool: parts of a mask that lie apart from an expected box, if there is enough of it inside; else nothing.

    Args:
        mask_hw: ``(H, W)``.
        expected_xyxy: ``(4,)`` left, top, right and bottom.
    """
    count, parts_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8))
    if count <= 2:  # the ground and one part
        return np.zeros_like(mask_hw)
    width, height = expected_xyxy[2:] - expected_xyxy[:2]
    left, top, right, bottom = expected_xyxy + _MARGIN * np.array([-width, -height, width, height])
    y, x = np.ogrid[: mask_hw.shape[0], : mask_hw.shape[1]]
    inside = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    areas = stats[:, cv2.CC_STAT_AREA]
    at_home = np.bincount(parts_hw[inside], minlength=count) >= _LEAST_INSIDE * areas
    at_home[0] = False
    if areas[at_home].sum() < _LEAST_FILLED * width * height:
        return np.zeros_like(mask_hw)
    return mask_hw & ~at_home[parts_hw]


def _largest_part(mask_hw: BoolArray, stamp_ns: int) -> BoxMotion | None:
    """The box around the largest part of a mask, standing still; ``None`` for an empty mask."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8))
    if count < 2:
        return None
    x, y, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()].astype(np.float64)
    return BoxMotion((stamp_ns,), np.array([[x + width / 2, y + height / 2]]), np.array([width, height]))
