"""Published models with random weights, on their device: time and memory do not depend on them, and nothing is downloaded."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from sam2.modeling.sam2_base import SAM2Base
from transformers import AutoModelForImageTextToText, PreTrainedModel

from decaf_ros.bench.model_sizes import MLLMS, Dimensions, config_of
from decaf_ros.bench.reference.tiny_qwen2_5_vl import tiny_processor
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.protocols import MaskProposals
from decaf_ros.models.qwen2_5_vl import Qwen25Vl
from decaf_ros.models.qwen2_vl import Qwen2Vl
from decaf_ros.models.sam2_network import Sam2Features
from decaf_ros.models.sam2_stream import Sam2Tracker

ADAPTERS: dict[str, type[Qwen25Vl]] = {"qwen2_vl": Qwen2Vl, "qwen2_5_vl": Qwen25Vl}
# The most telling first.
MLLM_IDS = [name for name in reversed(MLLMS) if MLLMS[name].model_type in ADAPTERS]
TRACKER_IDS = [f"facebook/sam2.1-hiera-{size}" for size in ("large", "tiny", "base-plus", "small")]
CELL_PX = 28
# What the configuration calls them, and the tokenizer.
_IMAGE_TOKENS = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}


def random_mllm(
    dimensions: Dimensions, layers: int | None, options: MllmOptions, device: str
) -> tuple[Qwen25Vl, PreTrainedModel]:
    """A language model in bfloat16, behind its adapter, and as transformers has it.

    Args:
        dimensions: of the published model.
        layers: that it and its vision tower are cut to; ``None`` for all.
        options: how it reads and answers.
        device: where it is.
    """
    dimensions = _cut_to(layers, dimensions)
    processor = tiny_processor(frame_tokens=4 * options.video_tokens, cell_px=CELL_PX)
    convert = processor.tokenizer.convert_tokens_to_ids
    token_ids = {f"{kind}_token_id": convert(f"<|{token}|>") for kind, token in _IMAGE_TOKENS.items()}
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config_of(dimensions, **token_ids), dtype=torch.bfloat16)
    return ADAPTERS[dimensions.model_type](model, processor, options), model


def _cut_to(layers: int | None, model: Dimensions) -> Dimensions:
    """The model with its first layers only; the last layer of its vision tower attends to whole images, if any does."""
    if layers is None:
        return model
    whole_images = {"fullatt_block_indexes": [layers - 1]} if model.model_type == "qwen2_5_vl" else {}
    text, vision = model.text | {"num_hidden_layers": layers}, model.vision | {"depth": layers} | whole_images
    return replace(model, text=text, vision=vision)


def random_sam2(name: str, image_size: int, config_path: Path | None = None) -> SAM2Base:
    """A mask model on the CPU; its configuration is written where somebody wants it."""
    config: Any = OmegaConf.load(str(resources.files("sam2") / HF_MODEL_ID_TO_FILENAMES[name][0]))
    config.model.image_size = image_size
    if config_path is not None:
        OmegaConf.save(config, config_path)
    return instantiate(config.model).eval()


class PointedTracker(Sam2Tracker):
    """A tracker that takes a box around a point for its mask: that of random weights means nothing, and may be empty."""

    def propose(self, features: Sam2Features, points_xy_px: Any) -> MaskProposals:
        """See :class:`~decaf_ros.models.protocols.MaskTracker`; all that it takes is done."""
        proposals = super().propose(features, points_xy_px)
        masks = np.zeros_like(proposals.masks_phw)
        height, width = features.size_hw
        for mask, (x, y) in zip(masks, points_xy_px, strict=True):
            top, left = max(0, round(y) - height // 16), max(0, round(x) - width // 16)
            mask[top : top + height // 8, left : left + width // 8] = True
        return MaskProposals(masks, proposals.predicted_iou_p)
