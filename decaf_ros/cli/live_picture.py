"""A frame of the demo's video: what the node publishes, side by side, and what is going on below."""

from __future__ import annotations

import cv2
import numpy as np

from decaf_ros.datatypes import UInt8Array

_SCALE = 2
_BAR_PX = 44  # even, as many players want it
_FONT, _FONT_SCALE, _PAD_PX = cv2.FONT_HERSHEY_DUPLEX, 0.95, 12


def draw_live(overlay_rgb: UInt8Array, heat_rgb: UInt8Array | None, caption: str) -> UInt8Array:
    """Masks on the left, where the model looks on the right, both at twice their size.

    Args:
        overlay_rgb: ``(H, W, 3)`` uint8.
        heat_rgb: the same; the camera's image, darker, stands in for it before the first.
        caption: one line.
    """
    right_rgb = overlay_rgb // 4 if heat_rgb is None else heat_rgb
    pictures = np.concatenate([overlay_rgb, right_rgb], axis=1)
    size_wh = (pictures.shape[1] * _SCALE, pictures.shape[0] * _SCALE)
    image = np.asarray(cv2.resize(pictures, size_wh, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    bar = np.zeros((_BAR_PX, image.shape[1], 3), dtype=np.uint8)
    cv2.putText(bar, caption, (_PAD_PX, _BAR_PX - _PAD_PX), _FONT, _FONT_SCALE, (255, 255, 255), 2, cv2.LINE_AA)
    return np.concatenate([image, bar])
