"""Loading a language model by id: what is refused, and that the message names the cause and the way out."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

import decaf_ros.models.embedded
from decaf_ros.models.adapter import common_tokens
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.errors import ModelNotFound, OptionsError
from decaf_ros.models.mllm import load_mllm


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelNotFound, match=r"does not hold a complete model.*Use 'embedded'"):
        load_mllm(str(tmp_path))


def test_a_family_that_is_not_supported(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(
        ModelNotFound, match="family 'gpt2'; supported are: internvl, llava_onevision, qwen2_5_vl, qwen2_vl, qwen3_vl"
    ):
        load_mllm(str(tmp_path))


def test_code_that_comes_with_a_model_is_not_run_whatever_is_answered(tmp_path, monkeypatch):
    """transformers asks on the terminal before it runs such code."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "internvl_chat", "auto_map": {"AutoConfig": "configuration_x.ConfigX"}})
    )
    (tmp_path / "configuration_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass ConfigX: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelNotFound, match="family 'internvl_chat'; supported are"):
        load_mllm(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_hub_id_without_a_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match=r"'nobody/nothing' is no folder here.*hub"):
        load_mllm("nobody/nothing")


def test_a_model_of_the_hub_that_is_there_and_not_supported_is_not_said_to_be_missing(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    monkeypatch.setattr("decaf_ros.models.mllm.hf_hub_download", lambda _, name: str(tmp_path / name))
    with pytest.raises(ModelNotFound, match=r"does not hold a complete model.*family 'gpt2'; supported are"):
        load_mllm("somebody/something")


def test_loading_draws_no_bar_and_leaves_the_setting_as_it_was(capfd):
    assert transformers_logging.is_progress_bar_enabled()
    load_mllm("embedded")
    assert "Loading weights" not in capfd.readouterr().err
    assert transformers_logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()  # downloads


@pytest.mark.parametrize("wrong", [{"video_tokens": 0}, {"max_new_tokens": 0}, {"rollout": "mean"}])
def test_options_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MllmOptions(**wrong)


def test_conversations_of_different_layouts_make_no_batch():
    same = torch.tensor([[False, True, True], [False, True, True]])
    assert common_tokens(same).tolist() == [1, 2]
    with pytest.raises(AssertionError, match="one layout"):
        common_tokens(torch.tensor([[False, True, True], [True, True, False]]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of its own with the embedded model."""
    shutil.copytree(Path(decaf_ros.models.embedded.__path__[0]) / "qwen2_5_vl", tmp_path / "model")
    return tmp_path / "model"


def changed(name: str, **changes: Any) -> Callable[[Path], None]:
    """Damage: entries of a JSON file, nested ones by dicts."""

    def merge(into: dict[str, Any], new: dict[str, Any]) -> None:
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        merge(content, changes)
        (folder / name).write_text(json.dumps(content))

    return damage


def text(**changes: Any) -> Callable[[Path], None]:
    return changed("config.json", text_config=changes)


def vision(**changes: Any) -> Callable[[Path], None]:
    return changed("config.json", vision_config=changes)


def tokenizer(**changes: Any) -> Callable[[Path], None]:
    return changed("tokenizer.json", **changes)


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def linked(name: str, target: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def piped(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def sharded(shard: str) -> Callable[[Path], None]:
    """The weights, put beside the folder, under a name that the index gives."""

    def damage(folder: Path) -> None:
        names = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
        index = {"weight_map": dict.fromkeys(names, shard.format(parent=folder.parent))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def _steps(kind: str, count: int, **arguments: Any) -> dict[str, Any]:
    nested = "normalizers" if kind in ("Replace", "Prepend") else "pretokenizers"
    return {"type": "Sequence", nested: [{"type": kind, **arguments}] * count}


def splitting(pattern: str) -> dict[str, Any]:
    return _steps("Split", 1, pattern={"Regex": pattern}, behavior="Isolated", invert=False)


BYTE_LEVEL = {"add_prefix_space": True, "trim_offsets": True, "use_regex": False}
LONG = {"pattern": {"String": "a"}, "content": "a" * 1000}


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (text(hidden_size=10**9), r"of \d+ parameters, and the weights hold \d+\)"),
        (text(vocab_size=10**9), r"of \d+ parameters, and the weights hold \d+\)"),
        (text(num_hidden_layers=10**6), "num_hidden_layers is 1000000"),
        (vision(depth=10**6), "depth is 1000000"),
        (vision(window_size=10**9), "window_size is 1000000000"),
        (vision(patch_size=10**400), "hold|Overflow|unpack"),
        (text(hidden_act="os.system"), r"KeyError: 'os\.system'"),
        (text(hidden_size="128"), "hidden_size"),
        (text(vocab_size=100), r"parameters|tokens up to number \d+, and the network knows 100"),
        (text(quantization_config={"quant_method": "gptq"}), "quantized"),
        (changed("config.json", image_token_id=10**9), "do not match"),
        (written("config.json", b"[" * 10_000), "nested too deeply"),
        (written("config.json", b'{"model_type": "qwen2_5_vl", "a": ' + b"[" * 500 + b"]" * 500 + b"}"), "too many levels"),
        (written("config.json", b'{"model_type": "qwen2_5_vl", "a": NaN}'), "NaN is not a number"),
        (written("config.json", '{"model_type": "qwen2_5_vl"}'.encode("utf-16")), "no text in UTF-8"),
        (written("config.json", b"[]"), "no JSON object"),
        (written("config.json", b" " * (1 << 20) + b"{}"), "config.json has 1048578 bytes"),
        (written("tokenizer.json", b"\0" * (1 << 26) + b"\0"), "tokenizer.json has 67108865 bytes"),
        (written("tokenizer.json", b"{}"), "added_tokens"),
        (written("adapter_config.json", b"{}"), "adapter_config.json belongs to more"),
        (sharded("../elsewhere.safetensors"), r"names '\.\./elsewhere\.safetensors', which is no"),
        (sharded("{parent}/elsewhere.safetensors"), "which is no .safetensors file of this folder"),
        (sharded("pytorch_model.bin"), "which is no .safetensors file of this folder"),
        (sharded("missing.safetensors"), "missing.safetensors is missing"),
        (written("model.safetensors", struct.pack("<Q", 2**62) + b"{}"), "header too large"),
        (written("model.safetensors", struct.pack("<Q", 2) + b"{}"), "the weights hold 0"),
        (written("model.safetensors", b""), "header too small"),
        (piped("config.json"), "config.json is no file"),
        (piped("model.safetensors"), "model.safetensors is no file"),
        (linked("generation_config.json", "/dev/zero"), "generation_config.json is no file"),
        (linked("vocab.json", "vocab.json"), "vocab.json is no file"),
        (changed("generation_config.json", eos_token_id="end"), "TypeError"),
        (changed("generation_config.json", repetition_penalty=-1), "penalty"),
        (changed("processor_config.json", image_processor={"patch_size": 10**6}), "patch_size 1000000, and the network"),
        (changed("processor_config.json", video_processor={"temporal_patch_size": 10**6}), "temporal_patch_size 1000000"),
        (changed("processor_config.json", image_processor={"crop_size": {"height": 10**6, "width": 8}}), "crop_size"),
        (tokenizer(normalizer=_steps("Replace", 3, **LONG)), "normalizer of its tokenizer writes 'aaaa"),
        (tokenizer(normalizer=_steps("Prepend", 17, prepend="a")), "has 17 steps"),
        (tokenizer(decoder={"type": "Replace", **LONG}), "decoder of its tokenizer writes 'aaaa"),
        (tokenizer(pre_tokenizer=_steps("ByteLevel", 12, **BYTE_LEVEL)), "12 steps 'ByteLevel'"),
        (tokenizer(pre_tokenizer=splitting("(a|a|aa)+$")), "may take for ever"),
        (tokenizer(pre_tokenizer=splitting(r"(a|a|aa|\\)+$")), "may take for ever"),
        (tokenizer(pre_tokenizer=splitting("(?x)(a|a|aa) +$")), "may take for ever"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "without a chat template"),
        (written("chat_template.jinja", b"{{ 'x' * 10**10 }}"), "more than 256 MB of memory"),
        (written("chat_template.jinja", b"{{ messages[0].content[-1].text }}"), "does not put a video before the text"),
    ],
)
def test_a_folder_that_is_damaged_or_does_harm_is_refused_with_the_reason(folder, damage, cause):
    damage(folder)
    with pytest.raises(ModelNotFound, match=rf"does not hold a complete model.*({cause}).*Use 'embedded'") as refused:
        load_mllm(str(folder))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "damage",
    [
        changed("config.json", attn_implementation="kernels-community/anything"),
        changed("config.json", _attn_implementation="nobody/anything", vision_config={"attn_implementation": "nobody/else"}),
        changed("config.json", transformers_weights="/dev/null", auto_map={"AutoConfig": "x.Y"}),
        changed("processor_config.json", auto_map={"AutoProcessor": "x.Y"}, processor_class="os.system"),
        changed("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}, tokenizer_class="os.system"),
    ],
)
def test_what_leads_away_from_a_folder_is_not_followed(folder, damage, monkeypatch):
    """transformers would fetch kernels, code for the GPU, from the repository that a config names."""
    damage(folder)
    (folder / "x.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Y: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    loaded = load_mllm(str(folder))._chat.model.state_dict()
    expected = load_mllm("embedded")._chat.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    assert not (folder / "ran").exists()


def test_a_folder_of_links_is_a_folder_as_in_the_cache_of_the_hub(folder, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in folder.iterdir():
        (snapshot / file.name).symlink_to(file)
    load_mllm(str(snapshot))


def test_a_model_larger_than_the_memory_is_not_begun(folder, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 4_000_000}))
    monkeypatch.setattr("psutil.swap_memory", lambda: type("Memory", (), {"free": 1_000_000}))
    with pytest.raises(ModelNotFound, match=r"0\.0 billion parameters need 0\.0 GB"):
        load_mllm(str(folder))


def test_options_that_do_not_suit_are_no_fault_of_the_model():
    with pytest.raises(OptionsError, match="first_layer must lie in"):
        load_mllm("embedded", MllmOptions(first_layer=99))
