"""Models and settings under which the method is measured."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from decaf_ros.config import GroundingConfig
from decaf_ros.evaluation.methods import DECAF, METHODS
from decaf_ros.method.loc_head import Head
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import MaskTracker, VideoMllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.grounding import Grounder


@dataclass(frozen=True)
class Setup:
    """Models and settings under which queries are scored.

    Attributes:
        mllm, tracker: model ids.
        device: of both models.
        options: how the language model is read.
        config: how a sentence becomes tracklets.
        method: one of :data:`~decaf_ros.evaluation.methods.METHODS`.
        heads: of the language model, for a method that needs them.
        memory_gating, motion_gating: see :class:`~decaf_ros.models.sam2_stream.Sam2Tracker`; on in the node, off in the paper's
            protocol.
    """

    mllm: str = "embedded"
    tracker: str = "embedded"
    device: str = "cpu"
    options: MllmOptions = field(default_factory=MllmOptions)
    config: GroundingConfig = field(default_factory=GroundingConfig)
    method: str = DECAF
    heads: tuple[Head, ...] = ()
    memory_gating: bool = False
    motion_gating: bool = False


def ablations(full: Setup) -> dict[str, Setup]:
    """The method with one part changed at a time, by name (DecAF, section 4.3)."""
    return {
        "full method": full,
        "object prompt only, no contrast": replace(full, config=replace(full.config, contrast=False)),
        "video path only": replace(full, config=replace(full.config, paths="video")),
        "frame path only": replace(full, config=replace(full.config, paths="frame")),
        "single scale": replace(full, options=replace(full.options, multi_scale=False)),
        "rollout: original": replace(full, options=replace(full.options, rollout="original")),
        "rollout: max": replace(full, options=replace(full.options, rollout="max")),
    }


def setup_of(method: str, full: Setup) -> Setup:
    """Another method, by its name in :data:`~decaf_ros.evaluation.methods.METHODS`, under the settings of the full one."""
    config = replace(full.config, **METHODS[method].grounding)
    return replace(full, method=method, config=config, options=replace(full.options, **METHODS[method].options))


def rivals(full: Setup) -> dict[str, Setup]:
    """All methods but DecAF, by title."""
    return {METHODS[name].title: setup_of(name, full) for name in METHODS if name != DECAF}


def grounder_of(setup: Setup, mllm: VideoMllm, tracker: MaskTracker) -> Grounder:
    """The method of a setup on its models.

    Raises:
        ValueError: it needs heads, and has none.
    """
    return Grounder(METHODS[setup.method].attention(mllm, setup.config, setup.heads), tracker, setup.config)


class Models(NamedTuple):
    """What a setup loads."""

    mllm: VideoMllm
    tracker: Sam2Tracker
    grounder: Grounder


@functools.lru_cache(maxsize=1)
def models_of(setup: Setup) -> Models:
    """The models of a setup; those of the last one are kept."""
    mllm = load_mllm(setup.mllm, setup.options, setup.device)
    tracker = Sam2Tracker.load(
        setup.tracker, device=setup.device, memory_gating=setup.memory_gating, motion_gating=setup.motion_gating
    )
    return Models(mllm, tracker, grounder_of(setup, mllm, tracker))
