"""sam2's own video predictor."""

from __future__ import annotations

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.sam2_video_predictor import SAM2VideoPredictor

from decaf_ros.models.sam2_loading import locate


def predictor_of(model: torch.nn.Module, config_path: Path | None = None) -> SAM2VideoPredictor:
    """sam2's own predictor with the weights of a model; of the embedded architecture, unless a config says another."""
    config = OmegaConf.load(config_path or locate("embedded").config).model
    config._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    predictor = instantiate(config)
    predictor.load_state_dict(model.state_dict())
    return predictor.eval()
