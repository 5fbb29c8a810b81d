"""The node's two models: loaded by name, replaced while it runs, and the reason why one is missing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import torch

from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import MaskTracker, VideoMllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.models.visual_prefix import MllmOptions
from decaf_ros.ros.parameters import Value, settings_for

MODEL_PARAMETERS = ("mllm_model", "tracker_model")

logger = logging.getLogger(__name__)


class Models:
    """Language model and mask model, each under the name of its parameter. Thread-safe; loading is done one at a time."""

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._loaded: dict[str, Any] = {}
        self._problems = dict.fromkeys(MODEL_PARAMETERS, "it is still being loaded, try again in a moment")

    @property
    def mllm(self) -> VideoMllm | None:
        """The language model, if there is one."""
        return self._loaded.get("mllm_model")

    @property
    def tracker(self) -> MaskTracker | None:
        """The mask model, if there is one."""
        return self._loaded.get("tracker_model")

    @property
    def problems(self) -> dict[str, str]:
        """By parameter, why a model is missing; empty when all is well."""
        return dict(self._problems)

    @property
    def problem(self) -> str:
        """All problems in one line; "" when all is well."""
        return "; ".join(f"{name}: {problem}" for name, problem in self.problems.items())

    def load_all(self, values: Mapping[str, Value]) -> None:
        """Load both models; what cannot be loaded is logged and noted as a problem."""
        for name in MODEL_PARAMETERS:
            try:
                self.adopt({name: self.load(name, values)})
            except ModelNotFound as error:
                logger.error("%s: %s", name, error)
                self._problems[name] = str(error)

    def load(self, name: str, values: Mapping[str, Value]) -> Any:
        """Load the model that a parameter names, without taking it into use.

        Args:
            name: of the parameter.
            values: all parameters.

        Raises:
            ModelNotFound: it cannot be had; the message says why.
        """
        with self._loading:
            logger.info("loading %s %s", name, values[name])
            try:
                device, dtype = resolve_device(str(values["device"])), resolve_dtype(str(values["dtype"]))
                if name == "mllm_model":
                    return load_mllm(str(values[name]), settings_for(MllmOptions, values), device, dtype)
                return Sam2Tracker.load(str(values[name]), device=device, dtype=dtype or _default_dtype(device))
            except ModelNotFound:
                raise
            except Exception as error:  # whatever a foreign file or a full GPU brings about, the node goes on
                logger.exception("%s %s", name, values[name])
                raise ModelNotFound(f"{values[name]!r} cannot be loaded: {type(error).__name__}: {error}") from error

    def adopt(self, loaded: Mapping[str, Any]) -> None:
        """Take models into use, by parameter."""
        for name, model in loaded.items():
            self._loaded[name] = model
            self._problems.pop(name, None)


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def resolve_dtype(name: str) -> torch.dtype | None:
    """The dtype of that name; ``None`` for "auto", which leaves the choice to the model's loader."""
    return None if name == "auto" else getattr(torch, name)


def _default_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16
