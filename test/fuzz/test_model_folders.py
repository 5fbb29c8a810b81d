"""Folders of models, damaged in any way: what comes out is a refusal in one line, or a model, and nothing else happens."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

import decaf_ros.models.embedded
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_loading import load_sam2

EMBEDDED = Path(decaf_ros.models.embedded.__path__[0])
WEIGHTS = "model.safetensors"
MOST_MEMORY_KB = 1 << 20

sprung: list[Any] = []


def trap(*arguments: Any, **named: Any) -> None:
    """What a config may name, and nobody may call."""
    sprung.append((arguments, named))


_words = st.sampled_from(
    (
        "",
        "???",
        "${oc.env:HOME}",
        f"{__name__}.trap",
        "os.system",
        "torch.load",
        "sam2.modeling.memory_encoder.Fuser",
        "relu",
        "a\nb",
    )
)
_numbers = st.sampled_from((0, -1, 1, 2, 3, 63, 64, 10**6, 10**9, 2**63, 10**400, 0.5, -1e30, True))
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _words | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_words, inner, max_size=3)
        | st.fixed_dictionaries({"_target_": _words}, optional={"_args_": st.just([]), "_partial_": st.booleans()})
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested data."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(each, (*path, key))


def put(data: Any, place: tuple[Any, ...], value: Any) -> None:
    """Replace what stands in a place, if it still is there."""
    with suppress(IndexError, KeyError, TypeError):
        for key in place[:-1]:
            data = data[key]
        data[place[-1]] = value


@contextmanager
def refused_or_read() -> Iterator[None]:
    """Neither another error, nor gigabytes, nor a refusal that would break a line of the log."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal = ""
    try:
        yield
    except ModelNotFound as error:
        refusal = str(error)
    assert not refusal or refusal.isprintable()
    assert len(refusal) < 2000
    assert not sprung
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < MOST_MEMORY_KB


def fresh(tmp_path: Path, name: str) -> Path:
    """A new copy of an embedded model, whose weights are a link."""
    shutil.rmtree(tmp_path / name, ignore_errors=True)
    folder = Path(shutil.copytree(EMBEDDED / name, tmp_path / name, ignore=shutil.ignore_patterns(WEIGHTS)))
    (folder / WEIGHTS).symlink_to(EMBEDDED / name / WEIGHTS)
    return folder


def mutations(of: Any) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(st.sampled_from(sorted(places(of), key=str)), _values), min_size=1, max_size=3)


SAM2_CONFIG = yaml.safe_load((EMBEDDED / "sam2_1" / "config.yaml").read_text())
MLLM_FILES = {
    name: json.loads((EMBEDDED / "qwen2_5_vl" / name).read_text())
    for name in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
}


@examples(40)
@given(changes=mutations(SAM2_CONFIG), size=st.sampled_from((None, 64, 192)))
def test_any_sam2_config(tmp_path: Path, changes: list[Any], size: int | None) -> None:
    folder = fresh(tmp_path, "sam2_1")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for place, value in changes:
        put(config, place, value)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with refused_or_read():
        load_sam2(str(folder), size)


@examples(15)
@given(
    content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    name=st.sampled_from(("config.yaml", WEIGHTS)),
)
def test_any_bytes_in_a_sam2_folder(tmp_path: Path, content: bytes, name: str) -> None:
    folder = fresh(tmp_path, "sam2_1")
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    with refused_or_read():
        load_sam2(str(folder))


@examples(12)
@given(data=st.data(), name=st.sampled_from(sorted(MLLM_FILES)))
def test_any_file_of_a_language_model(tmp_path: Path, data: st.DataObject, name: str) -> None:
    folder = fresh(tmp_path, "qwen2_5_vl")
    content = json.loads((folder / name).read_text())
    for place, value in data.draw(mutations(MLLM_FILES[name])):
        put(content, place, value)
    (folder / name).write_text(json.dumps(content))
    with refused_or_read():
        load_mllm(str(folder))


@examples(15)
@given(start=st.integers(0, 3000), content=st.binary(min_size=1, max_size=40))
def test_any_damage_to_the_header_of_weights(tmp_path: Path, start: int, content: bytes) -> None:
    folder = fresh(tmp_path, "qwen2_5_vl")
    (folder / WEIGHTS).unlink()
    whole = (EMBEDDED / "qwen2_5_vl" / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:start] + content + whole[start + len(content) :])
    with refused_or_read():
        load_mllm(str(folder))
