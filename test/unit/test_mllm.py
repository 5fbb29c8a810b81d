"""Loading a language model by id: what is refused, and that the message names the cause and the way out."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as transformers_logging

from decaf_ros.models.adapter import common_tokens
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.visual_prefix import MllmOptions


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
