"""A Qwen3-VL with random weights, as small as the tiny Qwen2.5-VL, whose tokenizer and sizes it shares."""

from __future__ import annotations

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from decaf_ros.bench.reference.tiny_qwen2_5_vl import CELL_PX, TEMPLATE, tiny_processor
from decaf_ros.bench.reference.whole import randomise


def tiny_qwen3_processor(video_tokens: int = 1024) -> Qwen3VLProcessor:
    """Its video processor's limit is one of all frames of a video together."""
    parts = tiny_processor()
    size = {"shortest_edge": CELL_PX**2, "longest_edge": video_tokens * CELL_PX**2}
    video = Qwen3VLVideoProcessor(size=size, cap_pixels_per_frame=False, patch_size=4, merge_size=2, temporal_patch_size=2)
    return Qwen3VLProcessor(parts.image_processor, parts.tokenizer, video, chat_template=TEMPLATE)


def tiny_qwen3(processor: Qwen3VLProcessor) -> Qwen3VLForConditionalGeneration:
    """Four layers of four heads over two key heads; the vision layers' features enter the first two of them."""
    token_id = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).eval()
    randomise(model)
    return model
