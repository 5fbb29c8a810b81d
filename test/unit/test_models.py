"""The node's models: memory is given back, whatever became of them, and weights are read once."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.ros import models
from decaf_ros.ros.models import Models
from decaf_ros.ros.parameters import SETTINGS

VALUES = {setting.name: setting.default for setting in SETTINGS} | {"device": "cpu"}


class Weights:
    """Stands for gigabytes."""


@pytest.fixture
def born(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Weights]]:
    """Every model that was begun; the loading of one whose name says so fails half way."""
    begun: list[weakref.ref[Weights]] = []

    def load(model_id: str, *_: Any) -> Weights:
        weights = Weights()
        begun.append(weakref.ref(weights))
        if model_id == "too_large":
            raise RuntimeError("CUDA out of memory")
        return weights

    monkeypatch.setattr(models, "load_mllm", load)
    monkeypatch.setattr(models.logger, "exception", lambda *_: None)  # pytest keeps what is logged, with its traceback
    return begun


def test_a_model_is_gone_when_it_is_released(born: list[weakref.ref[Weights]]) -> None:
    loaded = Models()
    loaded.adopt({"mllm_model": loaded.load("mllm_model", VALUES)})
    assert isinstance(loaded.mllm, Weights)
    loaded.release()
    assert [weights() for weights in born] == [None]


def test_nothing_stays_of_a_model_that_could_not_be_loaded(born: list[weakref.ref[Weights]]) -> None:
    loaded = Models()
    with pytest.raises(ModelNotFound, match="'too_large' cannot be loaded: RuntimeError: CUDA out of memory"):
        loaded.load("mllm_model", VALUES | {"mllm_model": "too_large"})
    assert [weights() for weights in born] == [None]


def test_a_library_that_panics_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # as of libraries in Rust: no Exception
        pass

    def panic(*_: Any) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(models, "load_mllm", panic)
    with pytest.raises(ModelNotFound, match="unwrap"):
        Models().load("mllm_model", VALUES)


def test_another_way_of_reading_images_shares_the_weights() -> None:
    loaded = Models()
    loaded.adopt({"mllm_model": loaded.load("mllm_model", VALUES)})
    old, new = loaded.mllm, loaded.load("mllm_model", VALUES | {"video_tokens": 30}).model
    assert new._chat.model is old._chat.model
    assert (old._options, new._options) == (MllmOptions(), MllmOptions(video_tokens=30))
