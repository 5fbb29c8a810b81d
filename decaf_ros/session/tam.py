"""TAM as a source of attention: what the model's answer lights up in the images."""

from __future__ import annotations

import torch

from decaf_ros.method.tam import answer_map
from decaf_ros.models.protocols import VisualPrefix
from decaf_ros.session.rivals import RivalAttention


class TamAttention(RivalAttention):
    """See :mod:`decaf_ros.method.tam`. The model is to be loaded with the option ``hidden_states``."""

    def _look(self, prefix: VisualPrefix, prompt: str) -> tuple[tuple[str, ...], torch.Tensor]:
        found = prefix.activations(prompt)
        maps = [answer_map(each.token_ids, each.prompt_tokens, each.visual_kthw, each.textual_kk) for each in found]
        return tuple(each.answer for each in found), torch.cat(maps)
