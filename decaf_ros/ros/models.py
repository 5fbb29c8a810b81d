"""The node's two models: loaded by name, replaced while it runs, freed again, and the reason why one is missing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from decaf_ros.models.adapter import ChatAdapter
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.devices import give_memory_back, resolve_device, tracker_dtype
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import MaskTracker, VideoMllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.ros.parameters import Value, names_for, settings_for
from decaf_ros.text import brief, quoted_path, with_kind

# By the parameter that names a model: what its weights depend on, ...
_WEIGHT_PARAMETERS = {
    "mllm_model": ("mllm_model", "device", "dtype"),
    "tracker_model": (
        "tracker_model",
        "device",
        "dtype",
        "tracker_image_size",
        "compile_tracker",
        "memory_gating",
        "motion_gating",
    ),
}
# ... and all that it is made from. When one of these changes, it is made anew.
MODEL_PARAMETERS = {**_WEIGHT_PARAMETERS, "mllm_model": (*_WEIGHT_PARAMETERS["mllm_model"], *names_for(MllmOptions))}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model, ready for use.

    Attributes:
        model: a :class:`ChatAdapter` or a :class:`Sam2Tracker`.
        weights: values of the parameters that its weights depend on.
    """

    model: Any
    weights: tuple[Value, ...]


class Models:
    """Language model and mask model, each under the name of its parameter. Thread-safe.

    Loading takes minutes and cannot be stopped, hence a thread of its own: :meth:`interrupt` frees whoever waits for it.

    Attributes:
        turn: held by whoever loads or releases models, and what comes with it.
        loading: the parameter whose model is being loaded, and since when, by ``time.monotonic``; ``None`` for none.
    """

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self._loaded: dict[str, LoadedModel] = {}
        self._problems: dict[str, str] = {}
        self._interrupted = False
        self.loading: tuple[str, float] | None = None
        self._pending: Future[Any] = Future()

    @property
    def mllm(self) -> VideoMllm | None:
        """The language model, if there is one."""
        return self._model("mllm_model")

    @property
    def tracker(self) -> MaskTracker | None:
        """The mask model, if there is one."""
        return self._model("tracker_model")

    def _model(self, name: str) -> Any:
        loaded = self._loaded.get(name)
        return loaded.model if loaded is not None else None

    @property
    def problems(self) -> dict[str, str]:
        """By parameter, why a model is missing; empty when all is well, and when none was asked for."""
        return dict(self._problems)

    @property
    def problem(self) -> str:
        """All problems in one line; "" when all is well."""
        return "; ".join(f"{name}: {problem}" for name, problem in self.problems.items())

    def load_all(self, values: Mapping[str, Value]) -> None:
        """Load both models; what cannot be loaded is logged and noted as a problem."""
        with self.turn:
            self._problems = dict.fromkeys(MODEL_PARAMETERS, "it is still being loaded, try again in a moment")
            for name in MODEL_PARAMETERS:
                try:
                    self.adopt({name: self.load(name, values)})
                except ModelNotFound as error:
                    logger.error("%s: %s", name, error)
                    self._problems[name] = str(error)

    def load(self, name: str, values: Mapping[str, Value]) -> LoadedModel:
        """Load the model that a parameter names, without taking it into use. Weights that are in use already are shared.

        Args:
            name: of the parameter.
            values: all parameters.

        Raises:
            ModelNotFound: it cannot be had; the message says why.
        """
        with self.turn:
            weights = tuple(values[each] for each in _WEIGHT_PARAMETERS[name])
            in_use = self._loaded.get(name)
            if name == "mllm_model" and in_use is not None and in_use.weights == weights:
                return LoadedModel(_with_options(in_use.model, values), weights)
            try:
                return LoadedModel(self._load_interruptibly(name, values), weights)
            except ModelNotFound as error:
                # Its traceback holds what there was of the model.
                problem = str(error)
            give_memory_back()
            raise ModelNotFound(problem)

    def _load_interruptibly(self, name: str, values: Mapping[str, Value]) -> Any:
        """What :func:`_load` gives, on a thread that is left alone when nobody waits any more."""
        pending = self._pending = Future()
        if self._interrupted:
            raise ModelNotFound("given up: the node is shutting down")

        def work() -> None:
            with suppress(InvalidStateError):  # nobody waits any more
                try:
                    pending.set_result(_load(name, values))
                except BaseException as error:  # or who waits would wait for ever
                    pending.set_exception(error if isinstance(error, ModelNotFound) else ModelNotFound(with_kind(error)))

        threading.Thread(target=work, name="decaf-loader", daemon=True).start()
        self.loading = name, time.monotonic()
        try:
            return pending.result()
        finally:
            self.loading = None
            self._pending = Future()  # the other one holds the model, or what there was of it

    def adopt(self, loaded: Mapping[str, LoadedModel]) -> None:
        """Take models into use, by parameter."""
        for name, model in loaded.items():
            self._loaded[name] = model
            self._problems.pop(name, None)

    def release(self) -> None:
        """Forget both models and give their memory back."""
        self._loaded, self._problems = {}, {}
        give_memory_back()

    def interrupt(self) -> None:
        """Let nobody wait for a model any more, now or later: the node ends."""
        self._interrupted = True
        self.give_up_loading("the node is shutting down")

    def give_up_loading(self, reason: str) -> None:
        """Let who waits for a model wait no longer; what is being loaded is thrown away once it is there."""
        with suppress(InvalidStateError):
            self._pending.set_exception(ModelNotFound(f"given up: {reason}"))


def _with_options(mllm: ChatAdapter, values: Mapping[str, Value]) -> ChatAdapter:
    """The same weights, reading images as the parameters say."""
    try:
        return mllm.with_options(settings_for(MllmOptions, values))
    except ValueError as error:
        raise ModelNotFound(f"{quoted_path(str(values['mllm_model']))} cannot read images so: {error}") from error


def _load(name: str, values: Mapping[str, Value]) -> Any:
    model_id = quoted_path(str(values[name]))
    logger.info("loading %s %s", name, model_id)
    try:
        device, dtype = resolve_device(str(values["device"])), resolve_dtype(str(values["dtype"]))
        if name == "mllm_model":
            return load_mllm(str(values[name]), settings_for(MllmOptions, values), device, dtype)
        return Sam2Tracker.load(
            str(values[name]),
            device=device,
            dtype=dtype or tracker_dtype(device),
            image_size=int(values["tracker_image_size"]) or None,
            compile_encoder=bool(values["compile_tracker"]),
            memory_gating=bool(values["memory_gating"]),
            motion_gating=bool(values["motion_gating"]),
        )
    except ModelNotFound:
        raise
    except ValueError as error:  # a setting that this model or machine cannot have
        raise ModelNotFound(f"{model_id} cannot be loaded: {error}") from error
    except Exception as error:  # whatever a foreign file or a full GPU brings about, the node goes on
        logger.exception("%s %s", name, model_id)
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            way_out = "install a C++ compiler such as g++, or set compile_tracker to false"
            raise ModelNotFound(f"{model_id} cannot be compiled: {brief(error, 200)}; {way_out}") from error
        raise ModelNotFound(f"{model_id} cannot be loaded: {with_kind(error)}") from error


def resolve_dtype(name: str) -> torch.dtype | None:
    """The dtype of that name; ``None`` for "auto", which leaves the choice to the model's loader."""
    return None if name == "auto" else getattr(torch, name)
