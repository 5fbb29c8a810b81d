"""Masks, heat maps and point prompts drawn over the camera image. Line widths and text grow with the image."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from decaf_ros.datatypes import BoolArray, HeatMap, ObjectMask, PointPrompt, Segmentation, UInt8Array, Visibility

Colour = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)
_MASK_OPACITY = 0.45
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_SHADES = ((0.9, 1.0), (0.45, 1.0), (1.0, 0.7))  # saturation and value

# For each of 256 levels of heat: how opaque it is, its colour times that, and what remains of the image, of 255.
_LEVELS = np.arange(256, dtype=np.uint8)
_HEAT_OPACITY = 0.35 + 0.4 * _LEVELS / 255
_HEAT_SHARES = (cv2.applyColorMap(_LEVELS, cv2.COLORMAP_TURBO)[..., ::-1] * _HEAT_OPACITY[:, None, None]).astype(np.uint8)
_IMAGE_SHARES = ((1 - _HEAT_OPACITY) * 255).astype(np.uint8)


def draw_overlay(segmentation: Segmentation, captions: Mapping[int, str] = {}) -> UInt8Array:
    """Draw what is tracked: translucent masks with their contours, "label #id score" at each, the queries at the bottom.

    Args:
        segmentation: a frame and its objects.
        captions: sentence by query id; those of the frame's own queries come out in the order given.

    Returns:
        ``(H, W, 3)`` uint8 RGB; the frame itself is not changed.
    """
    image = segmentation.frame.image_rgb.copy()
    for tracked in segmentation.objects:
        if tracked.pixel_count:
            _draw_mask(image, tracked)
    for tracked in segmentation.objects:
        if tracked.visibility is Visibility.VISIBLE:
            _draw_label(image, tracked)
    _draw_captions(image, segmentation.objects, captions)
    return image


def colour_heat(heat: HeatMap) -> UInt8Array:
    """Draw a heat map over its frame, ``(H, W, 3)`` uint8 RGB: blue where nothing is attended, red where everything is."""
    cells = np.round(np.clip(heat.values_hw, 0.0, 1.0) * 255).astype(np.uint8)
    levels = cv2.resize(cells, heat.frame.size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    shares = cv2.cvtColor(cv2.LUT(levels, _IMAGE_SHARES), cv2.COLOR_GRAY2RGB)
    image = cv2.multiply(heat.frame.image_rgb, shares, scale=1 / 255)
    return np.asarray(cv2.add(image, cv2.applyColorMap(levels, _HEAT_SHARES)), dtype=np.uint8)


def draw_points(image_rgb: UInt8Array, points: Iterable[PointPrompt]) -> UInt8Array:
    """Mark point prompts as dots, the hotter the redder, the hottest on top: a new ``(H, W, 3)`` uint8 RGB image."""
    image = image_rgb.copy()
    radius = max(2, round(5 * _scale(image)))
    for point in sorted(points, key=lambda point: point.attention):
        centre = (round(point.xy_px[0]), round(point.xy_px[1]))
        warmth = int(np.clip((point.attention - 0.5) * 2, 0, 1) * 255)
        cv2.circle(image, centre, radius + 1, _BLACK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, centre, radius, (255, 255 - warmth, 0), cv2.FILLED, cv2.LINE_AA)
    return image


def draw_contour(image_rgb: UInt8Array, mask_hw: BoolArray, colour: Colour, offset_xy: tuple[int, int] = (0, 0)) -> None:
    """Draw the outlines of a mask and of its holes, in place; ``offset_xy`` is the image's pixel under the mask's first one."""
    contours, _ = cv2.findContours(mask_hw.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1, offset=offset_xy)
    cv2.drawContours(image_rgb, contours, -1, colour, max(1, round(2 * _scale(image_rgb))), cv2.LINE_AA)


def query_colour(query_id: int) -> Colour:
    """A colour that a query keeps for life; steps of the golden ratio in hue keep neighbouring ids far apart."""
    return _shaded(query_id, 0)


def object_colour(object_id: int, query_id: int) -> Colour:
    """A colour that an object keeps for life: its query's hue, in another shade than that of neighbouring ids."""
    return _shaded(query_id, object_id % len(_SHADES))


