"""What pages have in common, and what is said while one measures: on standard error, for the output is pages alone."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
import transformers

from decaf_ros.bench.part import Run
from decaf_ros.synthetic.table.sampling import FIRST_SCORED_SEED

if TYPE_CHECKING:
    from decaf_ros.evaluation.held_out import HeldOutQuery

_T = TypeVar("_T")


def conditions(run: Run) -> str:
    """The foot of a page of scores: the command, the models, and what they ran on."""
    seed = "" if run.first_seed == FIRST_SCORED_SEED else f" --first-seed {run.first_seed}"
    return (
        f"`{run.command}{seed}`. "
        f"Models: {run.setup.mllm} (language), {run.setup.tracker} (masks), on {run.setup.device}. "
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )


def scenes(queries: Sequence[HeldOutQuery]) -> str:
    """A sentence about what was asked."""
    seeds = {query.seed for query in queries}
    return f"{len(queries)} queries about {len(seeds)} scenes, seeds from {min(seeds)} to {max(seeds)}, none used in training."


def progress(name: str, results: Iterable[_T], count: int) -> Iterator[_T]:
    """Hand results on, and tell now and then how many of them there are, and how long each takes."""
    start = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        if done % 20 == 0 or done == count:
            print(f"{name}: {done} of {count}, {(time.monotonic() - start) / done:.1f} s each", file=sys.stderr)


def told(rows: Iterable[list[str]]) -> list[list[str]]:
    """All rows of a table, each told as it comes: what was measured is seen also when a later one fails."""
    table = []
    for row in rows:
        print(" | ".join(row), file=sys.stderr, flush=True)
        table.append(row)
    return table
