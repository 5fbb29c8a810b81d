"""What the adapters of all model families share; a family adds how it reads images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

import torch
from transformers import PreTrainedModel, ProcessorMixin

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.chat_model import ChatModel, MllmOptions
from decaf_ros.models.visual_prefix import CachedVisualPrefix
from decaf_ros.text import brief

_MOST_SIDE = 8192  # in pixels, of what a processor makes of an image


class ChatAdapter(ABC):
    """Implements :class:`decaf_ros.models.protocols.VideoMllm` but for the reading of images. Use it from one thread at a time.

    Args:
        model: the model, on its device, in its dtype.
        processor: the processor that belongs to it.
        options: see :class:`MllmOptions`.

    Raises:
        ValueError: the model or the options cannot be used; see :class:`ChatModel`.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, options: MllmOptions | None = None) -> None:
        self._options = options or MllmOptions()
        self._chat = ChatModel(model, processor, self._options)

    def with_options(self, options: MllmOptions) -> ChatAdapter:
        """The same model with other options: the weights are shared.

        Raises:
            ValueError: options that do not suit the model.
        """
        return type(self)(self._chat.model, self._chat.processor, options)

    def read_video(self, window: FrameWindow) -> CachedVisualPrefix:
        """Read all key frames in one conversation."""
        with self._chat.device_queue():
            return self._read_video(window)

    def read_frames(self, window: FrameWindow) -> CachedVisualPrefix:
        """Read each key frame in a conversation of its own, at the finer scale."""
        with self._chat.device_queue():
            return self._read_frames(window)

    def complete(self, prompt: str) -> str:
        """Answer a prompt without images."""
        with self._chat.device_queue():
            return self._chat.complete(prompt)

    @abstractmethod
    def _read_video(self, window: FrameWindow) -> CachedVisualPrefix: ...

    @abstractmethod
    def _read_frames(self, window: FrameWindow) -> CachedVisualPrefix: ...


def require_fit(part: object, expected: Mapping[str, object]) -> None:
    """Refuse a processor that is made for another network: it could make any number of pixels and tokens of an image.

    Args:
        part: a processor, or a part of one.
        expected: its attributes as the network has them; a side of a square may be given as a pair.

    Raises:
        ValueError: one of them is another, or an image would become absurdly large.
    """
    for name, value in expected.items():
        found = getattr(part, name, None)
        if name == "size":
            found = tuple((found or {}).get(side) for side in ("height", "width"))
        if found != value:
            raise ValueError(
                f"{type(part).__name__} has {name} {brief(found, 80)}, and the network was made for {brief(value, 80)}; "
                "take the processor's files that belong to the weights"
            )
    for name in ("crop_size", "pad_size"):
        sides = [side for side in dict(getattr(part, name, None) or {}).values() if side is not None]
        if not all(isinstance(side, int) and 0 < side <= _MOST_SIDE for side in sides):
            raise ValueError(f"{type(part).__name__} has {name} {brief(sides, 80)}, and a side has up to {_MOST_SIDE} pixels")


def square(side: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """Height and width, given as a pair or as one number."""
    height, width = (side, side) if isinstance(side, int) else side
    return height, width


def frame_batches(window: FrameWindow, frame_tokens: int, options: MllmOptions) -> Iterator[tuple[Frame, ...]]:
    """The frames of a window in batches of at most ``options.batch_tokens``, ``frame_tokens`` each, but one frame at least."""
    size = max(1, options.batch_tokens // frame_tokens)
    return (window.frames[start : start + size] for start in range(0, len(window), size))


def common_tokens(marked_bn: torch.Tensor) -> torch.Tensor:
    """Indices of the marked tokens of a batch, in ascending order, which must be the same in each conversation."""
    assert bool((marked_bn == marked_bn[0]).all()), "images of one size make conversations of one layout"
    return marked_bn[0].nonzero().flatten()


def counted_positions(input_ids_bn: torch.Tensor) -> Callable[[int], torch.Tensor]:
    """Positions of a model that numbers all tokens alike, images and text; see :class:`Conversations`."""
    batch, tokens = input_ids_bn.shape
    return lambda tail_tokens: torch.arange(tokens + tail_tokens).expand(batch, -1)
