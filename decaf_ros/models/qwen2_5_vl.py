"""Qwen2.5-VL as a video MLLM: the grid of visual tokens is chosen here, everything else is the model's own.

Visual tokens are squares of ``patch_size * spatial_merge_size`` pixels (28 for the official models). Images are resized to a
whole number of them before the model's processor sees them, so that the processor has no choice left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.video_utils import VideoMetadata

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.adapter import ChatAdapter, FrameLayout, common_tokens, in_batches, require_fit
from decaf_ros.models.boxes import BoxFormat
from decaf_ros.models.chat_model import Conversations, MllmOptions, Reading
from decaf_ros.models.prompts import Medium
from decaf_ros.models.read_memory import ReadMemory
from decaf_ros.models.vision_tower import in_steps, read_together

# Names of the processor's outputs: what carries the pixels, and the grid of patches that they form.
_PIXELS: Mapping[Medium, str] = {"video": "pixel_values_videos", "image": "pixel_values"}
_GRID: Mapping[Medium, str] = {"video": "video_grid_thw", "image": "image_grid_thw"}


def fit_grid(size_hw: tuple[int, int], tokens: int) -> tuple[int, int]:
    """A grid of at most ``tokens`` cells over an image, about as many as that, and each about square in the image.

    Args:
        size_hw: height and width of the image in pixels; small images get as fine a grid as large ones.
        tokens: cells, at most; at least 1.

    Returns:
        Rows and columns, each at least 1.
    """
    height, width = size_hw
    cells_per_pixel = math.sqrt(tokens / (height * width))

    def whole(cells: float) -> set[int]:
        # The rounding spares exact fits a stray last bit of the square root.
        return {min(tokens, max(1, to_int(round(cells, 6)))) for to_int in (math.floor, math.ceil)}

    grids = itertools.product(whole(height * cells_per_pixel), whole(width * cells_per_pixel))
    within = [(rows, columns) for rows, columns in grids if rows * columns <= tokens]
    return min(within, key=lambda grid_hw: abs(math.log(height * grid_hw[1] / (width * grid_hw[0]))))


class Qwen25Vl(ChatAdapter):
    """Implements :class:`decaf_ros.models.protocols.VideoMllm` for ``Qwen2_5_VLForConditionalGeneration``.

    The other models of the Qwen family differ from it in little, and derive from it.
    """

    # Outputs of the processor, beside the grid, that the positions in time of a video depend on.
    _time_inputs: ClassVar[tuple[str, ...]] = ("second_per_grid_ts",)

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, options: MllmOptions | None = None) -> None:
        super().__init__(model, processor, options)
        read_together(model.model.visual)
        vision = model.config.vision_config
        self._cell_px: int = vision.patch_size * vision.spatial_merge_size
        self._temporal_stride = vision.temporal_patch_size
        sizes = {
            "patch_size": vision.patch_size,
            "merge_size": vision.spatial_merge_size,
            "temporal_patch_size": vision.temporal_patch_size,
        }
        for part in (processor.image_processor, processor.video_processor):
            require_fit(part, sizes)
            if not isinstance(part.size["longest_edge"], int):
                raise ValueError(f"{type(part).__name__} names no longest_edge, the most pixels of an image")

    def box_format(self) -> BoxFormat:
        """Pixels of the image as the model gets it."""
        return BoxFormat(self._cell_px)

    def _video_grid_thw(self, window: FrameWindow) -> tuple[int, int, int]:
        return self._steps(window), *self._video_grid(window)

    def _read_video(self, window: FrameWindow, memory: ReadMemory) -> Reading:
        """An odd last frame is repeated, as Qwen's processor does."""
        way, steps = self._way_of_seeing(window), self._in_steps(window.frames)
        known = [memory.get(way, step) for step in steps]
        unknown = [step for step, features in zip(steps, known, strict=True) if features is None]
        conversations = self._conversations(self._unseen_inputs(window, unknown), "video", self._time_inputs)
        with in_steps(known) as seen:
            read = self._chat.prefill(conversations)
        for frames, features in zip(steps, seen, strict=True):
            memory.put(way, frames, features, features.nbytes)
        return read

    def _see_ahead(self, window: FrameWindow, frame: Frame, memory: ReadMemory) -> None:
        """Remember the features of the step that the frame completes, or is a part of."""
        way = self._way_of_seeing(window)
        [step] = [step for step in self._in_steps(window.frames) if frame in step]
        if len(step) < self._temporal_stride or memory.get(way, step) is not None:
            return
        inputs = self._video_inputs(FrameWindow(step), self._videos(step, self._video_size_hw(window)))
        with in_steps([None]) as seen:
            self._chat.see({name: inputs[name] for name in (_PIXELS["video"], _GRID["video"])})
        memory.put(way, step, seen[0], seen[0].nbytes)

    def _way_of_seeing(self, window: FrameWindow) -> tuple[str, tuple[int, int]]:
        return "video", self._video_grid(window)

    def _in_steps(self, frames: tuple[Frame, ...]) -> list[tuple[Frame, ...]]:
        """Frames that the vision tower merges into one step in time each; the last one may have fewer."""
        return list(in_batches(frames, self._temporal_stride))

    def _unseen_inputs(self, window: FrameWindow, unknown: Sequence[tuple[Frame, ...]]) -> Mapping[str, torch.Tensor]:
        """What the processor makes of a window, but for the pixels of steps that are known."""
        size_hw = self._video_size_hw(window)
        if len(unknown) == self._steps(window):
            return self._video_inputs(window, self._videos(window.frames, size_hw))
        # All the rest depends on sizes and times alone.
        blank = torch.zeros(len(window), 3, *size_hw, dtype=torch.uint8, device=self._chat.model.device)
        inputs = dict(self._video_inputs(window, [blank], do_rescale=False, do_normalize=False))
        name = _PIXELS["video"]
        seen = [self._video_inputs(FrameWindow(step), self._videos(step, size_hw))[name] for step in unknown]
        inputs[name] = torch.cat([inputs[name][:0].float(), *seen])
        return inputs

    def _video_inputs(self, window: FrameWindow, videos: list[Any], **options: bool) -> Mapping[str, torch.Tensor]:
        """What the processor makes of a window whose images are the video given."""
        count = len(window)
        metadata = VideoMetadata(total_num_frames=count, fps=window.frames_per_second, frames_indices=list(range(count)))
        return self._chat.processed(
            "video", 1, videos=videos, video_metadata=[metadata], do_sample_frames=False, do_resize=False, **options
        )

    def _frame_layout(self, window: FrameWindow) -> FrameLayout:
        grid_hw = self._frame_grid(window)
        return FrameLayout(grid_hw, math.prod(grid_hw))

    def _frame_conversations(self, frames: tuple[Frame, ...], layout: FrameLayout) -> Conversations:
        pictures = self._pictures(frames, self._size_hw(layout.grid_hw))
        return self._conversations(self._chat.processed("image", len(frames), images=pictures, do_resize=False), "image")

    def _steps(self, window: FrameWindow) -> int:
        return math.ceil(len(window) / self._temporal_stride)

    def _video_grid(self, window: FrameWindow) -> tuple[int, int]:
        return fit_grid(window.size_hw, max(1, min(self._options.video_tokens, self._video_limit(window))))

    def _video_size_hw(self, window: FrameWindow) -> tuple[int, int]:
        return self._size_hw(self._video_grid(window))

    def _frame_grid(self, window: FrameWindow) -> tuple[int, int]:
        """Twice the video path's rows and columns where the limits allow it, else the finest grid that they allow."""
        tokens = max(1, min(self._options.frame_tokens, self._limit("image_processor")))
        rows, columns = self._video_grid(window)
        scale = 2 if self._options.multi_scale else 1
        grid_hw = scale * rows, scale * columns
        return grid_hw if math.prod(grid_hw) <= tokens else fit_grid(window.size_hw, tokens)

    def _video_limit(self, window: FrameWindow) -> int:
        """Most visual tokens that the model's own processor makes of one frame of a video."""
        return self._limit("video_processor")

    def _limit(self, processor: str) -> int:
        """Most visual tokens for which a part of the model's processor leaves images as large as they are."""
        return getattr(self._chat.processor, processor).size["longest_edge"] // self._cell_px**2

    def _size_hw(self, grid_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of an image, in pixels, that the processor makes such a grid of."""
        rows, columns = grid_hw
        return rows * self._cell_px, columns * self._cell_px

    def _conversations(
        self, inputs: Mapping[str, torch.Tensor], medium: Medium, time_inputs: tuple[str, ...] = ()
    ) -> Conversations:
        ids_bn, types_bn = inputs["input_ids"], inputs["mm_token_type_ids"]
        # Of one conversation, since all have one layout, and one token more: text that follows is of type 0, whatever it says.
        ids, types = (torch.nn.functional.pad(tensor[:1], (0, 1)) for tensor in (ids_bn, types_bn))
        layout = {name: inputs[name][:1] for name in (_GRID[medium], *time_inputs)}
        known_a1n = self._chat.model.model.get_rope_index(ids, types, **layout)[0]

        def positions(tail_tokens: int) -> torch.Tensor:
            following = known_a1n[..., -1:] + torch.arange(tail_tokens)
            return torch.cat([known_a1n[..., :-1], following], dim=-1).expand(-1, len(ids_bn), -1)

        images = {name: inputs[name] for name in (_PIXELS[medium], _GRID[medium])}
        return Conversations(ids_bn, common_tokens(types_bn != 0), images, positions)
