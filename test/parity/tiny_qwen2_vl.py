"""A Qwen2-VL with random weights, as small as the tiny Qwen2.5-VL, whose tokenizer and sizes it shares."""

from __future__ import annotations

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from decaf_ros.bench.reference.tiny_qwen2_5_vl import TEMPLATE, tiny_processor
from decaf_ros.bench.reference.whole import randomise


def tiny_qwen2_processor() -> Qwen2VLProcessor:
    parts = tiny_processor()
    return Qwen2VLProcessor(parts.image_processor, parts.tokenizer, parts.video_processor, chat_template=TEMPLATE)


def tiny_qwen2(processor: Qwen2VLProcessor) -> Qwen2VLForConditionalGeneration:
    """Four layers of four heads over two key heads, and two layers of vision."""
    token_id = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 24,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config).eval()
    randomise(model)
    return model