def _shaded(query_id: int, shade: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(query_id * _GOLDEN_RATIO % 1.0, *_SHADES[shade])
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_text(image_rgb: UInt8Array, text: str, left_top: tuple[int, int], colour: Colour = _WHITE) -> None:
    """Write one line on a dark plate, in place, moved and cut so that it stays inside the image.

    cv2's fonts know ASCII only: every other character, and every control character, becomes "?".
    """
    font_scale, thickness, pad = _font_scale(image_rgb), max(1, round(_scale(image_rgb))), _padding(image_rgb)
    height, width = image_rgb.shape[:2]
    text = _fitting(_printable(text), width - 2 * pad, font_scale, thickness)
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, font_scale, thickness)
    left = max(0, min(left_top[0], width - text_width - 2 * pad))
    top = max(0, min(left_top[1], height - line_height(image_rgb)))
    plate = image_rgb[top : top + text_height + below + 2 * pad, left : left + text_width + 2 * pad]
    plate >>= 2
    cv2.putText(image_rgb, text, (left + pad, top + pad + text_height), _FONT, font_scale, colour, thickness, cv2.LINE_AA)


def line_height(image_rgb: UInt8Array) -> int:
    """Pixels that one line of :func:`draw_text` takes on this image."""
    (_, text_height), below = cv2.getTextSize("Ag", _FONT, _font_scale(image_rgb), max(1, round(_scale(image_rgb))))
    return text_height + below + 2 * _padding(image_rgb)


def _draw_mask(image: UInt8Array, tracked: ObjectMask) -> None:
    rows, columns = tracked.box_slices
    covered, mask_hw = image[rows, columns], tracked.mask_hw[rows, columns]
    colour = object_colour(tracked.object_id, tracked.query_id)
    tint = np.array([*colour, 0]) * _MASK_OPACITY  # of four numbers, which OpenCV takes for one colour
    tinted = cv2.add(cv2.convertScaleAbs(covered, alpha=1 - _MASK_OPACITY), tint)
    cv2.copyTo(tinted, mask_hw.view(np.uint8), covered)
    draw_contour(image, mask_hw, colour, (columns.start, rows.start))


def _draw_label(image: UInt8Array, tracked: ObjectMask) -> None:
    x_min, y_min, _, _ = tracked.box_xyxy
    text = f"{tracked.label or 'object'} #{tracked.object_id} {tracked.score:.2f}"
    colour = object_colour(tracked.object_id, tracked.query_id)
    draw_text(image, text, (x_min, y_min - line_height(image)), _lightened(colour))


def _draw_captions(image: UInt8Array, objects: Iterable[ObjectMask], captions: Mapping[int, str]) -> None:
    top = image.shape[0] - len(captions) * line_height(image)
    for row, (query_id, sentence) in enumerate(captions.items()):
        mine = [tracked for tracked in objects if tracked.query_id == query_id]
        lost = bool(mine) and all(tracked.visibility is Visibility.LOST for tracked in mine)
        line = f"{query_id}: {sentence}" + (" (lost)" if lost else "")
        draw_text(image, line, (0, top + row * line_height(image)), _lightened(query_colour(query_id)))


def _lightened(colour: Colour) -> Colour:
    """Halfway to white: pure blue cannot be read on a dark plate."""
    red, green, blue = ((value + 255) // 2 for value in colour)
    return red, green, blue


def _scale(image: UInt8Array) -> float:
    """1 for 480 lines; grows more slowly than the image, since large images are also seen from closer."""
    return float(min(image.shape[:2]) / 480) ** 0.75


def _font_scale(image: UInt8Array) -> float:
    return max(0.36, 0.6 * _scale(image))


def _padding(image: UInt8Array) -> int:
    return max(2, round(4 * _scale(image)))


def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _fitting(text: str, width: int, font_scale: float, thickness: int) -> str:
    """The text, or as much of its start as fits, with an ellipsis."""

    def fits(candidate: str) -> bool:
        return cv2.getTextSize(candidate, _FONT, font_scale, thickness)[0][0] <= width

    if fits(text):
        return text
    length = next((length for length in range(min(len(text), width), 0, -1) if fits(text[:length] + "...")), 0)
    return text[:length] + "..." if length else ""
