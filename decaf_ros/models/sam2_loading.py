"""From a model id to a SAM 2 network: the embedded one, a local folder or checkpoint, or an official one from the hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.model_files import EMBEDDED, local_path, require_file, require_memory, require_safe_torch, told_as
from decaf_ros.models.sam2_config import MOST_SIDE_PX, build, read_config
from decaf_ros.text import brief, quoted_path

_EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "sam2_1"
_CONFIG_NAME, _WEIGHTS_NAME = "config.yaml", "model.safetensors"
# Stride of the image encoder's coarsest level: the image size must be a multiple of it.
_COARSEST_STRIDE = 32


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
        image_size: side in pixels of the square that images are resized to, a multiple of 32, 4096 at most; the config's own by
            default. Smaller is faster and coarser: the official models are made for 1024.

    Raises:
        ModelNotFound: nothing usable behind ``model_id``; the message says what is missing and what to do.
        ValueError: ``image_size`` is not a positive multiple of 32, or above 4096.
    """
    if image_size is not None and not (0 < image_size <= MOST_SIDE_PX and image_size % _COARSEST_STRIDE == 0):
        raise ValueError(f"image_size must be a positive multiple of {_COARSEST_STRIDE} up to {MOST_SIDE_PX}, got {image_size}")
    require_safe_torch()
    checkpoint = locate(model_id)
    config = read_config(checkpoint.config)
    if image_size is not None:
        config["image_size"] = image_size
    model = build(config, checkpoint.config)
    weights = _read_weights(checkpoint.weights)
    with told_as(
        f"{quoted_path(checkpoint.weights)} does not hold the weights of {checkpoint.config.name}",
        "Use the config the weights were trained with; checkpoints converted for transformers do not fit",
    ):
        # Copies, in place of the parameters without memory: files may change while the node runs.
        model.load_state_dict({name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()}, assign=True)
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
    path = local_path(model_id)
    if path is not None:
        return _from_folder(path) if path.is_dir() else _from_file(path)
    if model_id in HF_MODEL_ID_TO_FILENAMES:
        return _from_hub(model_id)
    raise ModelNotFound(
        f"{quoted_path(model_id)} is neither a file or folder here nor a known SAM 2 model. Use {EMBEDDED!r}, "
        f"a folder with {_CONFIG_NAME} and {_WEIGHTS_NAME}, a checkpoint file of the official release, "
        f"or one of: {', '.join(HF_MODEL_ID_TO_FILENAMES)}"
    )


def _from_folder(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint(folder / _CONFIG_NAME, folder / _WEIGHTS_NAME)
    missing = [file.name for file in (checkpoint.config, checkpoint.weights) if not file.is_file()]
    if missing:
        raise ModelNotFound(
            f"{quoted_path(folder)} lacks {' and '.join(missing)}: a SAM 2 folder holds {_CONFIG_NAME} and {_WEIGHTS_NAME}"
        )
    return checkpoint


def _from_file(path: Path) -> Checkpoint:
    configs = {Path(weights).stem: config for config, weights in HF_MODEL_ID_TO_FILENAMES.values()}
    if path.stem not in configs:
        raise ModelNotFound(
            f"the name of {quoted_path(path)} does not tell its architecture. Name it like the official checkpoint of that "
            f"architecture ({', '.join(configs)}), or put it as {_WEIGHTS_NAME} beside a {_CONFIG_NAME} and give the folder"
        )
    return Checkpoint(_official_config(configs[path.stem]), path)


def _from_hub(model_id: str) -> Checkpoint:
    config, weights = HF_MODEL_ID_TO_FILENAMES[model_id]
    try:
        path = hf_hub_download(repo_id=model_id, filename=weights)
    except (OSError, HfHubHTTPError) as error:
        raise ModelNotFound(
            f"{model_id} is not in the local cache and could not be downloaded ({brief(error)}). Connect to the network once, "
            f"or copy {weights} here and give its path, or use {EMBEDDED!r}"
        ) from error
    return Checkpoint(_official_config(config), Path(path))


def _official_config(name: str) -> Path:
    return Path(str(resources.files("sam2") / name))


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without executing code, and without more memory than the file itself has."""
    with told_as(f"{quoted_path(path)} cannot be read as weights", "Is it complete? Fetch it again"):
        require_file(path)
        state = load_file(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
        size = sum(tensor.nbytes for tensor in state.values())
        if size > path.stat().st_size:
            raise ValueError(f"it has {path.stat().st_size} bytes, and is to hold {size} bytes of weights")
        require_memory(sum(tensor.numel() for tensor in state.values()), torch.float32)
        return state


def _read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a ``.pt`` file: tensors by name, alone or under ``model``."""
    with ZipFile(path) as archive:
        # torch itself stores everything as it is.
        if any(entry.compress_type != ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed; store it as torch.save does")
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and "model" in state:
        state = state["model"]
    if not (isinstance(state, dict) and all(isinstance(name, str) and _is_dense(state[name]) for name in state)):
        raise ValueError("it does not hold tensors by name, alone or under 'model'")
    return state


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
