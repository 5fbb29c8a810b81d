"""Boxes that a language model answers with when it is asked where something is: how it writes them, what an answer says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from decaf_ros.models.prompts import cleaned_name
from decaf_ros.strict_json import from_json

BOX_TOKENS = 128
"""Length of such an answer, at most: two or three boxes. One takes 30 to 60 tokens, and nothing is decoded after its end."""

_MOST_BOXES = 16
_FARTHEST = 1e6  # a number beyond is no place in any image
_FENCE = "```"


@dataclass(frozen=True)
class BoxFormat:
    """What a family's numbers count: pixels of the image as the model gets it, or thousandths of its sides.

    Attributes:
        cell_px: side of a visual token in such pixels; ``None`` for thousandths.
    """

    cell_px: int | None = None

    def span_wh(self, grid_hw: tuple[int, int]) -> tuple[float, float]:
        """The numbers at the right and the lower edge of an image of so many rows and columns of visual tokens."""
        if self.cell_px is None:
            return 1000.0, 1000.0
        rows, columns = grid_hw
        return float(columns * self.cell_px), float(rows * self.cell_px)


class LabelledBox(NamedTuple):
    """A box that a model answered with.

    Attributes:
        xyxy_px: ``(x_min, y_min, x_max, y_max)`` in pixels of the camera image, inside of it.
        label: what the model calls it; "" for nothing that can be used as a name.
    """

    xyxy_px: tuple[float, float, float, float]
    label: str


def boxes_in(answer: str, span_wh: tuple[float, float], size_hw: tuple[int, int]) -> list[LabelledBox]:
    """Boxes that an answer holds, in its order; none where it is anything else.

    It is read as JSON and nothing but JSON, alone or between code fences: an object with ``bbox_2d``, four numbers, and
    ``label``, or a list of such objects. Members of a list that are none are left out. Corners may come in any order; what
    lies outside the image is cut off, and less than a pixel is no box. The first 16 boxes count.

    Args:
        answer: of the model, whatever it says.
        span_wh: see :meth:`BoxFormat.span_wh`.
        size_hw: height and width of the camera image in pixels.
    """
    text = answer.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):
        text = text.strip("`").removeprefix("json")
    try:
        said = from_json(text, unique_names=True)
    except ValueError:
        return []
    found: list[LabelledBox] = []
    for each in said if isinstance(said, list) else [said]:
        box = _box(each, span_wh, size_hw)
        if box is not None and len(found) < _MOST_BOXES:
            found.append(box)
    return found


def _box(said: Any, span_wh: tuple[float, float], size_hw: tuple[int, int]) -> LabelledBox | None:
    corners = said.get("bbox_2d") if isinstance(said, dict) else None
    if not isinstance(corners, list) or len(corners) != 4 or not all(map(_is_place, corners)):
        return None
    (width, height), (image_height, image_width) = span_wh, size_hw
    x_min, x_max = sorted(min(max(x / width, 0.0), 1.0) * image_width for x in corners[0::2])
    y_min, y_max = sorted(min(max(y / height, 0.0), 1.0) * image_height for y in corners[1::2])
    if x_max - x_min < 1 or y_max - y_min < 1:
        return None
    label = said.get("label")
    return LabelledBox((x_min, y_min, x_max, y_max), cleaned_name(label) if isinstance(label, str) else "")


def _is_place(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _FARTHEST
