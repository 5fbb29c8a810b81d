"""Points where the language model looks, beside boxes that it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress, scenes
from decaf_ros.bench.runs import draw_queries, score_all_grounders
from decaf_ros.config import GROUNDERS
from decaf_ros.evaluation import grounders
from decaf_ros.evaluation.held_out import ROWS, even_counts
from decaf_ros.evaluation.quality import POINTING_TOLERANCE_PX
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.session.boxes import BOX_FRAMES

_HEADER = ("grounder", "queries", "found", "pointing", "J", "F", "J&F", "seconds", "won by a box")
_BY_KIND = ("kind", "queries", *(f"{figure}, {name}" for figure in ("pointing", "J&F", "seconds") for name in GROUNDERS))


def measure(run: Run, grounder_queries: int) -> Measured:
    """Points where the language model looks, beside boxes that it answers with."""
    # Every grounder is to read for itself, and none is to refuse.
    setup = replace(run.setup, config=replace(run.setup.config, prefix_cache_mb=0, min_presence=0.0))
    queries = draw_queries(even_counts(ROWS, grounder_queries), run.first_seed, run.processes)
    by_query = progress("grounders", score_all_grounders(setup, queries, run.processes), len(queries))
    figures = grounders.side_by_side(score for scores in by_query for score in scores)
    page = f"""# Grounders

{markdown_table(_HEADER, [[name, *_cells(figures[name]["all"])] for name in GROUNDERS])}
{markdown_table(_BY_KIND, [_kind(row, figures) for row in (*ROWS, "all") if row in figures["decaf"]])}
*decaf* prompts the mask model with points where the language model looks; *box* with the boxes that it answers with when it is
asked for some, on {BOX_FRAMES} key frames; *both* with both, which compete by the same heat map
([method.md](../method.md#boxes)). The language model is the same.

- *found*: sentences that got an object. *Pointing*: the prompt of the best object, the point or the centre of the box, lies
  in the thing's mask of that frame, or within {POINTING_TOLERANCE_PX} pixels of it.
- *J*, *F*: as in [the held-out scores](held-out.md), of the tracked masks over all frames.
- *seconds*: the median of a query with nothing read ahead, without the question whether there is such a thing, and without
  carrying objects to the present.

{scenes(queries)}

{conditions(run)}
"""
    return Measured(page, named(figures))


def _cells(figures: Mapping[str, float]) -> list[str]:
    return [str(figures[name]) if name == "queries" else f"{figures[name]:.3f}" for name in grounders.NAMES]


def _kind(row: str, figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    values = [f"{figures[name][row][key]:.3f}" for key in ("pointing", "j_and_f", "seconds") for name in GROUNDERS]
    return [row.replace("_", " "), str(figures["decaf"][row]["queries"]), *values]
