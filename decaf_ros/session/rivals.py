"""What sources of attention have in common that are no DecAF's: the same prefixes, asked the same, and joined the same way.

What differs between them, and from DecAF, is the map alone: no rollout, no second prompt about the background.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch

from decaf_ros.config import GrounderName
from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.method import fusion
from decaf_ros.models import prompts
from decaf_ros.models.protocols import VisualPrefix
from decaf_ros.session.attention import Attention, PathReader
from decaf_ros.session.stages import StageClock


class RivalAttention(PathReader):
    """Implements :class:`~decaf_ros.session.attention.AttentionSource` but for the map of a path."""

    def attend(
        self, window: FrameWindow, expression: str, clock: StageClock | None = None, grounder: GrounderName = "decaf"
    ) -> Attention:
        """See :class:`~decaf_ros.session.attention.AttentionSource`.

        Raises:
            ValueError: boxes are asked for, which are no matter of a heat map.
        """
        if grounder != "decaf":
            raise ValueError(f"{type(self).__name__} gives a heat map and no boxes")
        clock, prompt = clock or StageClock(), prompts.object_prompt(expression)
        with clock.stage("prefill"):
            prefixes = self._read(window, clock)
            there = self._presence(prefixes, expression)
        with clock.stage("rollout"):
            looks = {path: self._look(prefix, prompt) for path, prefix in prefixes.items()}
            clock.check()
            answers = tuple(answer for said, _ in looks.values() for answer in said)
            name = self._settled(expression, answers)
        with clock.stage("fusion"):
            maps = {path: _finite(map_thw) for path, (_, map_thw) in looks.items()}
            stride = prefixes["video"].temporal_stride if "video" in prefixes else 1
            video = fusion.over_frames(maps["video"], stride, len(window)) if "video" in maps else None
            frame = fusion.normalise(maps["frame"], per_frame=True) if "frame" in maps else None
            heat_thw = fusion.joined(video, frame)
        return Attention(heat_thw, name, answers, there)

    def refresh(self, frame: Frame, queries: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        """See :class:`~decaf_ros.session.attention.AttentionSource`: the frame path alone."""
        if not queries:
            return []
        prefix = self._read_frame(frame)
        maps = [self._look(prefix, prompts.object_prompt(expression))[1] for expression, _ in queries]
        return [fusion.normalise(_finite(map_thw))[0] for map_thw in maps]

    @abstractmethod
    def _look(self, prefix: VisualPrefix, prompt: str) -> tuple[tuple[str, ...], torch.Tensor]:
        """The answers to a prompt, and where it points: ``(T', H', W')`` float32 on the CPU, not negative."""


def _finite(map_thw: torch.Tensor) -> torch.Tensor:
    if not map_thw.isfinite().all():
        raise ValueError(fusion.NOT_FINITE)
    return map_thw
