"""From a SAM 2 config of any origin to a network: what is read is plain data, and only parts of SAM 2 are built from it.

sam2's own configs are for hydra, which calls whatever a config names, resolves expressions that read files and the environment,
and builds each part with all its memory. Here a config is data alone: the parts that it may name are listed, with limits for
what would cost memory and time, and the parameters take no memory until the weights take their place.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from sam2.modeling.sam2_base import SAM2Base
from torch.overrides import TorchFunctionMode

from decaf_ros.models.model_files import read_text, told_as
from decaf_ros.text import brief, quoted, quoted_path

MOST_SIDE_PX = 4096  # of the image

_NETWORK = "sam2.modeling.sam2_base.SAM2Base"
_PARTS = frozenset(
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
# What a part would read from another file, or do beside being a network.
_FORBIDDEN_ARGUMENTS = {
    "weights_path": "weights are read from the file beside the config only",
    "compile_image_encoder": "use the option to compile the tracker instead",
}
# The largest numbers, by argument, where the weights do not tell them and memory or time would suffer; ...
_LIMITS = {
    "d_model": 1024,
    "embed_dim": 1024,
    "embedding_dim": 1024,
    "feat_sizes": MOST_SIDE_PX // 16,
    "image_size": MOST_SIDE_PX,
    "kernel_size": 64,
    "max_obj_ptrs_in_encoder": 64,
    "num_layers": 64,
    "num_maskmem": 64,
    "num_pos_feats": 1024,
    "padding": 64,
    "stages": 64,
    "window_spec": 32,
}
# ... of all others; ...
_MOST = 65536
# ... and of the file. The published configs have 4 kB, and nothing in them is nested as deeply.
_MOST_BYTES = 1 << 16
_MOST_ENTRIES = 64
_MOST_LEVELS = 16
# Of all tables of positions, which no weights contradict: twice what the published networks have at the largest image.
_MOST_TABLE_BYTES = 2 << 30

_Plain = Any  # dicts with names as keys, lists, text, numbers, truth values and None


def read_config(path: Path) -> dict[str, _Plain]:
    """The architecture that a config holds under ``model``, as plain data.

    Raises:
        ModelNotFound: it is no such config; the message says what is wrong with it.
    """
    problem = f"{quoted_path(path)} is not a SAM 2 config with the architecture under 'model'"
    with told_as(problem, "Use the config the weights were trained with"):
        config = yaml.load(read_text(path, _MOST_BYTES), _PlainLoader)
        model = config.get("model") if isinstance(config, dict) else None
        if not isinstance(model, dict):
            raise ValueError("nothing is there")
        _require_plain(model, "model", _MOST_LEVELS)
        return model


def build(config: Mapping[str, _Plain], path: Path) -> SAM2Base:
    """The network of a config, whose parameters wait for the weights on torch's ``meta`` device.

    Args:
        config: plain data as :func:`read_config` gives it.
        path: where it is from, for the message.

    Raises:
        ModelNotFound: it asks for what is no part of SAM 2, or its parts do not fit together.
    """
    problem = f"{quoted_path(path)} does not describe a SAM 2 network"
    with told_as(problem, "Use the config the weights were trained with"):
        if config.get("_target_") != _NETWORK:
            raise ValueError(f"model asks for {_named(config.get('_target_'))}, and must ask for {_NETWORK}")
        with _ParametersWithoutMemory():
            return _built(config, "model")


class _PlainLoader(yaml.SafeLoader):
    """YAML as sam2's configs have it, without aliases: a few of them stand for any amount of data."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it uses aliases ({self.peek_event().start_mark}); write what they stand for")
        return super().compose_node(parent, index)


# 1e-6 is a number: PyYAML follows a version of YAML to which it is a text.
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _ParametersWithoutMemory(TorchFunctionMode):
    """Tensors that modules fill at random or with constants are made without memory; small tables are computed on the CPU.

    sam2 makes some on the first GPU, wherever the network is to run.

    Raises:
        ValueError: the tables are not small together, steps on the way and copies for each layer included.
    """

    _factories = frozenset((torch.empty, torch.ones, torch.randn, torch.zeros))
    _table_bytes = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._factories:
            kwargs["device"] = "meta"
        elif kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        elif func is torch.Tensor.to and args[1:] == ("cuda",):
            return args[0]
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and not result.is_meta:
            self._table_bytes += result.nbytes
            if self._table_bytes > _MOST_TABLE_BYTES:
                raise ValueError(f"its tables of positions need more than {_MOST_TABLE_BYTES >> 30} GB of memory")
        return result


def _require_plain(value: _Plain, where: str, levels: int, name: str = "") -> None:
    """Refuse what is not plain data within the limits.

    Args:
        value: to look at.
        where: it stands, for the message.
        levels: how deeply it may be nested.
        name: of the argument that it is, or is in a list of.

    Raises:
        ValueError: so it is.
    """
    if isinstance(value, (dict, list)) and (not levels or len(value) > _MOST_ENTRIES):
        raise ValueError(f"{where} is nested too deeply" if not levels else f"{where} has {len(value)} entries")
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {_named(key)}, which is no name")
            _require_plain(each, f"{where}.{brief(key, 40)}", levels - 1, key)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _require_plain(each, f"{where}[{index}]", levels - 1, name)
    elif isinstance(value, str):
        if value == "???":
            raise ValueError(f"{where} is missing: ??? stands for what has to be filled in")
        if "${" in value:
            raise ValueError(f"{where} is the expression {quoted(value)}; write what it stands for")
    elif isinstance(value, (int, float)):
        most = _LIMITS.get(name, _MOST)
        if not -most <= value <= most:
            raise ValueError(f"{where} is {brief(value, 40)}, and no more than {most} is sensible")
    elif value is not None:
        raise ValueError(f"{where} is a {type(value).__name__}, and must be a text, a number, true, false or null")


def _built(node: _Plain, where: str) -> Any:
    """What plain data stands for: a part of SAM 2 where it names one, with its arguments, which may be parts again.

    Raises:
        ValueError: it names something else, or an argument that the part has not.
    """
    if isinstance(node, list):
        return [_built(each, f"{where}[{index}]") for index, each in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    arguments = {name: _built(each, f"{where}.{brief(name, 40)}") for name, each in node.items() if name != "_target_"}
    if "_target_" not in node:
        return arguments
    part = _part(node["_target_"], where)
    for name, value in arguments.items():
        if name in _FORBIDDEN_ARGUMENTS and value:
            raise ValueError(f"{where}.{name} is set; {_FORBIDDEN_ARGUMENTS[name]}")
        if name not in _arguments_of(part):
            raise ValueError(f"{where} has {quoted(name)}, which is no argument of {part.__name__}")
    return part(**arguments)


def _part(target: _Plain, where: str) -> type:
    if not isinstance(target, str) or target not in _PARTS:
        raise ValueError(f"{where} asks for {_named(target)}, which is not a part of SAM 2")
    module, name = target.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _arguments_of(part: type) -> frozenset[str]:
    """Names of all arguments, those included that a class hands on to the one that it derives from."""
    named: set[str] = set()
    for each in part.__mro__:
        if each is torch.nn.Module:
            break
        named.update(
            parameter.name
            for parameter in inspect.signature(vars(each).get("__init__", object.__init__)).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )
    return frozenset(named - {"self"})


def _named(foreign: object) -> str:
    return quoted(foreign) if isinstance(foreign, str) else brief(foreign, 80)
