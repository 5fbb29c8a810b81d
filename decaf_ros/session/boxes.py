"""The obvious other way to find something: the language model is asked for boxes, on a few key frames."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from decaf_ros.datatypes import FrameWindow
from decaf_ros.method.boxes import BoxOn
from decaf_ros.models import prompts
from decaf_ros.models.boxes import BOX_TOKENS, boxes_in
from decaf_ros.models.protocols import VideoMllm, VisualPrefix
from decaf_ros.models.read_memory import ReadMemory
from decaf_ros.session.frames import uniform_selection

BOX_FRAMES = 4
"""Key frames that are asked about: the oldest, the newest, and evenly between. Answers are decoded, all together, one pass a
token, which costs more than to read a frame; and what moves is somewhere else soon."""


class Boxes(NamedTuple):
    """What a model answered when it was asked for boxes.

    Attributes:
        places: index of a key frame and box in pixels of it, oldest first.
        grid_hw: rows and columns of visual tokens of a frame.
        name: the label that most of them have; "" for none.
    """

    places: list[BoxOn]
    grid_hw: tuple[int, int]
    name: str


def ask_for_boxes(
    mllm: VideoMllm, window: FrameWindow, expression: str, prefix: VisualPrefix | None, memory: ReadMemory
) -> Boxes:
    """Ask where something is.

    Args:
        mllm: the language model.
        window: the key frames.
        expression: what it is.
        prefix: what was read of all of them on the frame path; ``None`` where nothing was: then those asked about are read.
        memory: of the model.

    Raises:
        NoBoxesError: the model was not taught to answer with boxes.
    """
    form, keys = mllm.box_format(), uniform_selection(range(len(window)), BOX_FRAMES)
    conversations = keys
    if prefix is None:
        prefix = mllm.read_frames(FrameWindow(tuple(window.frames[key] for key in keys)), memory)
        conversations = list(range(len(keys)))
    _, rows, columns = prefix.grid_thw
    span_wh = form.span_wh((rows, columns))
    answers = prefix.say(prompts.box_prompt(expression), conversations, BOX_TOKENS)
    found = [(key, box) for key, said in zip(keys, answers, strict=True) for box in boxes_in(said, span_wh, window.size_hw)]
    labels = Counter(box.label for _, box in found if box.label)
    name = labels.most_common(1)[0][0] if labels else ""
    return Boxes([(key, box.xyxy_px) for key, box in found], (rows, columns), name)
