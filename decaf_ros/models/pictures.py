"""Camera images as processors of models take them: resized, on the CPU by PIL, and on a GPU without a wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from PIL import Image

from decaf_ros.datatypes import Frame, UInt8Array
from decaf_ros.models.devices import on_device


def pictures(
    frames: Sequence[Frame], device: torch.device, size_hw: tuple[int, int] | None = None
) -> list[Image.Image] | list[torch.Tensor]:
    """The images of frames for a processor.

    Args:
        frames: of one size.
        device: of the model. For a GPU they are ``(3, H, W)`` uint8 tensors there, at most one level off from those of PIL.
        size_hw: height and width that they are to have; as they are without.
    """
    if device.type == "cpu":
        images = [Image.fromarray(frame.image_rgb) for frame in frames]
        return images if size_hw is None else [each.resize(size_hw[::-1], Image.Resampling.BICUBIC) for each in images]
    return [_on_gpu(frame.image_rgb, device, size_hw) for frame in frames]


def _on_gpu(image_rgb: UInt8Array, device: torch.device, size_hw: tuple[int, int] | None) -> torch.Tensor:
    image_hwc = on_device(torch.from_numpy(np.array(image_rgb)), device)
    if size_hw is None or size_hw == image_hwc.shape[:2]:
        return image_hwc.permute(2, 0, 1)
    return resized_by_torch(image_hwc, size_hw).to(torch.uint8)


def resized_by_torch(image_hwc: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """``(3, *size_hw)`` float32 of whole numbers in [0, 255] from ``(H, W, 3)`` uint8: what PIL makes of it, within 1."""
    image = image_hwc.permute(2, 0, 1)[None].float()
    # Across and then down, and between the two whole numbers again.
    for step_hw in ((len(image_hwc), size_hw[1]), size_hw):
        image = F.interpolate(image, step_hw, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return image[0]
