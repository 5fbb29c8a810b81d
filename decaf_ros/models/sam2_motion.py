"""Where an object is heading, and which parts of its mask lie elsewhere.

SAM 2's memory knows how things look, not how they move: when something that looks like the object passes it, its mask soon
covers both. Here the part stays that is where the object was going. This is no part of SAM 2, and off unless asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import BoolArray

_Vector = npt.NDArray[np.float64]

# Frames that a straight line is fitted to, in effect: fewer follow a turn sooner, more are led astray less by a touch.
_MEMORY_FRAMES = 8
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
    any rate: key frames first, then those that passed while a query ran, then those of the camera.

    Attributes:
        stamp_ns: of the frame that taught it last.
        centre_xy: ``(2,)`` on that frame.
        size_wh: ``(2,)`` of the box.
        velocity_xy: ``(2,)`` pixels a second.
        seen: frames that taught it.
    """

    stamp_ns: int
    centre_xy: _Vector
    size_wh: _Vector
    velocity_xy: _Vector = field(default_factory=lambda: np.zeros(2))
    seen: int = 1

    @property
    def settled(self) -> bool:
        """Whether it was watched for long enough to tell what belongs to the object."""
        return self.seen >= _SETTLED_FRAMES

    def centre_at(self, stamp_ns: int) -> _Vector:
        """``(2,)`` where the box's centre is on the way at a later time."""
        return self.centre_xy + self.velocity_xy * (stamp_ns - self.stamp_ns) * 1e-9

    def expected_xyxy(self, stamp_ns: int) -> _Vector | None:
        """``(4,)`` left, top, right and bottom on a later frame; ``None`` while that is not known."""
        if not self.settled or stamp_ns <= self.stamp_ns:
            return None
        centre_xy = self.centre_at(stamp_ns)
        return np.concatenate([centre_xy - self.size_wh / 2, centre_xy + self.size_wh / 2])

    def leads_to(self, other: BoxMotion) -> bool:
        """Whether a later box is about where this one goes, and as large; two that touch are larger."""
        near = np.abs(other.centre_xy - self.centre_at(other.stamp_ns)) <= _NEAR * self.size_wh
        alike = np.abs(np.log(other.size_wh / self.size_wh)) <= np.log(_ALIKE)
        return bool((near.all() or self.seen == 1) and alike.all())  # the velocity is not known before the second frame


def motion_after(motion: BoxMotion | None, mask_hw: BoolArray, stamp_ns: int) -> BoxMotion | None:
    """What is known of a motion after one more frame; ``None`` when that is nothing.

    Args:
        motion: what was known before.
        mask_hw: ``(H, W)`` the object on the frame; its largest part counts.
        stamp_ns: of the frame. When time goes back, what was known is worth nothing.
    """
    found = _largest_part(mask_hw, stamp_ns)
    if motion is None or stamp_ns <= motion.stamp_ns:
        return found
    elapsed_s = (stamp_ns - motion.stamp_ns) * 1e-9
    if found is None or not motion.leads_to(found):
        return motion if motion.settled and elapsed_s <= _PATIENCE_S else found
    expected_xy, count = motion.centre_at(stamp_ns), min(motion.seen + 1, _MEMORY_FRAMES)
    surprise_xy = found.centre_xy - expected_xy
    # The alpha-beta filter that fits a line to so many frames by least squares, were they evenly spaced.
    return BoxMotion(
        stamp_ns,
        centre_xy=expected_xy + surprise_xy * (4 * count - 2) / (count * (count + 1)),
        size_wh=motion.size_wh + _SIZE_GAIN * (found.size_wh - motion.size_wh),
        velocity_xy=motion.velocity_xy + surprise_xy / elapsed_s * 6 / (count * (count + 1)),
        seen=motion.seen + 1,
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
    return BoxMotion(stamp_ns, np.array([x + width / 2, y + height / 2]), np.array([width, height]))
