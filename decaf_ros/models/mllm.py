"""From a model id to a video MLLM: the embedded one, a local folder, or one from the hub."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.utils import enable_progress_bars
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.adapter import ChatAdapter
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.devices import mllm_dtype
from decaf_ros.models.errors import OptionsError
from decaf_ros.models.mllm_folder import look_through, read_config
from decaf_ros.models.model_files import EMBEDDED, local_path, require_memory, require_safe_torch, told_as
from decaf_ros.models.tokenizers import require_bounded
from decaf_ros.text import quoted, quoted_path

_EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "qwen2_5_vl"
# What of a repository is downloaded: the files beside each other, not those in folders, and weights of one format.
_HUB_FILES, _NO_HUB_FILES = ("*.json", "*.jinja", "merges.txt", "*.safetensors"), ("*/*",)
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
        dtype: of the weights; by default what :func:`~decaf_ros.models.devices.mllm_dtype` says.

    Raises:
        ModelNotFound: nothing usable behind ``model_id``; the message says what is missing and what to do.
        OptionsError: options that do not suit the model.
    """
    device = torch.device(device)
    dtype = dtype or mllm_dtype(device)
    require_safe_torch()
    folder = _folder(model_id)
    with told_as(_cause(model_id, folder), _WAY_OUT):
        adapter, model, processor = _read(folder, dtype)
    with told_as(f"{quoted_path(model_id)} cannot run on {device}", "Take a smaller model, or another device"):
        model.to(device=device)  # type: ignore[call-arg]
    with told_as(_cause(model_id, folder), _WAY_OUT):
        mllm = adapter(model, processor, options)
        _try_out(mllm, options or MllmOptions())
        return mllm


def _try_out(mllm: ChatAdapter, options: MllmOptions) -> None:
    """Ask about a blank video on both paths, so that files which do not fit together show it now, not when somebody asks."""
    short = replace(options, multi_scale=False, max_new_tokens=1)
    try:
        mllm = mllm.with_options(replace(short, video_tokens=4, frame_tokens=4))
    except OptionsError:  # its images are of one size
        mllm = mllm.with_options(short)
    image_rgb = np.zeros((48, 64, 3), np.uint8)
    window = FrameWindow(tuple(Frame(stamp_ns, "", image_rgb) for stamp_ns in (1, 500_000_001)))
    for prefix in (mllm.read_video(window), mllm.read_frames(window)):
        prefix.ask("What is it?")


def _folder(model_id: str) -> Path:
    """The folder of a model, downloaded if need be, of a family that is supported."""
    if model_id == EMBEDDED:
        return _EMBEDDED_FOLDER
    path = local_path(model_id)
    if path is not None:
        return path
    missing = f"{quoted_path(model_id)} is no folder here, and is neither in the local cache nor to be had from the hub"
    with told_as(missing, _WAY_OUT):
        config = Path(hf_hub_download(model_id, "config.json"))
    with told_as(_cause(model_id, config.parent), _WAY_OUT):
        _adapter(read_config(config)["model_type"])  # weights of gigabytes only once it is known that they are of use
    with told_as(missing, _WAY_OUT):
        return Path(snapshot_download(model_id, allow_patterns=list(_HUB_FILES), ignore_patterns=list(_NO_HUB_FILES)))


def _read(folder: Path, dtype: torch.dtype) -> tuple[type, PreTrainedModel, ProcessorMixin]:
    """Adapter, model and processor of a folder, of which nothing is used that was not looked at."""
    described = read_config(folder / "config.json")
    adapter = _adapter(described["model_type"])
    parameters = look_through(folder)
    config = AutoConfig.for_model(**described)
    _require_whole(config, parameters, dtype)
    processor = getattr(transformers, PROCESSOR_MAPPING_NAMES[described["model_type"]]).from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    require_bounded(processor.tokenizer, config.get_text_config().vocab_size)
    with _no_loading_bar():
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    model, loading = loaded
    if loading["missing_keys"]:
        missing = ", ".join(quoted(name) for name in sorted(loading["missing_keys"])[:3])
        raise ValueError(f"its weights are incomplete: {missing}, ... are missing; fetch them again")
    return adapter, model, processor


def _require_whole(config: PreTrainedConfig, parameters: int, dtype: torch.dtype) -> None:
    """Refuse weights that are fewer than a config asks for, before memory is taken for what they lack."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    needed = sum(parameter.numel() for parameter in model.parameters())
    if needed > parameters:
        raise ValueError(f"config.json describes a model of {needed} parameters, and the weights hold {parameters}")
    require_memory(needed, dtype)


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


def _adapter(family: str) -> type:
    if family not in _FAMILIES:
        raise ValueError(f"it is of the family {quoted(family)}; supported are: {', '.join(sorted(_FAMILIES))}")
    module, name = _FAMILIES[family].split(":")
    return getattr(importlib.import_module(module), name)


def _cause(model_id: str, folder: Path) -> str:
    if model_id == EMBEDDED:
        return f"the embedded model in {folder} is missing or damaged; install the package again"
    return f"{quoted_path(folder)} does not hold a complete model"


_WAY_OUT = (
    f"Use {EMBEDDED!r}, a folder with config.json, *.safetensors and the processor's files, "
    "or a hub id such as 'Qwen/Qwen2.5-VL-7B-Instruct' with the network up once; HF_HOME says where downloads are kept"
)
