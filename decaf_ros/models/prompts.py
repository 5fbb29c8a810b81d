"""What the language model is asked, in words (DecAF, section 3.2; appendix on prompts).

The sentences are the same for every model family; the chat template around them is the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Medium = Literal["video", "image"]

_OBJECT = "{expression} Which object, or objects, does this expression refer to? Answer in one word."
_NAME = (
    "An object in a video was described by this expression: {expression} "
    "It was named, frame by frame: {answers}. "
    "Which one label names the object? A clear expression counts for more than the list. Answer with the label only."
)
_PRESENCE = "{expression} Is there such an object in the video? Answer yes or no."
_BOX = "{expression} Locate the object that this expression refers to, and output its bbox coordinates in JSON format."
_BACKGROUND = "Describe the background scene of the video{exclusion}. Answer in one word or phrase."
_EXCLUSION = ", excluding any {name}"

_MAX_NAME_CHARACTERS = 40


def object_prompt(expression: str) -> str:
    """The question whose attention points at the object: asked on the video path and on every frame of the frame path."""
    return _OBJECT.format(expression=punctuated(expression))


def name_prompt(expression: str, answers: Sequence[str]) -> str:
    """The text-only question that settles on one name, given all answers to the object prompt."""
    return _NAME.format(expression=punctuated(expression), answers=", ".join(answers))


def background_prompt(object_name: str) -> str:
    """The question whose attention shows sinks and ground, the same on both paths. An empty name leaves the exclusion out."""
    exclusion = _EXCLUSION.format(name=object_name) if object_name else ""
    return _BACKGROUND.format(exclusion=exclusion)


def presence_prompt(expression: str) -> str:
    """The question whether anything fits the expression at all, the same on both paths."""
    return _PRESENCE.format(expression=punctuated(expression))


def box_prompt(expression: str) -> str:
    """The question for the object's box on one frame, as Qwen2.5-VL was taught to answer it: ``bbox_2d`` in pixels."""
    return _BOX.format(expression=punctuated(expression))


def punctuated(expression: str) -> str:
    """The expression, stripped, ending in "." unless it ends in "." or "?" already."""
    expression = expression.strip()
    return expression if expression.endswith((".", "?")) else expression + "."


def cleaned_name(answer: str) -> str:
    """One label from what the model said: first line, no surrounding punctuation, lower case; "" when it is none to print."""
    lines = answer.strip().splitlines()
    name = lines[0].strip(" \t.,;:!?\"'`*()[]").lower() if lines else ""
    return name if len(name) <= _MAX_NAME_CHARACTERS and name.isprintable() else ""
