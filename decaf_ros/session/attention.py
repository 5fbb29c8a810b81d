"""Where a language model looks: a clip and a sentence become a name and a heat map (DecAF, sections 3.2 and 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from decaf_ros.config import GrounderName, GroundingConfig
from decaf_ros.datatypes import BoxPrompt, Frame, FrameWindow
from decaf_ros.method import fusion, presence
from decaf_ros.method.boxes import heat_of_boxes, select_boxes
from decaf_ros.models import prompts
from decaf_ros.models.protocols import Reply, VideoMllm, VisualPrefix
from decaf_ros.models.read_memory import ReadMemory
from decaf_ros.session.boxes import Boxes, ask_for_boxes
from decaf_ros.session.stages import StageClock


@dataclass(frozen=True, eq=False)
class Attention:
    """What the language model says and where it looks.

    Attributes:
        heat_thw: ``(T, H', W')`` float32 in [0, 1], the fused map ``V`` on the CPU; where boxes alone were asked for, theirs
            (:func:`~decaf_ros.method.boxes.heat_of_boxes`).
        object_name: the label settled on; "" when the model gave none.
        answers: its answers to the object prompt: the video path's first, then one a frame; none where it was not asked.
        presence: how likely it is that there is such a thing at all, in [0, 1]; NaN when it was not asked.
        boxes: where it answers that the thing is, on some key frames, best first on each; none unless it was asked for them.
    """

    heat_thw: torch.Tensor
    object_name: str
    answers: tuple[str, ...]
    presence: float = math.nan
    boxes: tuple[BoxPrompt, ...] = ()


class AttentionSource(Protocol):
    """Where attention comes from. The answers depend on what is given alone, not on what was asked or prepared before."""

    def attend(
        self, window: FrameWindow, expression: str, clock: StageClock | None = None, grounder: GrounderName = "decaf"
    ) -> Attention:
        """Look for what a sentence refers to: name and heat map, no masks.

        Args:
            window: the clip of key frames.
            expression: the sentence.
            clock: told about the stages "prefill", "rollout" and "fusion"; takes their time.
            grounder: what is asked for: where the model looks ("decaf"), boxes ("box"), or "both".

        Raises:
            NoBoxesError: boxes are asked for, and the language model was not taught to answer with any.
        """

    def refresh(self, frame: Frame, queries: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        """Look on one new frame for what was found before; the frame is read once for all queries.

        Args:
            frame: the frame.
            queries: expression and object name of each.

        Returns:
            ``(H', W')`` float32 in [0, 1] for each query.
        """

    def presences(self, window: FrameWindow, expressions: Sequence[str]) -> list[float]:
        """How likely there is what each sentence refers to; the window is read once for all.

        Args:
            window: the clip of key frames; of a single one the frame path alone is asked, which costs little.
            expressions: the sentences.

        Returns:
            A probability in [0, 1] for each; NaN where it is not to be asked (``min_presence`` 0).
        """

    def prepare(self, window: FrameWindow, frame: Frame) -> None:
        """Read a frame before anybody asks about a window that holds it."""

    def unread(self, window: FrameWindow) -> tuple[Frame, ...]:
        """Frames of a window, oldest first, that :meth:`prepare` would spare a question to read; takes no time."""

    def forget(self) -> None:
        """Free the memory that all this takes, which costs time when somebody asks again."""


class PathReader:
    """What sources have in common that ask a language model in this process: how it reads, and what of that is kept.

    Args:
        mllm: the language model.
        config: which of its paths are read, whether it is asked if there is such a thing, how much of what was read is kept.
    """

    def __init__(self, mllm: VideoMllm, config: GroundingConfig | None = None) -> None:
        self._mllm = mllm
        self._config = config or GroundingConfig()
        self._memory = ReadMemory(self._config.prefix_cache_mb << 20)

    def prepare(self, window: FrameWindow, frame: Frame) -> None:
        """See :class:`AttentionSource`."""
        self._mllm.read_ahead(window, frame, self._memory)

    def unread(self, window: FrameWindow) -> tuple[Frame, ...]:
        """See :class:`AttentionSource`: none where nothing is kept, or the frame path is not asked."""
        if not self._memory.budget_bytes or self._config.paths == "video":
            return ()
        return self._mllm.unread(window, self._memory)

    def forget(self) -> None:
        """See :class:`AttentionSource`."""
        self._memory.clear()

    def presences(self, window: FrameWindow, expressions: Sequence[str]) -> list[float]:
        """See :class:`AttentionSource`."""
        if len(window) == 1 and self._config.paths != "video":
            prefixes = {"frame": self._read_frame(window.frames[0])}
        else:
            prefixes = self._read(window, StageClock())
        return [self._presence(prefixes, expression) for expression in expressions]

    def _read(self, window: FrameWindow, clock: StageClock) -> dict[str, VisualPrefix]:
        """By path, "video" and "frame", those that are asked."""
        prefixes = {}
        for path, read in (("video", self._mllm.read_video), ("frame", self._mllm.read_frames)):
            if self._config.paths in (path, "both"):
                prefixes[path] = read(window, self._memory)
                clock.check()
        return prefixes

    def _read_frame(self, frame: Frame) -> VisualPrefix:
        """One new frame, on the frame path."""
        return self._mllm.read_frames(FrameWindow((frame,)), self._memory)

    def _settled(self, expression: str, answers: tuple[str, ...]) -> str:
        """The name that the model settles on, given its answers; "" for none."""
        return prompts.cleaned_name(self._mllm.complete(prompts.name_prompt(expression, answers)))

    def _presence(self, prefixes: dict[str, VisualPrefix], expression: str) -> float:
        if self._config.min_presence <= 0:
            return math.nan
        prompt = prompts.presence_prompt(expression)
        yes = {path: prefix.probability_of_yes(prompt) for path, prefix in prefixes.items()}
        return presence.combined_presence(yes.get("video", ()), yes.get("frame", ()))


class MllmAttention(PathReader):
    """The attention of a language model in this process: its paths are fused, and the background may be subtracted."""

    def attend(
        self, window: FrameWindow, expression: str, clock: StageClock | None = None, grounder: GrounderName = "decaf"
    ) -> Attention:
        """See :class:`AttentionSource`: the first half of the method."""
        clock = clock or StageClock()
        if grounder != "decaf":
            self._mllm.box_format()  # or it is refused before anything is read
        if grounder == "box":
            return self._locate(window, expression, clock)
        with clock.stage("prefill"):
            prefixes = self._read(window, clock)
            asked = {path: prefix.ask(prompts.object_prompt(expression)) for path, prefix in prefixes.items()}
            clock.check()
            answers = tuple(answer for reply in asked.values() for answer in reply.answers)
            name = self._settled(expression, answers)
            replies = {path: self._with_background(prefixes[path], asked[path], name) for path in prefixes}
            clock.check()
            there = self._presence(prefixes, expression)
            boxes = self._boxes(window, expression, prefixes).places if grounder == "both" else []
        with clock.stage("rollout"):
            rollouts = {path: prefixes[path].rollout(replies[path]).float().cpu() for path in prefixes}
        with clock.stage("fusion"):
            stride = prefixes["video"].temporal_stride if "video" in prefixes else 1
            heat = fuse(rollouts, stride, len(window))
        return Attention(heat, name, answers, there, tuple(select_boxes(boxes, heat, window.size_hw)))

    def _locate(self, window: FrameWindow, expression: str, clock: StageClock) -> Attention:
        """By boxes alone: nothing is rolled out, and no more is read than is asked about."""
        with clock.stage("prefill"):
            prefixes = self._read(window, clock) if self._config.min_presence > 0 else {}
            there = self._presence(prefixes, expression)
            found = self._boxes(window, expression, prefixes)
        heat = heat_of_boxes(found.places, (len(window), *found.grid_hw), window.size_hw)
        return Attention(heat, found.name, (), there, tuple(select_boxes(found.places, heat, window.size_hw)))

    def _boxes(self, window: FrameWindow, expression: str, prefixes: Mapping[str, VisualPrefix]) -> Boxes:
        return ask_for_boxes(self._mllm, window, expression, prefixes.get("frame"), self._memory)

    def refresh(self, frame: Frame, queries: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        """See :class:`AttentionSource`: the frame path alone."""
        if not queries:
            return []
        prefix = self._read_frame(frame)
        replies = [
            self._with_background(prefix, prefix.ask(prompts.object_prompt(expression), answer=False), name)
            for expression, name in queries
        ]
        rollouts = prefix.rollout([reply for pair in replies for reply in pair]).float().cpu()
        return [fuse({"frame": maps}, 1, 1)[0] for maps in rollouts.split(len(replies[0]))]

    def _with_background(self, prefix: VisualPrefix, asked: Reply, name: str) -> list[Reply]:
        if not self._config.contrast:
            return [asked]
        return [asked, prefix.ask(prompts.background_prompt(name), answer=False)]


def fuse(rollouts: dict[str, torch.Tensor], temporal_stride: int, frame_count: int) -> torch.Tensor:
    """Fuse what the paths give into the heat map (DecAF, section 3.3).

    Args:
        rollouts: by path, "video" and/or "frame": ``(1 or 2, T', H', W')``, of the object prompt and, if asked, the
            background prompt.
        temporal_stride: of the video path.
        frame_count: T.

    Returns:
        ``(T, H', W')`` float32 in [0, 1] on the frame path's grid, or on the video path's when it is alone.
    """

    def pair(path: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        maps = rollouts[path]
        return maps[0], maps[1] if len(maps) > 1 else None

    video = fusion.video_map(*pair("video"), temporal_stride, frame_count) if "video" in rollouts else None
    frame = fusion.frame_map(*pair("frame")) if "frame" in rollouts else None
    return fusion.joined(video, frame)
