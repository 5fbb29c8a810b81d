"""A LLaVA-OneVision with random weights: crops of 24 pixels, 6 x 6 features each, up to 3 x 3 crops."""

from __future__ import annotations

import itertools

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

from decaf_ros.bench.reference.tiny_qwen2_5_vl import tiny_tokenizer
from decaf_ros.bench.reference.whole import Whole, chat_text, pictures, randomise
from decaf_ros.datatypes import FrameWindow

CROP_PX, CROP_SIDE = 24, 6
_PINPOINTS = [list(pair) for pair in itertools.product((24, 48, 72), repeat=2)]
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] if part['type'] != 'text' %}<{{ part['type'] }}>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}\n{{ part['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_processor(vision_aspect_ratio: str = "anyres_max_9") -> LlavaOnevisionProcessor:
    size = {"height": CROP_PX, "width": CROP_PX}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=_PINPOINTS),
        tokenizer=tiny_tokenizer({"image_token": "<image>", "video_token": "<video>"}),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=CROP_SIDE**2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=vision_aspect_ratio,
        chat_template=_TEMPLATE,
    )


def tiny_model(processor: LlavaOnevisionProcessor) -> LlavaOnevisionForConditionalGeneration:
    """Four layers of four heads over two key heads, and two layers of vision."""
    config = LlavaOnevisionConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": CROP_PX,
            "patch_size": CROP_PX // CROP_SIDE,
            "vision_use_head": False,
        },
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=_PINPOINTS,
        vision_aspect_ratio=processor.vision_aspect_ratio,
    )
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    randomise(model)
    return model


def whole_prompt(
    processor: LlavaOnevisionProcessor, medium: str, window: FrameWindow, grid_hw: tuple[int, int], prompt: str
) -> Whole:
    """One conversation; on the frame path a crop of the whole image comes first, and a token ends each row."""
    text = [chat_text(processor, medium, prompt)]
    if medium == "video":
        inputs = processor(text=text, videos=[pictures(window)], return_tensors="pt")
        tokens = (inputs["input_ids"][0] == processor.video_token_id).nonzero().flatten()
        return Whole(inputs, tokens[: len(window) * grid_hw[0] * grid_hw[1]])
    inputs = processor(text=text, images=pictures(window), return_tensors="pt")
    tokens = (inputs["input_ids"][0] == processor.image_token_id).nonzero().flatten()
    rows, columns = grid_hw
    order = [CROP_SIDE**2 + row * (columns + 1) + column for row in range(rows) for column in range(columns)]
    return Whole(inputs, tokens[order])
