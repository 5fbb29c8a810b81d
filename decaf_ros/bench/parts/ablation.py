"""The method with one part changed at a time."""

from __future__ import annotations

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress, scenes
from decaf_ros.bench.runs import draw_queries, score_queries
from decaf_ros.evaluation import quality
from decaf_ros.evaluation.held_out import AT_REST, ROWS, even_counts
from decaf_ros.evaluation.setups import ablations
from decaf_ros.evaluation.summary import PAPER
from decaf_ros.evaluation.tables import markdown_table


def measure(run: Run, ablation_queries: int) -> Measured:
    """The method with one part changed at a time."""
    counts = even_counts([row for row in ROWS if row != AT_REST], ablation_queries)
    queries = draw_queries(counts, run.first_seed, run.processes)
    rows, figures = [], {}
    for name, variant in ablations(run.setup).items():
        scores = list(progress(name, score_queries(variant, queries, run.processes), len(queries)))
        figures[name] = quality.means(scores)
        paper = [f"{PAPER[dataset, name].masks}" for dataset in ("ref-davis17", "reasonvos")]
        rows.append([name, *quality.cells(figures[name])[1:-2], *paper])
    header = ("variant", *quality.HEADER[1:-2], "paper: Ref-DAVIS17 J&F", "paper: ReasonVOS J&F")
    page = f"""# Ablations

{markdown_table(header, rows)}
One part of the method changed at a time; the full method is contrast, both paths, two scales and V-Max rollout.
{scenes(queries)} All kinds of sentences alike.
The paper's figures (Qwen2.5-VL-7B, SAM 2 Hiera-L, real videos) stand beside ours for the shape of the table, not for
comparison: the embedded models are a thousand times smaller, and were trained with supervision of their attention.

{conditions(run)}
"""
    return Measured(page, named(figures))
