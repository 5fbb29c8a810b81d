"""How sentences fare that are asked while the camera films, in simulated time."""

from __future__ import annotations

from dataclasses import replace

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress, scenes
from decaf_ros.bench.runs import draw_queries, score_live_queries
from decaf_ros.evaluation import live_table
from decaf_ros.evaluation.held_out import AT_REST, CLIP_HZ, ROWS, WINDOW_S, even_counts
from decaf_ros.evaluation.replay import Latency
from decaf_ros.evaluation.tables import markdown_table

_LATENCY = Latency(query_s=1.0, key_frame_s=0.0, refresh_s=0.1)


def measure(run: Run, live_queries: int) -> Measured:
    """How sentences fare that are asked while the camera films."""
    counts = even_counts([row for row in ROWS if row != AT_REST], live_queries)
    queries = draw_queries(counts, run.first_seed, run.processes)
    setup = replace(run.setup, memory_gating=True, motion_gating=True)
    scores = list(progress("live", score_live_queries(setup, _LATENCY, queries, run.processes), len(queries)))
    rows = live_table.live_rows_of(scores)
    groups = (live_table.DESCRIPTIONS, live_table.EVENTS, live_table.ALL)
    labels = {name: f"**{name}**" if name in groups else name.replace("_", " ") for name in rows}
    durations = WINDOW_S, live_table.AFTER_S, _LATENCY.query_s, _LATENCY.refresh_s
    seen, after, takes, refresh = (f"{seconds:g} s" for seconds in durations)
    page = f"""# Asked live

{markdown_table(("kind", *live_table.HEADER), [[labels[name], *live_table.cells(row)] for name, row in rows.items()])}
A camera films the [robot's table](../table.md) at {CLIP_HZ:g} Hz. After {seen} the sentence is asked, about what was seen
by then, and the camera goes on for {after}. The node's session answers, with the node's settings, in simulated time: a query
takes {takes} and a refresh of the heat maps {refresh}, whatever the machine. Reading ahead, and frames that are left out
where following is slower than the camera, are not simulated.

- *J*, *F*: DAVIS's region similarity and boundary accuracy of what a robot has, mean over the frames from the answer on, which
  is about the newest one; masks are empty where nothing was found.
- *answered*: share of the queries answered before the camera stops; *with a mask*: those with any mask by then.
- *frames without an answer*: share of the frames from the question on that passed before the answer.
- *s to the first mask*: from the question, mean over the queries with a mask.

{scenes(queries)}

{conditions(run)}
"""
    return Measured(page, named(rows))
