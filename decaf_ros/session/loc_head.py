"""Loc-Head as a source of attention: the maps of a few heads, which are chosen once by a sample of sentences."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from decaf_ros.config import GroundingConfig
from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.method.loc_head import Head, head_map, select_heads, spatial_entropy
from decaf_ros.models import prompts
from decaf_ros.models.errors import PromptError
from decaf_ros.models.protocols import VideoMllm, VisualPrefix
from decaf_ros.session.rivals import RivalAttention


class LocHeadAttention(RivalAttention):
    """See :mod:`decaf_ros.method.loc_head`.

    Args:
        mllm: the language model.
        config: which of its paths are read.
        heads: of the model, as :func:`find_heads` finds them.

    Raises:
        ValueError: no head.
    """

    def __init__(self, mllm: VideoMllm, config: GroundingConfig | None = None, heads: tuple[Head, ...] = ()) -> None:
        super().__init__(mllm, config)
        if not heads:
            raise ValueError("Loc-Head needs the heads of the model; find them by a sample of sentences first (find_heads)")
        self._heads = heads

    def _look(self, prefix: VisualPrefix, prompt: str) -> tuple[tuple[str, ...], torch.Tensor]:
        return prefix.ask(prompt).answers, head_map(prefix.last_token_attention(prompt), self._heads)


def find_heads(mllm: VideoMllm, sample: Iterable[tuple[Frame, str]]) -> tuple[Head, ...]:
    """The heads of a model that point best at what sentences mean. No ground truth is needed.

    Args:
        mllm: the model.
        sample: images and sentences about them, some hundred; a sentence that the model cannot take is left out.

    Raises:
        ValueError: no sentence is left.
    """
    shares, entropies = [], []
    for frame, expression in sample:
        prefix = mllm.read_frames(FrameWindow((frame,)))
        try:
            rows_lhhw = prefix.last_token_attention(prompts.object_prompt(expression))[:, :, 0]
        except PromptError:
            continue
        shares.append(rows_lhhw.sum(dim=(2, 3)))
        entropies.append(torch.tensor([[spatial_entropy(map_hw) for map_hw in layer_hhw] for layer_hhw in rows_lhhw]))
    if not shares:
        raise ValueError("there is no sentence by which to choose Loc-Head's heads")
    return select_heads(torch.stack(shares), torch.stack(entropies))
