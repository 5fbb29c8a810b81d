"""The architecture of the embedded SAM 2.1, as its config in the package says, and its weights as they are shipped."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.outputs import OutputFolder

SHIPPED = Path(__file__).parents[2] / "decaf_ros" / "models" / "embedded" / "sam2_1"


def build_sam2(config: Path = SHIPPED / "config.yaml", image_size: int | None = None) -> SAM2Base:
    """A model with fresh weights, at the image size of its config or at another one."""
    model_config = OmegaConf.load(config).model
    if image_size is not None:
        model_config.image_size = image_size
    return instantiate(model_config)


def export(model: SAM2Base, path: Path) -> None:
    """Write the weights as float16 safetensors."""
    with OutputFolder(path.parent).file(path.name) as file:
        file.write(save({name: value.half().contiguous() for name, value in model.state_dict().items()}))
