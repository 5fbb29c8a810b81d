"""A tap on the attention of a language model in transformers: the layers' queries and keys, without a forked model file.

Every model that follows transformers' attention interface calls a registered function with its queries and keys after the
rotary embedding, before keys are repeated for grouped queries. The function registered here hands both to whoever is recording
in the same thread, and then calls transformers' own SDPA function, so that the model's output is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from decaf_ros.method.rollout import QueryKeys

_IMPLEMENTATION = "decaf_tapped_sdpa"


class _PassEnded(Exception):  # noqa: N818 - it ends no more than a pass
    """Leaves a forward pass whose output nobody wants."""


class AttentionRecord:
    """Queries and keys of the tokens that went through the model while this was recording.

    Args:
        first_layer: index of the first layer to keep.
        end_layer: index of the layer at which the pass ends; see :func:`recording`.
    """

    def __init__(self, first_layer: int, end_layer: int | None = None) -> None:
        self._first_layer = first_layer
        self._end_layer = end_layer
        self._layers: dict[int, QueryKeys] = {}
        self._scaling: float | None = None

    @property
    def layers(self) -> list[QueryKeys]:
        """The recorded layers in ascending order; keys of the new tokens only, not of those in the cache."""
        return [self._layers[index] for index in sorted(self._layers)]

    @property
    def scaling(self) -> float:
        """Factor on the attention scores."""
        assert self._scaling is not None, "nothing was recorded"
        return self._scaling

    def add(self, layer: int, queries_bhqd: torch.Tensor, keys_bgkd: torch.Tensor, scaling: float) -> None:
        """Keep one layer of one forward pass, and end the pass if that was the last one wanted.

        Args:
            layer: index of the layer in the model.
            queries_bhqd: rotated queries of the new tokens.
            keys_bgkd: rotated keys of all tokens, those in the cache first.
            scaling: factor on the attention scores.
        """
        if layer < self._first_layer:
            return
        assert layer not in self._layers, "a record holds one forward pass"
        new_tokens = queries_bhqd.shape[2]
        if keys_bgkd.shape[2] > new_tokens:
            # A slice would keep the cached keys alive once more for every prompt.
            keys_bgkd = keys_bgkd[:, :, -new_tokens:].clone()
        self._layers[layer] = QueryKeys(queries_bhqd, keys_bgkd)
        self._scaling = scaling
        if layer == self._end_layer:
            raise _PassEnded


_recording: ContextVar[AttentionRecord | None] = ContextVar("decaf_attention_record", default=None)


def install(model: PreTrainedModel) -> None:
    """Route the attention of a model's language part through the tap; its vision part keeps SDPA.

    Raises:
        ValueError: a layer attends to a sliding window, for which the rollout does not hold.
    """
    text_config = model.config.get_text_config()
    if "sliding_attention" in (getattr(text_config, "layer_types", None) or []):
        raise ValueError(f"{model.config.model_type} uses sliding-window attention, which the attention rollout does not cover")
    AttentionInterface.register(_IMPLEMENTATION, _tapped_sdpa)
    AttentionMaskInterface.register(_IMPLEMENTATION, sdpa_mask)
    model.set_attn_implementation({"text_config": _IMPLEMENTATION, "vision_config": "sdpa"})


@contextmanager
def recording(first_layer: int, end_layer: int | None = None) -> Iterator[AttentionRecord]:
    """Record the next forward pass of a tapped model in this thread; other threads are not seen.

    Args:
        first_layer: index of the first layer to keep.
        end_layer: index of the layer at whose queries and keys the pass ends and the block is left; its keys and values are in
            the cache by then. ``None`` for a whole pass.
    """
    record = AttentionRecord(first_layer, end_layer)
    token = _recording.set(record)
    try:
        yield record
    except _PassEnded:
        pass
    finally:
        _recording.reset(token)


def _tapped_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls; signature and names are its own."""
    record = _recording.get()
    if record is not None:
        record.add(int(module.layer_idx), query, key, kwargs["scaling"])  # type: ignore[arg-type]
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
