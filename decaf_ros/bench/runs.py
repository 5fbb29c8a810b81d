"""Held-out queries and scripts, over several processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

from decaf_ros.bench.arrivals import STANDING, Arrival, Wait, arrival_of, await_arrival, cost_of_waiting
from decaf_ros.bench.scripted import Outcome, Script, keeps_identity, play, script_of
from decaf_ros.bench.space import SpaceError, space_errors
from decaf_ros.config import SessionConfig
from decaf_ros.evaluation.grounders import GrounderScore, score_grounders
from decaf_ros.evaluation.held_out import HeldOutQuery, sample_queries
from decaf_ros.evaluation.live import LiveAsker
from decaf_ros.evaluation.live_table import LiveQueryScore, score_live_query
from decaf_ros.evaluation.presence import Answers, PresenceScore, ask_paths, score_presence
from decaf_ros.evaluation.quality import QueryScore, TokenGrids, score_query, token_grids
from decaf_ros.evaluation.replay import Latency
from decaf_ros.evaluation.setups import Setup, models_of

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_A_TIME = 4  # queries that a process takes at once: mostly about one scene, which it then plays once


def draw_queries(counts: Mapping[str, int], first_seed: int, processes: int = 1) -> list[HeldOutQuery]:
    """As :func:`~decaf_ros.evaluation.held_out.sample_queries`, which raises what it raises; ``processes`` as below."""
    if processes == 1:
        return sample_queries(counts, first_seed)
    with _pool(processes) as pool:
        return sample_queries(counts, first_seed, pool.map)


def score_queries(setup: Setup, queries: Sequence[HeldOutQuery], processes: int = 1) -> Iterator[QueryScore]:
    """Scores in the order of the queries, each as soon as it is there.

    Args:
        setup: models and settings; every process loads the models itself.
        queries: what is asked.
        processes: how many at a time, each with one thread; 1 computes in this process with the threads it has.
    """
    yield from _mapped(functools.partial(_score, setup), queries, processes, _A_TIME)


def score_all_grounders(setup: Setup, queries: Sequence[HeldOutQuery], processes: int = 1) -> Iterator[list[GrounderScore]]:
    """Each query by all grounders; else as :func:`score_queries`."""
    yield from _mapped(functools.partial(_score_grounders, setup), queries, processes, _A_TIME)


def score_presences(setup: Setup, queries: Sequence[HeldOutQuery], processes: int = 1) -> Iterator[PresenceScore]:
    """How queries decide whether there is such a thing; else as :func:`score_queries`."""
    yield from _mapped(functools.partial(_score_presence, setup), queries, processes, _A_TIME)


def ask_presences(setup: Setup, queries: Sequence[HeldOutQuery], processes: int = 1) -> Iterator[Answers]:
    """What the paths say to the question whether there is such a thing, and nothing else; else as :func:`score_queries`."""
    yield from _mapped(functools.partial(_ask_paths, setup), queries, processes, _A_TIME)


def score_live_queries(
    setup: Setup, latency: Latency, queries: Sequence[HeldOutQuery], processes: int = 1
) -> Iterator[LiveQueryScore]:
    """How queries fare that are asked while the camera films; what one takes is simulated. Else as :func:`score_queries`."""
    yield from _mapped(functools.partial(_score_live, setup, latency), queries, processes, _A_TIME)


def measure_space(setup: Setup, seeds: Sequence[int], processes: int = 1) -> Iterator[list[SpaceError]]:
    """How far off objects are in space, by scene; else as :func:`score_queries`."""
    yield from _mapped(functools.partial(_measure_space, setup), seeds, processes)


def draw_scripts(kinds: Sequence[str], seeds: Sequence[int], processes: int = 1) -> list[Script]:
    """A script of each kind from each seed; see :func:`~decaf_ros.bench.scripted.script_of`."""
    return list(_mapped(_script_of, [(kind, seed) for seed in seeds for kind in kinds], processes))


def play_scripts(setup: Setup, config: SessionConfig, scripts: Sequence[Script], processes: int = 1) -> Iterator[Outcome]:
    """How scripts end, in their order; ``setup`` and ``processes`` as for :func:`score_queries`."""
    yield from _mapped(functools.partial(_play, setup, config), scripts, processes)


def meet_doubles(setup: Setup, scripts: Sequence[Script], processes: int = 1) -> Iterator[bool]:
    """Whether a thing is still itself after its double has passed; else as :func:`play_scripts`."""
    yield from _mapped(functools.partial(_meet_double, setup), scripts, processes)


def draw_arrivals(seeds: Sequence[int], processes: int = 1) -> list[Arrival]:
    """An arrival from each seed; see :func:`~decaf_ros.bench.arrivals.arrival_of`."""
    return list(_mapped(arrival_of, seeds, processes))


def await_arrivals(setup: Setup, arrivals: Sequence[Arrival], processes: int = 1) -> Iterator[Wait]:
    """How waiting for each of them went; else as :func:`play_scripts`."""
    yield from _mapped(functools.partial(_await, setup), arrivals, processes)


def waiting_costs(setup: Setup, arrivals: Sequence[Arrival], processes: int = 1) -> Iterator[tuple[float, float]]:
    """Seconds of CPU time that one sentence takes until each of them, and as many as are compared; else as above."""
    yield from _mapped(functools.partial(_costs, setup), arrivals, processes)


def _mapped(work: Callable[[_Item], _Result], items: Sequence[_Item], processes: int, at_once: int = 1) -> Iterator[_Result]:
    if processes == 1:
        yield from map(work, items)
        return
    with _pool(processes) as pool:
        yield from pool.map(work, items, chunksize=at_once)


def _pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,))


def _score(setup: Setup, query: HeldOutQuery) -> QueryScore:
    models = models_of(setup)
    return score_query(query, models.grounder, models.tracker, _grids_of(setup))


def _score_grounders(setup: Setup, query: HeldOutQuery) -> list[GrounderScore]:
    models = models_of(setup)
    return score_grounders(query, models.grounder, models.tracker)


@functools.lru_cache(maxsize=1)
def _grids_of(setup: Setup) -> TokenGrids:
    return token_grids(models_of(setup).mllm, setup.config.paths)


def _score_presence(setup: Setup, query: HeldOutQuery) -> PresenceScore:
    models = models_of(setup)
    return score_presence(query, models.mllm, models.tracker, setup.config)


def _ask_paths(setup: Setup, query: HeldOutQuery) -> Answers:
    return ask_paths(query, models_of(setup).mllm)


def _score_live(setup: Setup, latency: Latency, query: HeldOutQuery) -> LiveQueryScore:
    models = models_of(setup)
    return score_live_query(query, LiveAsker(models.tracker, models.grounder, latency=latency))


def _measure_space(setup: Setup, seed: int) -> list[SpaceError]:
    return space_errors(seed, models_of(setup).tracker)


def _script_of(kind_and_seed: tuple[str, int]) -> Script:
    return script_of(*kind_and_seed)


def _play(setup: Setup, config: SessionConfig, script: Script) -> Outcome:
    models = models_of(setup)
    return play(script, models.tracker, models.grounder, config)


def _meet_double(setup: Setup, script: Script) -> bool:
    models = models_of(setup)
    return keeps_identity(script, models.tracker, models.grounder)


def _await(setup: Setup, arrival: Arrival) -> Wait:
    models = models_of(setup)
    return await_arrival(arrival, models.tracker, models.grounder)


def _costs(setup: Setup, arrival: Arrival) -> tuple[float, float]:
    models = models_of(setup)
    one, several = (cost_of_waiting(arrival, models.tracker, models.grounder, count) for count in (1, STANDING))
    return one, several
