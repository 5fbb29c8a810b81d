"""From a model id to a SAM 2 network: the embedded one, a local folder or checkpoint, or an official one from the hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.models.errors import ModelNotFound

EMBEDDED = "embedded"

_EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "sam2_1"
_CONFIG_NAME, _WEIGHTS_NAME = "config.yaml", "model.safetensors"
# Stride of the image encoder's coarsest level: the image size must be a multiple of it.
_COARSEST_STRIDE = 32
# A config names Python callables. Only these are built, so that a folder from elsewhere cannot run code of its choice.
_ALLOWED_TARGETS = frozenset(
    f"sam2.modeling.{name}"
    for name in (
        "sam2_base.SAM2Base",
        "backbones.hieradet.Hiera",
        "backbones.image_encoder.FpnNeck",
        "backbones.image_encoder.ImageEncoder",
        "memory_attention.MemoryAttention",
        "memory_attention.MemoryAttentionLayer",
        "memory_encoder.CXBlock",
        "memory_encoder.Fuser",
        "memory_encoder.MaskDownSampler",
        "memory_encoder.MemoryEncoder",
        "position_encoding.PositionEmbeddingSine",
        "sam.transformer.RoPEAttention",
    )
)


@dataclass(frozen=True)
class Checkpoint:
    """Where a network's architecture and weights are.

    Attributes:
        config: a yaml file in the format of sam2's own configs, with the architecture under ``model``.
        weights: a state dict as ``.safetensors``, or as ``.pt`` in the format of the official release.
    """

    config: Path
    weights: Path


def load_sam2(model_id: str, image_size: int | None = None) -> SAM2Base:
    """Build a SAM 2 network and load its weights, on the CPU, in float32, for inference.

    Args:
        model_id: see :func:`locate`.
        image_size: side in pixels of the square that images are resized to, a multiple of 32; the config's own by default.
            Smaller is faster and coarser: the official models are made for 1024.

    Raises:
        ModelNotFound: nothing usable behind ``model_id``; the message says what is missing and what to do.
        ValueError: ``image_size`` is not a positive multiple of 32.
    """
    if image_size is not None and (image_size <= 0 or image_size % _COARSEST_STRIDE):
        raise ValueError(f"image_size must be a positive multiple of {_COARSEST_STRIDE}, got {image_size}")
    checkpoint = locate(model_id)
    model = _build(checkpoint.config, image_size)
    try:
        model.load_state_dict(_read_weights(checkpoint.weights))
    except RuntimeError as error:
        raise ModelNotFound(
            f"{checkpoint.weights} does not hold the weights of {checkpoint.config.name}: {error}\n"
            "Use the config the weights were trained with; checkpoints converted for transformers do not fit."
        ) from error
    return model.eval().requires_grad_(False)


def locate(model_id: str) -> Checkpoint:
    """Find the files of a model, downloading them from the hub when they are there only.

    Args:
        model_id: ``embedded``; a folder with ``config.yaml`` and ``model.safetensors``; a checkpoint file (``.pt`` or
            ``.safetensors``) with the name of an official one, which tells the architecture; or an official hub id such as
            ``facebook/sam2.1-hiera-large``.

    Raises:
        ModelNotFound: none of these, or a file is missing, or the hub cannot be reached.
    """
    if model_id == EMBEDDED:
        return _from_folder(_EMBEDDED_FOLDER)
    path = Path(model_id).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    if model_id in HF_MODEL_ID_TO_FILENAMES:
        return _from_hub(model_id)
    raise ModelNotFound(
        f"{model_id!r} is neither a file or folder here nor a known SAM 2 model. Use {EMBEDDED!r}, "
        f"a folder with {_CONFIG_NAME} and {_WEIGHTS_NAME}, a checkpoint file of the official release, "
        f"or one of: {', '.join(HF_MODEL_ID_TO_FILENAMES)}"
    )


def _from_folder(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint(folder / _CONFIG_NAME, folder / _WEIGHTS_NAME)
    missing = [file.name for file in (checkpoint.config, checkpoint.weights) if not file.is_file()]
    if missing:
        raise ModelNotFound(f"{folder} lacks {' and '.join(missing)}: a SAM 2 folder holds {_CONFIG_NAME} and {_WEIGHTS_NAME}")
    return checkpoint


def _from_file(path: Path) -> Checkpoint:
    configs = {Path(weights).stem: config for config, weights in HF_MODEL_ID_TO_FILENAMES.values()}
    if path.stem not in configs:
        raise ModelNotFound(
            f"the name of {path} does not tell its architecture. Name it like the official checkpoint of that architecture "
            f"({', '.join(configs)}), or put it as {_WEIGHTS_NAME} beside a {_CONFIG_NAME} and give the folder"
        )
    return Checkpoint(_official_config(configs[path.stem]), path)


def _from_hub(model_id: str) -> Checkpoint:
    config, weights = HF_MODEL_ID_TO_FILENAMES[model_id]
    try:
        path = hf_hub_download(repo_id=model_id, filename=weights)
    except (OSError, HfHubHTTPError) as error:
        raise ModelNotFound(
            f"{model_id} is not in the local cache and could not be downloaded ({error}). Connect to the network once, or copy "
            f"{weights} here and give its path, or use {EMBEDDED!r}"
        ) from error
    return Checkpoint(_official_config(config), Path(path))


def _official_config(name: str) -> Path:
    return Path(str(resources.files("sam2") / name))


def _build(config_path: Path, image_size: int | None) -> SAM2Base:
    """Instantiate the architecture of a config file, with random weights."""
    try:
        config = OmegaConf.load(config_path).model
    except (OmegaConfBaseException, AttributeError) as error:
        raise ModelNotFound(f"{config_path} is not a SAM 2 config with the architecture under 'model': {error}") from error
    forbidden = _targets(config) - _ALLOWED_TARGETS
    if forbidden:
        raise ModelNotFound(f"{config_path} asks for {', '.join(sorted(forbidden))}, which is not a part of SAM 2")
    if image_size is not None:
        config.image_size = image_size
    return instantiate(config)


def _targets(node: Any) -> set[str]:
    """All callables that a config names."""
    if isinstance(node, ListConfig):
        return set().union(*map(_targets, node))
    if not isinstance(node, DictConfig):
        return set()
    own = {str(node["_target_"])} if "_target_" in node else set()
    return own.union(*map(_targets, node.values()))


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without executing code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise ModelNotFound(f"{path} cannot be read as weights ({error}). Is it complete? Fetch it again") from error
    return state.get("model", state)
