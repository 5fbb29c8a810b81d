"""Where models run."""

from __future__ import annotations

import torch

from decaf_ros.text import quoted

_TYPES = ("cpu", "cuda")


def resolve_device(name: str) -> torch.device:
    """The device of that name, such as "cpu", "cuda" or "cuda:1"; "auto" is the GPU if there is one.

    Raises:
        ValueError: no such device on this machine, or none that the models run on.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {quoted(name)} is none that torch knows: use auto, cpu, cuda or cuda:1") from error
    if device.type not in _TYPES:
        raise ValueError(f"device {quoted(name)} is none that the models run on: use auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {quoted(name)} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    return device
