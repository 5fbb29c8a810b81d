"""One picture that shows how sentences became masks: what happened before the question, then each step of the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from decaf_ros.datatypes import BoolArray, Frame, HeatMap, UInt8Array
from decaf_ros.drawing import Colour, colour_heat, draw_contour, draw_points, query_colour
from decaf_ros.method.fusion import coarse_masks
from decaf_ros.session.frames import uniform_selection
from decaf_ros.session.grounding import Grounding

CELL_WIDTH = 320
_GAP = 6
# Large, since a page shows the sheet at less than half its width.
_TITLE_HEIGHT, _TITLE_SCALE = 50, 1.1
_ROW_TITLE_HEIGHT, _ROW_TITLE_SCALE = 60, 1.4
_TRUTH_COLOUR: Colour = (255, 0, 255)  # that no object has
_COARSE_COLOUR: Colour = (255, 190, 0)
_BAR_COLOUR: Colour = (90, 140, 220)
_INK: Colour = (30, 30, 30)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_COLUMNS = ("key frame", "heat map", "point prompts", "coarse mask", "SAM 2 mask", "ground truth", "live")
_SHEET_WIDTH = len(_COLUMNS) * (CELL_WIDTH + _GAP) + _GAP


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


@dataclass(frozen=True, eq=False)
class AbsentRow:
    """A sentence that is true of nothing.

    Attributes:
        title: written above its pictures.
        heat: where the model looks for it.
        presence: for each sentence how likely it is, in [0, 1], that there is such a thing.
    """

    title: str
    heat: HeatMap
    presence: Mapping[str, float]


def draw_contact_sheet(first: SheetRow, others: Sequence[SheetRow], absent: AbsentRow) -> UInt8Array:
    """Draw the sheet, uint8 RGB.

    Args:
        first: what it means is shown over time, then by steps.
        others: shown by steps alone, each on the key frame that its best object was found on.
        absent: comes last.
    """
    bands = [_row_title(first.title), *_over_time(first)]
    bands += [_titles(_COLUMNS, _TITLE_HEIGHT, _TITLE_SCALE), _steps(first)]
    for row in others:
        bands += [_row_title(row.title), _steps(row)]
    bands += [_row_title(absent.title), _question(absent)]
    return np.concatenate([*bands, _line()])


def _over_time(row: SheetRow) -> list[UInt8Array]:
    """Key frames from the first to the last with what is meant outlined, and where the model looked on them."""
    window, heat_thw = row.grounding.window, row.grounding.attention.heat_thw
    chosen = uniform_selection(range(len(window)), len(_COLUMNS))
    end_ns = window.frames[-1].stamp_ns
    frames = [_enlarged(window.frames[key]) for key in chosen]
    times = [f"{(frame.stamp_ns - end_ns) * 1e-9:+.1f} s" for frame in frames[:-1]] + ["0 s: asked"]
    outlined = [_outlined(frame, row.truth_thw[key]) for key, frame in zip(chosen, frames, strict=True)]
    heat = [colour_heat(HeatMap(frame, 1, heat_thw[key].numpy())) for key, frame in zip(chosen, frames, strict=True)]
    return [_titles(times, _TITLE_HEIGHT, _TITLE_SCALE), _join(outlined), _line(), _join(heat)]


def _steps(row: SheetRow) -> UInt8Array:
    grounding = row.grounding
    best = grounding.objects[0].tracklets[0] if grounding.objects else None
    key = best.prompt.key_index if best else len(grounding.window) - 1
    frame = _enlarged(grounding.window.frames[key])
    heat_thw = grounding.attention.heat_thw
    coarse = coarse_masks(heat_thw[key : key + 1], frame.size_hw)[0]
    return _join(
        [
            frame.image_rgb,
            colour_heat(HeatMap(frame, 1, heat_thw[key].numpy())),
            _with_points(grounding, key, frame),
            _with_mask(frame, coarse, _COARSE_COLOUR),
            _with_mask(frame, grounding.union_masks()[key], query_colour(1)),
            _with_mask(frame, row.truth_thw[key], _TRUTH_COLOUR),
            _fit(row.live_rgb),
        ]
    )


def _question(row: AbsentRow) -> UInt8Array:
    """The frame, where the model looks, and what it answers beside its answers to the other sentences."""
    frame = _enlarged(row.heat.frame)
    heat = colour_heat(replace(row.heat, frame=frame))
    width = _SHEET_WIDTH - 2 * (CELL_WIDTH + _GAP) - 2 * _GAP
    return _join([frame.image_rgb, heat, _bars(row.presence, (frame.size_hw[0], width))])


def _bars(presence: Mapping[str, float], size_hw: tuple[int, int]) -> UInt8Array:
    """A bar for each sentence, as long as it is likely."""
    height, width = size_hw
    panel = np.full((height, width, 3), 255, dtype=np.uint8)
    step, left = height // len(presence), width // 2
    longest = width - left - 130
    for index, (sentence, share) in enumerate(presence.items()):
        middle = index * step + step // 2
        _write(panel, sentence, (10, middle + 12), _TITLE_SCALE)
        cv2.rectangle(panel, (left, middle - 16), (left + longest, middle + 16), (225, 225, 225), cv2.FILLED)
        cv2.rectangle(panel, (left, middle - 16), (left + round(longest * share), middle + 16), _BAR_COLOUR, cv2.FILLED)
        _write(panel, f"{share:.0%}", (left + longest + 12, middle + 12), _TITLE_SCALE)
    return panel


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
    resized = _at_size_of(frame, mask_hw)
    image = np.where(resized[..., None], frame.image_rgb, frame.image_rgb // 3)
    draw_contour(image, resized, colour)
    return image


def _outlined(frame: Frame, mask_hw: BoolArray) -> UInt8Array:
    image = frame.image_rgb.copy()
    draw_contour(image, _at_size_of(frame, mask_hw), _TRUTH_COLOUR)
    return image


def _at_size_of(frame: Frame, mask_hw: BoolArray) -> BoolArray:
    resized = cv2.resize(mask_hw.astype(np.float32), frame.size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized > 0.5, dtype=np.bool_)


def _enlarged(frame: Frame) -> Frame:
    return Frame(frame.stamp_ns, frame.frame_id, _fit(frame.image_rgb))


def _fit(image: UInt8Array) -> UInt8Array:
    """The image at the width of a cell."""
    height = round(image.shape[0] * CELL_WIDTH / image.shape[1])
    return np.asarray(cv2.resize(image, (CELL_WIDTH, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _join(cells: Sequence[UInt8Array]) -> UInt8Array:
    """A band of the sheet's width: cells from left to right, as many as there are."""
    band = np.full((cells[0].shape[0], _SHEET_WIDTH, 3), 255, dtype=np.uint8)
    left = _GAP
    for cell in cells:
        band[:, left : left + cell.shape[1]] = cell
        left += cell.shape[1] + _GAP
    return band


def _line() -> UInt8Array:
    return np.full((_GAP, _SHEET_WIDTH, 3), 255, dtype=np.uint8)


def _row_title(text: str) -> UInt8Array:
    return _titles((text,), _ROW_TITLE_HEIGHT, _ROW_TITLE_SCALE)


def _titles(texts: Sequence[str], height: int, font_scale: float) -> UInt8Array:
    """A white band with a text above each column, or one text across all."""
    band = np.full((height, _SHEET_WIDTH, 3), 255, dtype=np.uint8)
    for column, text in enumerate(texts):
        _write(band, text, (_GAP + column * (CELL_WIDTH + _GAP), height - 15), font_scale)
    return band


def _write(image: UInt8Array, text: str, left_bottom: tuple[int, int], font_scale: float) -> None:
    cv2.putText(image, text, left_bottom, _FONT, font_scale, _INK, 2, cv2.LINE_AA)
