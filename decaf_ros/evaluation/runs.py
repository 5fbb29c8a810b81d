"""Held-out queries and scripted episodes under different settings, over several processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.evaluation.held_out import HeldOutQuery, QueryScore, score_query
from decaf_ros.evaluation.scripted import Episode, Outcome, crossing, keeps_identity, play
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.models.visual_prefix import MllmOptions
from decaf_ros.session.grounding import Grounder

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Setup:
    """Models and settings under which queries are scored.

    Attributes:
        mllm, tracker: model ids.
        device: of both models.
        options: how the language model is read.
        config: how a sentence becomes tracklets.
        memory_gating, motion_gating: see :class:`~decaf_ros.models.sam2_stream.Sam2Tracker`; on in the node, off in the paper's
            protocol.
    """

    mllm: str = "embedded"
    tracker: str = "embedded"
    device: str = "cpu"
    options: MllmOptions = field(default_factory=MllmOptions)
    config: GroundingConfig = field(default_factory=GroundingConfig)
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


def score_queries(setup: Setup, queries: Sequence[HeldOutQuery], processes: int = 1) -> Iterator[QueryScore]:
    """Scores in the order of the queries, each as soon as it is there.

    Args:
        setup: models and settings; every process loads the models itself.
        queries: what is asked.
        processes: how many at a time, each with one thread; 1 computes in this process with the threads it has.
    """
    yield from _mapped(functools.partial(_score, setup), queries, processes)


def play_episodes(setup: Setup, config: SessionConfig, episodes: Sequence[Episode], processes: int = 1) -> Iterator[Outcome]:
    """How scripted episodes end, in their order; ``setup`` and ``processes`` as for :func:`score_queries`."""
    yield from _mapped(functools.partial(_play, setup, config), episodes, processes)


def meet_doubles(setup: Setup, seeds: Sequence[int], processes: int = 1) -> Iterator[bool]:
    """Whether an object is still itself after its double has passed, by seed; else as :func:`play_episodes`."""
    yield from _mapped(functools.partial(_meet_double, setup), seeds, processes)


def _mapped(work: Callable[[_Item], _Result], items: Sequence[_Item], processes: int) -> Iterator[_Result]:
    if processes == 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, items)


def _play(setup: Setup, config: SessionConfig, episode: Episode) -> Outcome:
    grounder, tracker = _models(setup)
    return play(episode, tracker, grounder, config)


def _meet_double(setup: Setup, seed: int) -> bool:
    grounder, tracker = _models(setup)
    return keeps_identity(crossing(seed), tracker, grounder)


def _score(setup: Setup, query: HeldOutQuery) -> QueryScore:
    grounder, tracker = _models(setup)
    return score_query(query, grounder, tracker)


@functools.lru_cache(maxsize=1)
def _models(setup: Setup) -> tuple[Grounder, MaskTracker]:
    tracker = Sam2Tracker.load(
        setup.tracker, device=setup.device, memory_gating=setup.memory_gating, motion_gating=setup.motion_gating
    )
    return Grounder(load_mllm(setup.mllm, setup.options, setup.device), tracker, setup.config), tracker
