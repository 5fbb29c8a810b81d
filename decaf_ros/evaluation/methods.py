"""The methods under evaluation. They differ in where a heat map comes from; SAM 2 behind it is the same for all.

A method that is a setting of the grounding, and no source of attention of its own, is one line of :data:`METHODS`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from decaf_ros.config import GroundingConfig
from decaf_ros.method.loc_head import Head
from decaf_ros.models.protocols import VideoMllm
from decaf_ros.session.attention import AttentionSource, MllmAttention
from decaf_ros.session.loc_head import LocHeadAttention
from decaf_ros.session.tam import TamAttention

DECAF = "decaf"


@dataclass(frozen=True)
class Method:
    """A way from a clip and a sentence to masks.

    Attributes:
        title: in tables.
        attention: makes its source of attention, of the model, the settings, and heads where ``by_heads``.
        by_heads: whether it needs heads of the model, which are found by a sample of sentences.
        grounding: the settings of :class:`~decaf_ros.config.GroundingConfig` that make it, by name.
        options: those of :class:`~decaf_ros.models.chat_model.MllmOptions`, by name.
    """

    title: str
    attention: Callable[[VideoMllm, GroundingConfig, tuple[Head, ...]], AttentionSource] = lambda mllm, config, _: (
        MllmAttention(mllm, config)
    )
    by_heads: bool = False
    grounding: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


METHODS: Mapping[str, Method] = {
    DECAF: Method("full method"),
    "box": Method("boxes", grounding={"grounder": "box"}),
    "both": Method("full method and boxes", grounding={"grounder": "both"}),
    "loc-head": Method("Loc-Head", LocHeadAttention, by_heads=True),
    "tam": Method("TAM", lambda mllm, config, _: TamAttention(mllm, config), options={"hidden_states": True}),
}
