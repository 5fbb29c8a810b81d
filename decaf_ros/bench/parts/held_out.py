"""How well sentences become masks, by kind of sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress, scenes
from decaf_ros.bench.runs import draw_queries, score_queries
from decaf_ros.evaluation import quality
from decaf_ros.evaluation.held_out import AT_REST, CLIP_FRAMES, CLIP_HZ, KEY_INDICES, ROWS, WINDOW_S
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.synthetic.table.wordings import EVENT_KINDS


def measure(run: Run, queries: int) -> Measured:
    """How well sentences become masks, by kind."""
    asked = draw_queries(dict.fromkeys(ROWS, queries), run.first_seed, run.processes)
    scores = list(progress("held-out", score_queries(run.setup, asked, run.processes), len(asked)))
    rows = quality.rows_of(scores)
    page = f"""# Held-out scores

{markdown_table(("figure", "measured", "target"), _targets(rows))}
{markdown_table(("kind", *quality.HEADER), [[_label(name, row), *quality.cells(row)] for name, row in rows.items()])}
{scenes(asked)}
A clip of the [robot's table](../table.md) is {CLIP_FRAMES} frames at {CLIP_HZ:g} Hz; the sentence is grounded in
{len(KEY_INDICES)} key frames, every second one, and is about the {WINDOW_S:g} s that they show, as in the node. The objects
found are tracked over all frames, forwards and backwards.

- *pointing*: the centre of the clip's hottest cell in the fused map lies in the object's mask of that frame, or within
  {quality.POINTING_TOLERANCE_PX} pixels of it.
- *coarse IoU*: Otsu's masks straight from the heat map, over key frames that show the object. *Of the ceiling*: divided by that
  of the truth, each visual token as hot as the truth covers it, put through the same steps; attention that prefers the middle
  of the object to its rim can be above it.
- *answer*, *name*: the video path's answer is the object's kind; the name that the model settles on is.
- *J*, *F*: DAVIS's region similarity and boundary accuracy of the tracked masks, mean over all frames.
- *contested*: events in a window that shows several objects of the target's kind, or several that were handled; and the
  pointing there.
- *moved at rest*: "the mug that was moved", of several mugs, once nothing has moved for a second.
- A kind is offered in the demo from {quality.OFFERED_FROM_POINTING:.2f} pointing on.

{conditions(run)}
"""
    return Measured(page, named(rows))


def _targets(rows: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    contested = [rows[kind]["contested_pointing"] for kind in EVENT_KINDS if kind in rows]
    least = min((value for value in contested if not math.isnan(value)), default=math.nan)
    figures = [
        ("pointing, offered descriptions", rows.get(quality.DESCRIPTIONS, {}).get("pointing", math.nan), 0.90),
        ("pointing, events", rows.get(quality.EVENTS, {}).get("pointing", math.nan), 0.85),
        ("the same, lowest of any kind where contested", least, 0.80),
        ("pointing, moved at rest", rows.get(AT_REST, {}).get("pointing", math.nan), 0.80),
        ("coarse IoU of the ceiling, all", rows[quality.ALL]["coarse_iou_of_ceiling"], 0.85),
        ("name, all", rows[quality.ALL]["name"], 0.90),
        ("J&F, all", rows[quality.ALL]["j_and_f"], 0.75),
    ]
    return [[name, f"{value:.3f}", f">= {target:.2f}"] for name, value, target in figures]


def _label(name: str, row: Mapping[str, float]) -> str:
    words = name.replace("_", " ")
    if name in ROWS:
        return words if quality.is_offered(row) else f"{words} (not offered)"
    return f"**{words}**"
