"""Models run by transformers alone: conversations as its own processors make them, and random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from decaf_ros.datatypes import FrameWindow


class Whole(NamedTuple):
    """A conversation as transformers' own processor makes it.

    Attributes:
        inputs: the model's arguments.
        grid_tokens: for each cell of the visual grid, row by row, the index of its token.
    """

    inputs: Mapping[str, torch.Tensor]
    grid_tokens: torch.Tensor


def chat_text(processor: ProcessorMixin, medium: str | None, prompt: str) -> str:
    """One question, behind images where there is a medium, in the model's own chat template."""
    content = ([{"type": medium}] if medium else []) + [{"type": "text", "text": prompt}]
    turns: Any = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def pictures(window: FrameWindow) -> list[Image.Image]:
    """The window's frames, as processors take them."""
    return [Image.fromarray(frame.image_rgb) for frame in window.frames]


def randomise(model: PreTrainedModel) -> None:
    """Weights that give attention that is not flat, the same for each call."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = 1.0 if "embed_tokens" in name else 1.2 * parameter[0].numel() ** -0.5
                parameter.normal_(0.0, scale, generator=generator)
