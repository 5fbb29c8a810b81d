"""From a model id to a video MLLM: the embedded one, a local folder, or one from the hub."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import enable_progress_bars
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig, ProcessorMixin
from transformers.utils import logging as transformers_logging

from decaf_ros.models.adapter import ChatAdapter
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.visual_prefix import MllmOptions

EMBEDDED = "embedded"

_EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "qwen2_5_vl"
# Model type in the configuration file, and the adapter that drives it. A new family is one file and one line here.
_FAMILIES = {
    "qwen2_vl": "decaf_ros.models.qwen2_vl:Qwen2Vl",
    "qwen2_5_vl": "decaf_ros.models.qwen2_5_vl:Qwen25Vl",
    "qwen3_vl": "decaf_ros.models.qwen3_vl:Qwen3Vl",
    "internvl": "decaf_ros.models.internvl3:InternVl3",
    "llava_onevision": "decaf_ros.models.llava_onevision:LlavaOnevision",
}


def load_mllm(
    model_id: str,
    options: MllmOptions | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> ChatAdapter:
    """Load a video MLLM with its processor. Weights are read from safetensors only, and no code that comes with them is run.

    Args:
        model_id: ``embedded``, a folder in the format of transformers, or a hub id such as ``Qwen/Qwen2.5-VL-7B-Instruct``.
        options: how it reads images and answers.
        device: where it runs.
        dtype: of the weights; by default float32 on a CPU and bfloat16 elsewhere.

    Raises:
        ModelNotFound: nothing usable behind ``model_id``; the message says what is missing and what to do.
        ValueError: options that do not suit the model.
    """
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    adapter, model, processor = _read(model_id, dtype)
    return adapter(model.to(device=device), processor, options)


def _read(model_id: str, dtype: torch.dtype) -> tuple[type, torch.nn.Module, ProcessorMixin]:
    source = str(_EMBEDDED_FOLDER) if model_id == EMBEDDED else str(Path(model_id).expanduser())
    try:
        adapter = _adapter(model_id, _model_type(source))
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        with _no_loading_bar():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                source, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        model, loading = loaded
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelNotFound(f"{_cause(model_id, source)} ({error}). {_way_out()}") from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelNotFound(f"the weights of {model_id!r} are incomplete: {missing}, ... are missing. Fetch them again")
    return adapter, model, processor


@contextmanager
def _no_loading_bar() -> Iterator[None]:
    """Without transformers' bar over the weights, some seconds; downloads, which can take an hour, keep theirs."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    if shown:
        enable_progress_bars()  # the hub's, which went with it
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _model_type(source: str) -> str:
    """The family of a model. Asked for more than this, transformers would offer to run code that comes with one unknown."""
    config, _ = PreTrainedConfig.get_config_dict(source)
    if "model_type" not in config:
        raise ValueError("config.json, which names the family of a model in model_type, is missing or holds no such name")
    return config["model_type"]


def _adapter(model_id: str, model_type: str) -> type:
    if model_type not in _FAMILIES:
        raise ModelNotFound(f"{model_id!r} is of the family {model_type!r}; supported are: {', '.join(sorted(_FAMILIES))}")
    module, name = _FAMILIES[model_type].split(":")
    return getattr(importlib.import_module(module), name)


def _cause(model_id: str, source: str) -> str:
    if model_id == EMBEDDED:
        return f"the embedded model in {source} is missing or damaged; install the package again"
    if Path(source).is_dir():
        return f"{source} does not hold a complete model"
    return f"{model_id!r} is no folder here, and is neither in the local cache nor to be had from the hub"


def _way_out() -> str:
    return (
        f"Use {EMBEDDED!r}, a folder with config.json, *.safetensors and the processor's files, "
        "or a hub id such as 'Qwen/Qwen2.5-VL-7B-Instruct' with the network up once; HF_HOME says where downloads are kept"
    )
