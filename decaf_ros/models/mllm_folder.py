"""A language model's folder, looked through before transformers reads it: the files, what they say, and that they can be true.

transformers builds what ``config.json`` describes, fills with random numbers what the weights lack, and follows names to other
files, other repositories, and code that is not part of it. Here a folder is complete in itself, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from decaf_ros.models.model_files import read_text, require_file
from decaf_ros.strict_json import from_json
from decaf_ros.text import brief, quoted

# Files that transformers may read beside the weights, and their bytes at most. Published tokenizers have 7 to 35 MB.
_MOST_BYTES = {
    "config.json": 1 << 20,
    "generation_config.json": 1 << 20,
    "processor_config.json": 1 << 20,
    "preprocessor_config.json": 1 << 20,
    "video_preprocessor_config.json": 1 << 20,
    "tokenizer.json": 64 << 20,
    "tokenizer_config.json": 4 << 20,
    "special_tokens_map.json": 1 << 20,
    "added_tokens.json": 1 << 20,
    "chat_template.json": 1 << 20,
    "chat_template.jinja": 1 << 20,
    "vocab.json": 32 << 20,
    "merges.txt": 32 << 20,
}
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_INDEX_BYTES = 16 << 20
# Names in config.json that lead away from the folder: to code that comes with a model or is fetched for it, to other weights.
_LEADS_AWAY = frozenset(
    (
        *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
        *("auto_map", "kernel_config", "transformers_weights", "use_kernels"),
    )
)
# The largest numbers in config.json that cost memory or time before the weights could contradict, or that they say nothing of.
_LIMITS = {"num_hidden_layers": 512, "depth": 512, "window_size": 4096, "image_grid_pinpoints": 4096}
_MOST_LEVELS, _MOST_ENTRIES = 16, 1024


def read_config(path: Path) -> dict[str, Any]:
    """What a ``config.json`` says, its ``model_type`` at least, without what leads away from its folder.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, names no family, or describes what cannot be read.
    """
    config = _read_json(path, _MOST_BYTES[path.name])
    if not isinstance(config.get("model_type"), str):
        raise ValueError(f"{path.name} does not name the family of a model in model_type")
    _require_sensible(config, path.name, _MOST_LEVELS)
    return _without_leads(config)


def look_through(folder: Path) -> int:
    """Look through all files of a folder but ``config.json``.

    Returns:
        How many numbers its weights hold.

    Raises:
        OSError: a file cannot be read.
        ValueError: something is missing, too large, or leads out of the folder; the message says what.
    """
    for name, most_bytes in _MOST_BYTES.items():
        if name == "tokenizer.json" or (folder / name).exists() or (folder / name).is_symlink():
            require_file(folder / name, most_bytes)
            if name.endswith(".json") and name != "tokenizer.json":
                _read_json(folder / name, most_bytes)
    for name in ("adapter_config.json", "additional_chat_templates"):
        if (folder / name).exists() or (folder / name).is_symlink():
            raise ValueError(f"{name} belongs to more than this one model; take a folder without it")
    return sum(_parameters(path) for path in _weights(folder))


def _read_json(path: Path, most_bytes: int) -> dict[str, Any]:
    text = read_text(path, most_bytes)
    try:
        found = from_json(text)
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged: {brief(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is damaged: it holds no JSON object")
    return found


def _require_sensible(value: Any, name: str, levels: int) -> None:
    """Raise ``ValueError`` where a config is nested too deeply, too long, quantized, or beyond a limit."""
    if isinstance(value, (dict, list)) and (not levels or len(value) > _MOST_ENTRIES):
        raise ValueError(f"{brief(name, 40)} has too many {'entries' if levels else 'levels'}")
    if isinstance(value, list):
        for each in value:
            _require_sensible(each, name, levels - 1)
    elif isinstance(value, dict):
        if "quantization_config" in value:
            raise ValueError("its weights are quantized, which is not supported; take the original model")
        for key, each in value.items():
            _require_sensible(each, key, levels - 1)
    elif name in _LIMITS and not (value is None or (isinstance(value, int) and 0 <= value <= _LIMITS[name])):
        raise ValueError(f"{name} is {brief(value, 40)}, and must be a number up to {_LIMITS[name]}")


def _without_leads(config: Any) -> Any:
    """The same without what leads away from the folder, at any depth."""
    if isinstance(config, dict):
        return {name: _without_leads(each) for name, each in config.items() if name not in _LEADS_AWAY}
    if isinstance(config, list):
        return [_without_leads(each) for each in config]
    return config


def _weights(folder: Path) -> Sequence[Path]:
    """The files of the weights, each in the folder itself."""
    if (folder / _WEIGHTS).exists():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).exists():
        raise ValueError(f"{_WEIGHTS} or {_INDEX} is missing")
    shards = _read_json(folder / _INDEX, _MOST_INDEX_BYTES).get("weight_map")
    names = list(shards.values()) if isinstance(shards, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{_INDEX} names no files of weights in weight_map")
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{_INDEX} names {quoted(name)}, which is no .safetensors file of this folder")
    return [folder / name for name in sorted(set(names))]


def _parameters(path: Path) -> int:
    """Numbers in a file of weights, as its header has it; the library holds that against the file's size."""
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{quoted(path.name)} cannot be read as weights: {brief(error)}") from error
