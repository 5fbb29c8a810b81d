"""Sources of attention that keep what they read, as benchmarks make them."""

from __future__ import annotations

from typing import Any

from decaf_ros.config import GroundingConfig
from decaf_ros.datatypes import Frame
from decaf_ros.models.protocols import VideoMllm
from decaf_ros.session.attention import AttentionSource, MllmAttention

CACHE_BYTES = 16 << 30  # more than the window of any model here takes


def attention_of(mllm: VideoMllm, config: GroundingConfig, cache_bytes: int) -> AttentionSource:
    """A source that has read nothing yet, and keeps so many bytes of what it reads; 0 switches that off."""
    return MllmAttention(mllm, config)


def read_ahead(attention: AttentionSource, frame: Frame) -> None:
    """Have a key frame read before anybody asks, where that is possible."""
    prepare: Any = getattr(attention, "prepare", None)
    if prepare is not None:
        prepare(frame)
