"""One picture that shows how sentences became masks: a row for each query, a column for each step of the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from decaf_ros.datatypes import BoolArray, Frame, HeatMap, UInt8Array
from decaf_ros.drawing import Colour, colour_heat, draw_contour, draw_points, query_colour
from decaf_ros.method.fusion import coarse_masks
from decaf_ros.session.grounding import Grounding

CELL_WIDTH = 320
_GAP = 6
# Large, since a page shows the sheet at less than half its width.
_TITLE_HEIGHT, _TITLE_SCALE = 50, 1.1
_ROW_TITLE_HEIGHT, _ROW_TITLE_SCALE = 60, 1.4
_TRUTH_COLOUR: Colour = (60, 220, 60)
_COARSE_COLOUR: Colour = (255, 190, 0)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_COLUMNS = ("key frame", "heat map", "point prompts", "coarse mask", "SAM 2 mask", "ground truth", "live")


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One query.

    Attributes:
        title: written above its pictures.
        grounding: what it found in its window.
        truth_thw: ``(T, H, W)`` bool, the right masks on the window's frames.
        live_rgb: ``(H, W, 3)`` uint8, a later frame as the node drew it.
    """

    title: str
    grounding: Grounding
    truth_thw: BoolArray
    live_rgb: UInt8Array


def draw_contact_sheet(rows: Sequence[SheetRow]) -> UInt8Array:
    """Draw the sheet, uint8 RGB. Each row shows the key frame that its best object was found on."""
    bands = [_titles(_COLUMNS, _TITLE_HEIGHT, _TITLE_SCALE)]
    for row in rows:
        bands += [_titles((row.title,), _ROW_TITLE_HEIGHT, _ROW_TITLE_SCALE), _join([_fit(cell) for cell in _cells(row)])]
    return np.concatenate([*bands, np.full((_GAP, bands[0].shape[1], 3), 255, dtype=np.uint8)])


def _cells(row: SheetRow) -> list[UInt8Array]:
    grounding = row.grounding
    best = grounding.objects[0].tracklets[0] if grounding.objects else None
    key = best.prompt.key_index if best else len(grounding.window) - 1
    frame = _enlarged(grounding.window.frames[key])
    heat_thw = grounding.attention.heat_thw
    coarse = coarse_masks(heat_thw[key : key + 1], frame.size_hw)[0]
    return [
        frame.image_rgb,
        colour_heat(HeatMap(frame, 1, heat_thw[key].numpy())),
        _with_points(grounding, key, frame),
        _with_mask(frame, coarse, _COARSE_COLOUR),
        _with_mask(frame, grounding.union_masks()[key], query_colour(1)),
        _with_mask(frame, row.truth_thw[key], _TRUTH_COLOUR),
        row.live_rgb,
    ]


def _with_points(grounding: Grounding, key: int, frame: Frame) -> UInt8Array:
    """The points at their places on the enlarged frame."""
    image = cv2.resize(grounding.window.frames[key].image_rgb, frame.size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    scale = frame.size_hw[1] / grounding.window.size_hw[1]
    here = [
        replace(point, xy_px=(point.xy_px[0] * scale, point.xy_px[1] * scale))
        for point in grounding.point_prompts
        if point.key_index == key
    ]
    return draw_points(np.asarray(image, dtype=np.uint8), here)


def _with_mask(frame: Frame, mask_hw: BoolArray, colour: Colour) -> UInt8Array:
    """The frame dimmed outside the mask."""
    resized = cv2.resize(mask_hw.astype(np.uint8), frame.size_hw[::-1], interpolation=cv2.INTER_LINEAR) > 0
    image = np.where(resized[..., None], frame.image_rgb, frame.image_rgb // 3)
    draw_contour(image, np.asarray(resized, dtype=np.bool_), colour)
    return image


def _enlarged(frame: Frame) -> Frame:
    return Frame(frame.stamp_ns, frame.frame_id, _fit(frame.image_rgb))


def _fit(image: UInt8Array) -> UInt8Array:
    """The image at the width of a cell."""
    height = round(image.shape[0] * CELL_WIDTH / image.shape[1])
    return np.asarray(cv2.resize(image, (CELL_WIDTH, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _join(cells: Sequence[UInt8Array]) -> UInt8Array:
    gap = np.full((cells[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([part for cell in cells for part in (gap, cell)] + [gap], axis=1)


def _titles(texts: Sequence[str], height: int, font_scale: float) -> UInt8Array:
    """A white band with a text above each column, or one text across all."""
    band = np.full((height, len(_COLUMNS) * (CELL_WIDTH + _GAP) + _GAP, 3), 255, dtype=np.uint8)
    for column, text in enumerate(texts):
        origin = (_GAP + column * (CELL_WIDTH + _GAP), height - 15)
        cv2.putText(band, text, origin, _FONT, font_scale, (30, 30, 30), 2, cv2.LINE_AA)
    return band
