"""What the adapters of all model families share; a family adds how it reads images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.boxes import BoxFormat
from decaf_ros.models.chat_model import ChatModel, Conversations, MllmOptions, Reading
from decaf_ros.models.devices import give_memory_back
from decaf_ros.models.errors import NoBoxesError
from decaf_ros.models.pictures import pictures
from decaf_ros.models.read_memory import ReadMemory
from decaf_ros.models.visual_prefix import CachedVisualPrefix
from decaf_ros.text import brief

_MOST_SIDE = 8192  # in pixels, of what a processor makes of an image


@dataclass(frozen=True)
class FrameLayout:
    """How frames are laid out on the frame path.

    Attributes:
        grid_hw: rows and columns of visual tokens.
        tokens: of one frame, as ``batch_tokens`` counts them.
    """

    grid_hw: tuple[int, int]
    tokens: int


class ChatAdapter(ABC):
    """Implements :class:`decaf_ros.models.protocols.VideoMllm` but for the reading of images. Use it from one thread at a time.

    ``_temporal_stride`` is how many frames the family merges into one step on the video path.

    Args:
        model: the model, on its device, in its dtype.
        processor: the processor that belongs to it.
        options: see :class:`MllmOptions`.

    Raises:
        ValueError: the model or the options cannot be used; see :class:`ChatModel`.
    """

    _temporal_stride: int = 1

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, options: MllmOptions | None = None) -> None:
        self._options = options or MllmOptions()
        self._chat = ChatModel(model, processor, self._options)

    def with_options(self, options: MllmOptions) -> ChatAdapter:
        """The same model with other options: the weights are shared.

        Raises:
            ValueError: options that do not suit the model.
        """
        return type(self)(self._chat.model, self._chat.processor, options)

    def read_video(self, window: FrameWindow, memory: ReadMemory | None = None) -> CachedVisualPrefix:
        """Read all key frames in one conversation."""
        memory, grid_thw = memory or ReadMemory(), self._video_grid_thw(window)
        with self._chat.device_queue():
            read = memory.get(grid_thw, window.frames)
            if read is None:
                read = self._read_video(window, memory)
                memory.put(grid_thw, window.frames, read, read.nbytes)
        return CachedVisualPrefix(self._chat, [read], "video", grid_thw, self._temporal_stride)

    def read_frames(self, window: FrameWindow, memory: ReadMemory | None = None) -> CachedVisualPrefix:
        """Read each key frame in a conversation of its own, at the finer scale."""
        layout = self._frame_layout(window)
        with self._chat.device_queue():
            read = self._readings(window.frames, layout, memory or ReadMemory())
        return CachedVisualPrefix(self._chat, read, "image", (len(window), *layout.grid_hw), temporal_stride=1)

    def unread(self, window: FrameWindow, memory: ReadMemory) -> tuple[Frame, ...]:
        """The frames of a window of which the memory does not hold what the frame path reads, oldest first."""
        layout = self._frame_layout(window)
        return tuple(frame for frame in window.frames if memory.get(layout, (frame,)) is None)

    def read_ahead(self, window: FrameWindow, frame: Frame, memory: ReadMemory) -> None:
        """Read a frame of a window into the memory, as both paths will want it."""
        with self._chat.device_queue():
            self._readings((frame,), self._frame_layout(window), memory)
            self._see_ahead(window, frame, memory)

    def complete(self, prompt: str) -> str:
        """Answer a prompt without images."""
        with self._chat.device_queue():
            return self._chat.complete(prompt)

    def box_format(self) -> BoxFormat:
        """How the family writes boxes. There is no such format unless an adapter names one.

        Raises:
            NoBoxesError: there is none.
        """
        raise NoBoxesError(
            f"models of the family {self._chat.model.config.model_type} were not taught to answer with boxes as JSON: use the "
            "grounder decaf (parameter grounder), or a model of the family qwen2_5_vl or qwen3_vl"
        )

    def _readings(self, frames: tuple[Frame, ...], layout: FrameLayout, memory: ReadMemory) -> list[Reading]:
        """What the frame path reads, in the order of the frames, maybe of several in one; what is remembered is not read."""
        size = max(1, self._options.batch_tokens // layout.tokens)
        if not memory.budget_bytes:
            return [reading for batch in in_batches(frames, size) for reading in self._read_batch(batch, layout, memory)]
        read: dict[Frame, Reading] = {}
        for frame in frames:
            if (reading := memory.get(layout, (frame,))) is not None:
                read[frame] = reading
        for batch in in_batches([frame for frame in frames if frame not in read], size):
            rows = [row for reading in self._read_batch(batch, layout, memory) for row in reading.rows()]
            for frame, reading in zip(batch, rows, strict=True):
                read[frame] = reading
                memory.put(layout, (frame,), reading, reading.nbytes)
        return [read[frame] for frame in frames]

    def _read_batch(self, frames: tuple[Frame, ...], layout: FrameLayout, memory: ReadMemory) -> list[Reading]:
        """In one pass; where a device has no memory for that, in halves, and without what is remembered."""
        try:
            return [self._chat.prefill(self._frame_conversations(frames, layout))]
        except torch.OutOfMemoryError:
            if len(frames) == 1:
                raise
        # Not before the error is forgotten, whose traceback holds what there was of the pass.
        memory.clear()
        give_memory_back()
        return [each for half in in_batches(frames, (len(frames) + 1) // 2) for each in self._read_batch(half, layout, memory)]

    def _pictures(self, frames: tuple[Frame, ...], size_hw: tuple[int, int] | None = None) -> list[Any]:
        """The images of frames, of a size if one is given, as the model's processor takes them."""
        return pictures(frames, self._chat.model.device, size_hw)

    def _videos(self, frames: tuple[Frame, ...], size_hw: tuple[int, int] | None = None) -> list[Any]:
        """The same as the only video, of which processors know no list of tensors."""
        images = self._pictures(frames, size_hw)
        return [torch.stack(images) if isinstance(images[0], torch.Tensor) else images]

    @abstractmethod
    def _video_grid_thw(self, window: FrameWindow) -> tuple[int, int, int]:
        """Steps in time, rows and columns of visual tokens on the video path."""

    @abstractmethod
    def _read_video(self, window: FrameWindow, memory: ReadMemory) -> Reading:
        """One conversation about all frames; the memory may hold parts of it, and is to keep those that can be used again."""

    @abstractmethod
    def _frame_layout(self, window: FrameWindow) -> FrameLayout:
        """How a frame of the window is laid out on the frame path."""

    @abstractmethod
    def _frame_conversations(self, frames: tuple[Frame, ...], layout: FrameLayout) -> Conversations:
        """One conversation about each frame."""

    def _see_ahead(self, window: FrameWindow, frame: Frame, memory: ReadMemory) -> None:  # noqa: B027 - may be nothing
        """Remember what of a frame the video path can use again, if anything."""


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


def in_batches(frames: Sequence[Frame], size: int) -> Iterator[tuple[Frame, ...]]:
    """The frames in their order, ``size`` at a time; the last ones may be fewer."""
    return (tuple(frames[start : start + size]) for start in range(0, len(frames), size))


def common_tokens(marked_bn: torch.Tensor) -> torch.Tensor:
    """Indices of the marked tokens of a batch, in ascending order, which must be the same in each conversation."""
    assert bool((marked_bn == marked_bn[0]).all()), "images of one size make conversations of one layout"
    return marked_bn[0].nonzero().flatten()


def counted_positions(input_ids_bn: torch.Tensor) -> Callable[[int], torch.Tensor]:
    """Positions of a model that numbers all tokens alike, images and text; see :class:`Conversations`."""
    batch, tokens = input_ids_bn.shape
    return lambda tail_tokens: torch.arange(tokens + tail_tokens).expand(batch, -1)
