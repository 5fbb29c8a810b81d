"""InternVL3 as a video MLLM, in transformers' own format (the ``-hf`` repositories).

Images are read in square tiles of one size, 448 pixels and 16 x 16 visual tokens for the official models. A frame of a video is
one tile. An image of its own is stretched over the rows and columns of tiles that suit its shape best, and a thumbnail follows.
Tokens stand tile by tile; the tiles put side by side are the visual grid, and the thumbnail is left out.
"""

from __future__ import annotations

from transformers import PreTrainedModel, ProcessorMixin
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.adapter import ChatAdapter, FrameLayout, common_tokens, counted_positions, require_fit, square
from decaf_ros.models.chat_model import Conversations, MllmOptions, Reading
from decaf_ros.models.prompts import Medium
from decaf_ros.models.read_memory import ReadMemory


class InternVl3(ChatAdapter):
    """Implements :class:`decaf_ros.models.protocols.VideoMllm` for ``InternVLForConditionalGeneration``.

    Raises:
        ValueError: a budget of visual tokens is smaller than one tile, or the processor does not fit the model.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, options: MllmOptions | None = None) -> None:
        super().__init__(model, processor, options)
        vision = model.config.vision_config
        tile_hw, patch_hw = square(vision.image_size), square(vision.patch_size)
        self._side = int(tile_hw[0] // patch_hw[0] * model.config.downsample_ratio)
        self._tile_tokens = self._side**2
        require_fit(model.config, {"image_seq_length": self._tile_tokens})
        require_fit(processor, {"image_seq_length": self._tile_tokens})
        for part in (processor.image_processor, processor.video_processor):
            require_fit(part, {"size": tile_hw})
        self._options.require_budgets("InternVL3", self._tile_tokens, self._tile_tokens)

    def _video_grid_thw(self, window: FrameWindow) -> tuple[int, int, int]:
        return len(window), self._side, self._side

    def _read_video(self, window: FrameWindow, memory: ReadMemory) -> Reading:
        """Each frame is one tile."""
        videos = self._videos(window.frames)
        return self._chat.prefill(self._conversations("video", 1, len(window), videos=videos, do_sample_frames=False))

    def _frame_layout(self, window: FrameWindow) -> FrameLayout:
        """As many tiles as the shape of the frames and the limits allow."""
        rows, columns = self._tile_grid(window.size_hw)
        return FrameLayout((rows * self._side, columns * self._side), (rows * columns + 1) * self._tile_tokens)

    def _frame_conversations(self, frames: tuple[Frame, ...], layout: FrameLayout) -> Conversations:
        rows, columns = (side // self._side for side in layout.grid_hw)
        return self._conversations(
            "image",
            len(frames),
            rows,
            columns,
            images=self._pictures(frames),
            crop_to_patches=True,
            max_patches=self._most_tiles,
        )

    @property
    def _most_tiles(self) -> int:
        if not self._options.multi_scale:
            return 1
        return min(self._chat.processor.image_processor.max_patches, self._options.frame_tokens // self._tile_tokens)

    def _tile_grid(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles that the model's own processor makes of an image."""
        images = self._chat.processor.image_processor
        tile_hw = images.size["height"], images.size["width"]
        columns, rows = get_optimal_tiled_canvas(size_hw, tile_hw, images.min_patches, self._most_tiles)
        return rows, columns

    def _conversations(self, medium: Medium, count: int, rows: int, columns: int = 1, **images: object) -> Conversations:
        """``count`` conversations; frames of a video count as tiles above each other."""
        inputs = self._chat.processed(medium, count, **images)
        ids_bn = inputs["input_ids"]
        tokens = common_tokens(ids_bn == self._chat.model.config.image_token_id)
        thumbnails = 1 if medium == "image" and rows * columns > 1 else 0
        assert len(tokens) == (rows * columns + thumbnails) * self._tile_tokens, "the processor tiles images as expected here"
        tiles = tokens[: rows * columns * self._tile_tokens].view(rows, columns, self._side, self._side)
        return Conversations(
            ids_bn, tiles.transpose(1, 2).flatten(), {"pixel_values": inputs["pixel_values"]}, counted_positions(ids_bn)
        )
