"""An InternVL3 with random weights: tiles of 32 pixels, 4 x 4 visual tokens each."""

from __future__ import annotations

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from decaf_ros.bench.reference.tiny_qwen2_5_vl import tiny_tokenizer
from decaf_ros.bench.reference.whole import Whole, chat_text, pictures, randomise
from decaf_ros.datatypes import FrameWindow

TILE_PX, TILE_SIDE = 32, 4
_IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% elif part['type'] == 'video' %}<video>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_processor() -> InternVLProcessor:
    size = {"height": TILE_PX, "width": TILE_PX}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size),
        tokenizer=tiny_tokenizer(_IMAGE_TOKENS),
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=TILE_SIDE**2,
        chat_template=_TEMPLATE,
    )


def tiny_model(processor: InternVLProcessor) -> InternVLForConditionalGeneration:
    """Four layers of four heads over two key heads, and two layers of vision."""
    config = InternVLConfig(
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
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": TILE_PX,
            "patch_size": TILE_PX // (2 * TILE_SIDE),
        },
        image_token_id=processor.image_token_id,
        image_seq_length=TILE_SIDE**2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(config).eval()
    randomise(model)
    return model


def whole_prompt(
    processor: InternVLProcessor, medium: str, window: FrameWindow, grid_hw: tuple[int, int], prompt: str
) -> Whole:
    """One conversation; each cell's token is found tile by tile."""
    text = [chat_text(processor, medium, prompt)]
    rows, columns = grid_hw
    if medium == "video":
        inputs = processor(text=text, videos=[pictures(window)], return_tensors="pt")
        rows *= len(window)
    else:
        tiles = rows * columns // TILE_SIDE**2
        inputs = processor(text=text, images=pictures(window), crop_to_patches=True, max_patches=tiles, return_tensors="pt")
    tokens = (inputs["input_ids"][0] == processor.image_token_id).nonzero().flatten()
    order = []
    for row in range(rows):
        for column in range(columns):
            tile = row // TILE_SIDE * (columns // TILE_SIDE) + column // TILE_SIDE
            order.append((tile * TILE_SIDE + row % TILE_SIDE) * TILE_SIDE + column % TILE_SIDE)
    return Whole(inputs, tokens[order])
