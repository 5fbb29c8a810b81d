"""Held-out queries under different settings, over several processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import torch

from decaf_ros.config import GroundingConfig
from decaf_ros.evaluation.held_out import HeldOutQuery, QueryScore, score_query
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.models.visual_prefix import MllmOptions
from decaf_ros.session.grounding import Grounder


@dataclass(frozen=True)
class Setup:
    """Models and settings under which queries are scored.

    Attributes:
        mllm, tracker: model ids.
        device: of both models.
        options: how the language model is read.
        config: how a sentence becomes tracklets.
    """

    mllm: str = "embedded"
    tracker: str = "embedded"
    device: str = "cpu"
    options: MllmOptions = field(default_factory=MllmOptions)
    config: GroundingConfig = field(default_factory=GroundingConfig)


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
    if processes == 1:
        yield from (_score(setup, query) for query in queries)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(functools.partial(_score, setup), queries)


def _score(setup: Setup, query: HeldOutQuery) -> QueryScore:
    grounder, tracker = _models(setup)
    return score_query(query, grounder, tracker)


@functools.lru_cache(maxsize=1)
def _models(setup: Setup) -> tuple[Grounder, MaskTracker]:
    tracker = Sam2Tracker.load(setup.tracker, device=setup.device)
    return Grounder(load_mllm(setup.mllm, setup.options, setup.device), tracker, setup.config), tracker
