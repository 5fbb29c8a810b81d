"""Whether the language model can tell that nothing fits a sentence."""

from __future__ import annotations

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress, scenes
from decaf_ros.bench.runs import draw_queries, score_presences
from decaf_ros.evaluation import presence
from decaf_ros.evaluation.tables import markdown_table

_HEADER = ("present sentences against", "absent ones", "present ones", "area under the curve", "target")
_AUC_TARGETS = {presence.ABSENT: 0.97, presence.ALL: 0.90}


def measure(run: Run, presence_queries: int) -> Measured:
    """Whether the language model can tell that nothing fits a sentence."""
    counts = presence.presence_counts(presence_queries)
    queries = draw_queries(counts, run.first_seed, run.processes)
    scores = list(progress("presence", score_presences(run.setup, queries, run.processes), len(queries)))
    curves, shares = presence.curves_of(scores), presence.shares_of(scores)
    rows = [
        [
            {presence.ABSENT: "nothing is like it", presence.NEAR_MISS: "near misses"}.get(name, name),
            str(curve["queries"]),
            str(curve["present_queries"]),
            f"{curve['auc']:.3f}",
            f">= {_AUC_TARGETS[name]:.2f}" if name in _AUC_TARGETS else "",
        ]
        for name, curve in curves.items()
    ]
    kinds = [
        [kind.replace("_", " "), str(share["queries"]), f"{share['yes']:.3f}", f"{share['probability']:.3f}"]
        for kind, share in shares.items()
    ]
    page = f"""# Presence

{markdown_table(_HEADER, rows)}
{markdown_table(("kind", "queries", "yes is likelier", "mean probability of yes"), kinds)}
The language model is asked on the video path whether there is such an object; the probability of *yes* against *no* comes from
the logits of all tokens that read so, in one pass, with nothing decoded. The area under the curve is the probability that a
sentence that is true of something gets a higher one than a sentence that is not. Near misses: a red mug where there are a
red can and a blue mug, the one that fell over where none did.

{scenes(queries)}

{conditions(run)}
"""
    return Measured(page, named({"curve": curves, "kind": shares}))
