"""A Qwen2.5-VL with random weights and a processor of its own, small enough to compute everything twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.video_utils import VideoMetadata

from decaf_ros.bench.reference.whole import Whole, chat_text, pictures, randomise
from decaf_ros.datatypes import Frame, FrameWindow

CELL_PX = 8
_IMAGE_TOKENS = {
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}
_ANSWERS = ("yes", "no", "Yes", "No")
_WORDS = [*"abcdefghijklmnopqrstuv", *_ANSWERS, "find", "the", "cup", "user", "system", "assistant", ".", "?"]
TEMPLATE = (
    "<|im_start|>system\nassistant<|im_end|>\n{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(image_tokens: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """Words, letters, and tokens for images by the names that a processor knows them by."""
    special = {"turn_token": "<|im_start|>", **image_tokens}
    tokens = ["<|im_end|>", *special.values(), "<unk>", *_WORDS]
    words = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<|im_end|>", extra_special_tokens=special
    )


def tiny_processor(frame_tokens: int = 64, cell_px: int = CELL_PX) -> Qwen2_5_VLProcessor:
    """Qwen's own processor around a word-level tokenizer, with tokens of 8 x 8 pixels (28 x 28 in the published models)."""
    patches: dict[str, Any] = {"patch_size": cell_px // 2, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": cell_px**2, "longest_edge": frame_tokens * cell_px**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **patches),
        tokenizer=tiny_tokenizer(_IMAGE_TOKENS),
        video_processor=Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False, **patches),
        chat_template=TEMPLATE,
    )


def tiny_model(
    processor: Qwen2_5_VLProcessor, layers: int = 4, cell_px: int = CELL_PX, window_cells: int = 2
) -> Qwen2_5_VLForConditionalGeneration:
    """Layers of four heads over two key heads; queries and keys wide enough for attention that is not flat."""
    token_ids = {name: processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": cell_px // 2,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": window_cells * cell_px,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        image_token_id=token_ids["image_pad"],
        video_token_id=token_ids["video_pad"],
        vision_start_token_id=processor.tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=processor.tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    randomise(model)
    return model


def whole_prompt(processor: ProcessorMixin, medium: str, window: FrameWindow, grid_hw: tuple[int, int], prompt: str) -> Whole:
    """One conversation of any model of the Qwen family, from images of the size that a grid takes."""
    size_wh = grid_hw[1] * CELL_PX, grid_hw[0] * CELL_PX
    images = [picture.resize(size_wh, Image.Resampling.BICUBIC) for picture in pictures(window)]
    text = [chat_text(processor, medium, prompt)]
    if medium == "image":
        inputs = processor(text=text, images=images, do_resize=False, return_tensors="pt")
    else:
        metadata = VideoMetadata(len(images), fps=window.frames_per_second, frames_indices=list(range(len(images))))
        inputs = processor(
            text=text,
            videos=[images],
            video_metadata=[metadata],
            do_sample_frames=False,
            do_resize=False,
            return_tensors="pt",
        )
    return Whole(inputs, inputs["mm_token_type_ids"][0].nonzero().flatten())


def random_window(count: int, size_hw: tuple[int, int], seconds: float = 0.4) -> FrameWindow:
    """Noise images, the same for the same arguments."""
    images = np.random.default_rng(count).integers(0, 256, (count, *size_hw, 3), dtype=np.uint8)
    return FrameWindow(tuple(Frame(1 + int(index * seconds * 1e9), "camera", image) for index, image in enumerate(images)))
