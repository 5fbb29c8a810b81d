"""How soon a thing is tracked that was asked for before it came, and what waiting for several costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from decaf_ros.bench.arrivals import COMES_AFTER_S, HZ, IN_TIME_S, LATENCY, STANDING, Wait
from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress
from decaf_ros.bench.runs import await_arrivals, draw_arrivals, waiting_costs
from decaf_ros.evaluation.tables import markdown_table

_HEADER = (
    "before the thing comes",
    "episodes",
    "tracked in time",
    "median delay in s",
    "later, or not at all",
    "reported before",
)
_IN_TIME_TARGET, _COST_TARGET = 0.95, 1.5


def measure(run: Run, arrivals: int, waits: int) -> Measured:
    """How soon a thing is tracked that was asked for before it came, and what waiting for several costs."""
    setup, processes = replace(run.setup, memory_gating=True, motion_gating=True), run.processes
    drawn = draw_arrivals(run.seeds(max(arrivals, waits)), processes)
    ended = list(progress("arrivals", await_arrivals(setup, drawn[:arrivals], processes), arrivals))
    groups = {
        "nothing moves": [each for each in ended if not each.distracted],
        "the arm moves another one": [each for each in ended if each.distracted],
        "all": ended,
    }
    rates = {name: _rates(group) for name, group in groups.items() if group}
    rows = [
        [
            name,
            f"{rate['episodes']:.0f}",
            f"{rate['in_time']:.3f}" + (f" (target: >= {_IN_TIME_TARGET})" if name == "all" else ""),
            f"{rate['delay_s']:.1f}",
            f"{rate['late']:.0f}",
            f"{rate['early']:.0f}" + (" (target: 0)" if name == "all" else ""),
        ]
        for name, rate in rates.items()
    ]
    one, several = np.sum(list(progress("costs", waiting_costs(setup, drawn[:waits], processes), waits)), axis=0).tolist()
    page = f"""# Standing queries

{markdown_table(_HEADER, rows)}
A thing is asked for that is out of the camera's view, with `wait_seconds`; after {COMES_AFTER_S[0]:g} to {COMES_AFTER_S[1]:g} s
the arm brings it. *In time*: a mask of it (IoU of 0.5) is published at most {IN_TIME_S:g} s after no part of it lies outside of
the image any more, and nothing is reported before any of it can be seen. *Delay*: from then to the mask, of those that were
tracked; less than 0 where it was tracked sooner. Simulated time (`decaf_ros/evaluation/replay.py`): a camera at {HZ:g} Hz,
a query takes {LATENCY.query_s:g} s, a look {LATENCY.look_s:g} s a key frame.

While they wait, {STANDING} sentences take {several / one:.2f} times the CPU time of one (target: <= {_COST_TARGET:g}):
{several:.1f} s against {one:.1f} s of the language model's, in {waits} of these episodes, from when all of them stand until the
thing comes. What is read is read once for all; each asks for itself.

Episodes of seeds from {run.first_seed} on, none used in training.

{conditions(run)}
"""
    return Measured(page, named({"arrivals": rates, "cost": {"one_s": one, "several_s": several, "ratio": several / one}}))


def _rates(waits: Sequence[Wait]) -> dict[str, float]:
    delays = [each.tracked_s for each in waits if each.tracked_s is not None]
    return {
        "episodes": len(waits),
        "in_time": float(np.mean([each.in_time for each in waits])),
        "delay_s": float(np.median(delays)) if delays else float("nan"),
        "late": sum(each.tracked_s is None or each.tracked_s > IN_TIME_S for each in waits),
        "early": sum(each.early for each in waits),
    }
