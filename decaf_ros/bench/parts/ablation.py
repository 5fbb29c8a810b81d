"""The method with one part changed at a time, and other methods."""

from __future__ import annotations

from dataclasses import replace

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress, scenes
from decaf_ros.bench.runs import draw_queries, score_queries
from decaf_ros.evaluation import quality
from decaf_ros.evaluation.held_out import AT_REST, ROWS, even_counts, middle_frame
from decaf_ros.evaluation.setups import ablations, models_of, rivals
from decaf_ros.evaluation.summary import PAPER, PaperFigures
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.session.loc_head import find_heads


def measure(run: Run, ablation_queries: int) -> Measured:
    """The method with one part changed at a time, and other methods."""
    counts = even_counts([row for row in ROWS if row != AT_REST], ablation_queries)
    queries = draw_queries(counts, run.first_seed, run.processes)
    heads = find_heads(models_of(run.setup).mllm, ((middle_frame(query), query.sentence.text) for query in queries))
    rows, figures = [], {}
    for name, variant in (ablations(run.setup) | rivals(replace(run.setup, heads=heads))).items():
        scores = list(progress(name, score_queries(variant, queries, run.processes), len(queries)))
        figures[name] = quality.means(scores)
        paper = [PAPER.get((dataset, name), PaperFigures()).masks for dataset in ("ref-davis17", "reasonvos")]
        rows.append([name, *quality.cells(figures[name])[1:-2], *("" if figure is None else f"{figure}" for figure in paper)])
    header = ("variant", *quality.HEADER[1:-2], "paper: Ref-DAVIS17 J&F", "paper: ReasonVOS J&F")
    page = f"""# Ablations

{markdown_table(header, rows)}
One part of the method changed at a time; the full method is contrast, both paths, two scales and V-Max rollout. Below it,
[other methods](../method.md#other-methods): they read the same key frames on the same paths and ask the same question, but make
a heat map of it in their own way; points, masks and tracklets follow as in the full method. *Boxes*, alone or beside the full
method, are [asked for](../method.md#boxes) on a few key frames. Loc-Head's heads, found by these sentences on single images,
are {", ".join(f"{head} of layer {layer}" for layer, head in heads)}, counted from 0.

{scenes(queries)} All kinds of sentences alike.
The paper's figures (Qwen2.5-VL-7B, SAM 2 Hiera-L, real videos) stand beside ours for the shape of the table, not for
comparison: the embedded models are a thousand times smaller, and were trained with supervision of their attention.

{conditions(run)}
"""
    return Measured(page, named(figures))
