"""Held-out queries and scripted episodes, over several processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

from decaf_ros.config import SessionConfig
from decaf_ros.evaluation.held_out import HeldOutQuery, QueryScore, score_query
from decaf_ros.evaluation.scripted import Episode, Outcome, crossing, keeps_identity, play
from decaf_ros.evaluation.setups import Setup, models_of

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
    models = models_of(setup)
    return play(episode, models.tracker, models.grounder, config)


def _meet_double(setup: Setup, seed: int) -> bool:
    models = models_of(setup)
    return keeps_identity(crossing(seed), models.tracker, models.grounder)


def _score(setup: Setup, query: HeldOutQuery) -> QueryScore:
    models = models_of(setup)
    return score_query(query, models.grounder, models.tracker)
