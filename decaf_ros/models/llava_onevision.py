"""LLaVA-OneVision as a video MLLM.

Images are read in square crops of one size, 384 pixels and 27 x 27 features for the official models. A frame of a video is one
crop, pooled to 14 x 14 visual tokens. An image of its own is read "at any resolution": fitted into several crops, whose
features are put side by side, cut to the image and, where they are very many, interpolated to fewer. Its tokens are those of
one crop with the whole image, then those of the grid, row by row with a token at the end of each row. The visual grid is that
grid alone.
"""

from __future__ import annotations

import math

from transformers import PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import select_best_resolution

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.adapter import ChatAdapter, FrameLayout, common_tokens, counted_positions, require_fit, square
from decaf_ros.models.chat_model import Conversations, MllmOptions, Reading
from decaf_ros.models.read_memory import ReadMemory

# Where the model interpolates its features: this much above the size that its name for the aspect ratio gives.
_INTERPOLATION_RATIO = 1.1


class LlavaOnevision(ChatAdapter):
    """Implements :class:`decaf_ros.models.protocols.VideoMllm` for ``LlavaOnevisionForConditionalGeneration``.

    Raises:
        ValueError: a budget of visual tokens is smaller than one crop, or the processor does not fit the model.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, options: MllmOptions | None = None) -> None:
        super().__init__(model, processor, options)
        vision = model.config.vision_config
        self._crop_px: int = vision.image_size
        self._crop_side: int = vision.image_size // vision.patch_size
        self._pooled_side = math.ceil(self._crop_side / 2)
        self._most_crops = int(model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        strategy = {"vision_feature_select_strategy": model.config.vision_feature_select_strategy}
        require_fit(processor, {"num_image_tokens": self._crop_side**2, **strategy})
        require_fit(processor.image_processor, {"image_grid_pinpoints": model.config.image_grid_pinpoints})
        for part in (processor.image_processor, processor.video_processor):
            require_fit(part, {"size": square(self._crop_px)})
        self._options.require_budgets("LLaVA-OneVision", self._pooled_side**2, self._crop_side**2)

    def _video_grid_thw(self, window: FrameWindow) -> tuple[int, int, int]:
        return len(window), self._pooled_side, self._pooled_side

    def _read_video(self, window: FrameWindow, memory: ReadMemory) -> Reading:
        """Each frame is one pooled crop."""
        inputs = self._chat.processed("video", 1, videos=self._videos(window.frames), do_sample_frames=False)
        ids_bn = inputs["input_ids"]
        tokens = common_tokens(ids_bn == self._chat.model.config.video_token_id)
        # The last token ends the video.
        images = {"pixel_values_videos": inputs["pixel_values_videos"]}
        return self._chat.prefill(Conversations(ids_bn, tokens[:-1], images, counted_positions(ids_bn)))

    def _frame_layout(self, window: FrameWindow) -> FrameLayout:
        """As large as the budget of tokens allows, but never enlarged."""
        rows, columns = self._grid(self._size_within_budget(window.size_hw))
        return FrameLayout((rows, columns), self._crop_side**2 + rows * (columns + 1))

    def _frame_conversations(self, frames: tuple[Frame, ...], layout: FrameLayout) -> Conversations:
        images = self._pictures(frames, self._size_within_budget(frames[0].size_hw))
        inputs = self._chat.processed("image", len(frames), images=images)
        ids_bn, (rows, columns) = inputs["input_ids"], layout.grid_hw
        tokens = common_tokens(ids_bn == self._chat.model.config.image_token_id)
        grid_and_ends = tokens[self._crop_side**2 :].view(rows, columns + 1)
        carried = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
        return Conversations(ids_bn, grid_and_ends[:, :-1].flatten(), carried, counted_positions(ids_bn))

    def _size_within_budget(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the largest image, of the same shape, whose grid keeps to the budget."""
        tokens = self._options.frame_tokens if self._options.multi_scale else self._crop_side**2
        sizes = [size_hw, *(_fitted(size_hw, pinpoint) for pinpoint in self._chat.model.config.image_grid_pinpoints)]
        return max((size for size in sizes if math.prod(self._grid(size)) <= tokens), key=math.prod)

    def _grid(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that the model makes of an image: crops around it, cut to it, and interpolated if very many."""
        config = self._chat.model.config
        crops_hw = [pixels // self._crop_px for pixels in select_best_resolution(size_hw, config.image_grid_pinpoints)]
        (height, width), (rows, columns) = size_hw, (count * self._crop_side for count in crops_hw)
        # As much is cut off on both sides, in whole features, so that a remainder of one stays.
        if width * rows > height * columns:
            rows -= (rows - height * columns // width) // 2 * 2
        else:
            columns -= (columns - width * rows // height) // 2 * 2
        most = self._most_crops * self._crop_side**2
        ratio = math.sqrt(rows * columns / most)
        return (int(rows // ratio), int(columns // ratio)) if ratio > _INTERPOLATION_RATIO else (rows, columns)


def _fitted(size_hw: tuple[int, int], frame_hw: tuple[int, int]) -> tuple[int, int]:
    """The size of an image reduced, where need be, to fit into a frame."""
    scale = min(1.0, *(frame / pixels for pixels, frame in zip(size_hw, frame_hw, strict=True)))
    height, width = (max(1, round(pixels * scale)) for pixels in size_hw)
    return height, width
