"""Sizes of published models, computed from their architectures: ``python -m decaf_ros.bench.model_sizes`` prints the tables of
docs/hardware.md. No weights are read and nothing is downloaded: parameters are counted in networks without weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from transformers import AutoConfig, AutoModelForImageTextToText

KEY_FRAMES = 16
BYTES = torch.bfloat16.itemsize


@dataclass(frozen=True)
class Dimensions:
    """A language model of the hub, by what its ``config.json`` says.

    Attributes:
        model_type: family in transformers.
        text, vision: where they differ from the family's defaults in transformers.
        tied: whether words share one matrix for input and output.
        tokens: of one frame on the video path and on the frame path, at most, with default parameters.
        frames_a_step: frames that share their tokens on the video path.
    """

    model_type: str
    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool
    tokens: tuple[int, int]
    frames_a_step: int


def _text(hidden: int, layers: int, heads: int, key_heads: int, mlp: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
        **more,
    }


# Visual tokens of a frame on both paths. InternVL3: 12 tiles and a thumbnail. LLaVA-OneVision: a crop with the whole image, and
# the grid that frame_tokens allows.
_QWEN, _INTERNVL, _LLAVA = (400, 1600), (256, 13 * 256), (196, 729 + 3072)
MLLMS = {
    "Qwen/Qwen2-VL-2B-Instruct": Dimensions(
        "qwen2_vl", _text(1536, 28, 12, 2, 8960, 151936), {"hidden_size": 1536, "embed_dim": 1280}, True, _QWEN, 2
    ),
    "Qwen/Qwen2-VL-7B-Instruct": Dimensions(
        "qwen2_vl", _text(3584, 28, 28, 4, 18944, 152064), {"hidden_size": 3584, "embed_dim": 1280}, False, _QWEN, 2
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": Dimensions(
        "qwen2_5_vl",
        _text(2048, 36, 16, 2, 11008, 151936),
        {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048},
        True,
        _QWEN,
        2,
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Dimensions(
        "qwen2_5_vl",
        _text(3584, 28, 28, 4, 18944, 152064),
        {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
        False,
        _QWEN,
        2,
    ),
    "OpenGVLab/InternVL3-2B-hf": Dimensions(
        "internvl", _text(1536, 28, 12, 2, 8960, 151674, model_type="qwen2"), {}, False, _INTERNVL, 1
    ),
    "OpenGVLab/InternVL3-8B-hf": Dimensions(
        "internvl", _text(3584, 28, 28, 4, 18944, 151674, model_type="qwen2"), {}, False, _INTERNVL, 1
    ),
    "OpenGVLab/InternVL3-14B-hf": Dimensions(
        "internvl", _text(5120, 48, 40, 8, 13824, 151674, model_type="qwen2"), {}, False, _INTERNVL, 1
    ),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": Dimensions(
        "llava_onevision",
        _text(3584, 28, 28, 4, 18944, 152000, model_type="qwen2"),
        {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
            "vision_use_head": False,
        },
        False,
        _LLAVA,
        1,
    ),
    "Qwen/Qwen3-VL-4B-Instruct": Dimensions(
        "qwen3_vl",
        _text(2560, 36, 32, 8, 9728, 151936, head_dim=128),
        {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2560},
        True,
        _QWEN,
        2,
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Dimensions(
        "qwen3_vl",
        _text(4096, 36, 32, 8, 12288, 151936, head_dim=128),
        {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 4096},
        False,
        _QWEN,
        2,
    ),
}


def config_of(model: Dimensions, **token_ids: int) -> Any:
    """The model's configuration in transformers; token ids are the family's own unless others are given."""
    config = AutoConfig.for_model(
        model.model_type, text_config=model.text, vision_config=model.vision, tie_word_embeddings=model.tied, **token_ids
    )
    config.get_text_config().tie_word_embeddings = model.tied
    return config


def build_without_data(model: Dimensions) -> torch.nn.Module:
    """The model on PyTorch's meta device."""
    with torch.device("meta"):
        built = AutoModelForImageTextToText.from_config(config_of(model))
    built.tie_weights()
    return built


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(each.numel() for each in model.parameters())


def token_bytes(config: Any) -> int:
    """What a visual token keeps in bfloat16 while a query runs: keys and values of all layers, queries of the upper half."""
    text = config.get_text_config()
    layers, heads = text.num_hidden_layers, text.num_attention_heads
    channels = getattr(text, "head_dim", None) or text.hidden_size // heads
    return BYTES * channels * (2 * layers * text.num_key_value_heads + (layers - layers // 2) * heads)


def query_tokens(model: Dimensions) -> int:
    """Visual tokens of a query with all its key frames on both paths, at most."""
    video, frame = model.tokens
    return KEY_FRAMES // model.frames_a_step * video + KEY_FRAMES * frame


def sam2_parameter_count(model_id: str) -> int:
    """Parameters of an official SAM 2 model, built with random weights: its constructor needs data."""
    config_name, _ = HF_MODEL_ID_TO_FILENAMES[model_id]
    return parameter_count(instantiate(OmegaConf.load(str(resources.files("sam2") / config_name)).model))


def main() -> None:
    """Print both tables."""
    print("| model | parameters | weights, bfloat16 | a visual token | a query | together |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model_id, dimensions in MLLMS.items():
        built = build_without_data(dimensions)
        count, token = parameter_count(built), token_bytes(built.config)
        weights, query = BYTES * count / 1e9, token * query_tokens(dimensions) / 1e9
        cells = (
            f"`{model_id}`",
            f"{count:,}",
            f"{weights:.1f} GB",
            f"{token / 1e3:.0f} kB",
            f"{query:.1f} GB",
            f"{weights + query:.1f} GB",
        )
        print(f"| {' | '.join(cells)} |")
    print()
    print("| model | parameters | weights, bfloat16 |")
    print("| --- | --- | --- |")
    for name in ("tiny", "small", "base-plus", "large"):
        count = sam2_parameter_count(f"facebook/sam2.1-hiera-{name}")
        print(f"| `facebook/sam2.1-hiera-{name}` | {count:,} | {BYTES * count / 1e9:.2f} GB |")


if __name__ == "__main__":
    main()
