"""Whether a query can tell that nothing fits its sentence, and what that costs."""

from __future__ import annotations

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress, scenes
from decaf_ros.bench.runs import draw_queries, score_presences
from decaf_ros.evaluation import presence
from decaf_ros.evaluation.tables import markdown_table

_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def measure(run: Run, presence_queries: int) -> Measured:
    """Whether a query can tell that nothing fits its sentence."""
    queries = draw_queries(presence.presence_counts(presence_queries), run.first_seed, run.processes)
    scores = list(progress("presence", score_presences(run.setup, queries, run.processes), len(queries)))
    kinds, presences = [score.kind for score in scores], [score.presence for score in scores]
    least = run.setup.config.min_presence
    said = {"as a query decides": presences} | presence.by_path([score.answers for score in scores])
    curves = {name: presence.curves_of(kinds, values) for name, values in said.items()}
    shares = presence.shares_of(kinds, presences, least)
    single = {
        "default": {"min_presence": least} | presence.decisions_of(kinds, presences, least),
        "wrong": presence.wrong_of(scores, least),
        "cost": presence.cost_of(scores),
    }
    areas = {name: {key: row["auc"] for key, row in curve.items()} for name, curve in curves.items()}
    figures = {"curve": curves["as a query decides"], "path": areas, **single, "kind": shares}
    page = f"""# Presence

{markdown_table(("figure", "measured", "target"), _targets(single))}
{markdown_table(("by", "nothing is like it", "near misses", "all"), _areas(curves))}
{markdown_table(_DECISIONS, _decisions(kinds, presences, least))}
{markdown_table(("kind", "queries", "accepted", "mean presence"), _kinds(shares))}
The language model is asked on both paths whether there is such an object; the probability of *yes* against *no* comes from the
logits of all tokens that read so, in one pass, with nothing decoded. How the paths make one *presence* is said in
[method.md](../method.md#whether-there-is-such-a-thing). A query accepts a sentence from `min_presence` on.

- The second table has areas under the curve: the probability that a sentence that is true of something gets a higher value than
  one that is not.
- *Near misses*: a red mug where there are a red can and a blue mug, the one that fell over where none did. *Balanced accuracy*:
  the mean of present sentences that are accepted and of all others that are refused.
- *Wrong*: sentences, of all here, after which a query follows an object that is not meant: its masks overlap with what is by an
  IoU of less than {presence.RIGHT_FROM_IOU:g} over the key frames, or nothing is meant.
- *Cost*: of a query that finds nothing read ahead, without carrying its objects to the present.

{scenes(queries)}

{conditions(run)}
"""
    return Measured(page, named(figures))


_DECISIONS = ("min_presence", "balanced accuracy", "present refused", "nothing like it accepted", "near misses accepted")


def _targets(figures: dict[str, dict[str, float]]) -> list[list[str]]:
    decided, wrong, cost = figures["default"], figures["wrong"], figures["cost"]
    return [
        ["balanced accuracy", f"{decided['balanced_accuracy']:.3f}", ">= 0.88"],
        ["present sentences refused", f"{decided['present_refused']:.1%}", "<= 5 %"],
        ["near misses accepted", f"{decided['near_misses_accepted']:.1%}", "<= 20 %"],
        ["wrong, by whatever is said", f"{wrong['without']:.1%}", ""],
        ["wrong, as a query decides", f"{wrong['with']:.1%}", ""],
        ["the same as a share", f"{wrong['ratio']:.3f}", "<= 0.333"],
        ["cost, of a query", f"{cost['share']:.1%} ({cost['ms']:.0f} ms)", "<= 5 %"],
    ]


def _areas(curves: dict[str, dict[str, dict[str, float]]]) -> list[list[str]]:
    against = (presence.ABSENT, presence.NEAR_MISS, presence.ALL)
    return [[name, *(f"{curve[each]['auc']:.3f}" for each in against)] for name, curve in curves.items()]


def _decisions(kinds: list[str], presences: list[float], least: float) -> list[list[str]]:
    rows = []
    for threshold in sorted({*_THRESHOLDS, least}):
        decided = presence.decisions_of(kinds, presences, threshold)
        name = f"**{threshold:g}**" if threshold == least else f"{threshold:g}"
        rows.append([name, *(f"{share:.3f}" for share in decided.values())])
    return rows


def _kinds(shares: dict[str, dict[str, float]]) -> list[list[str]]:
    return [
        [kind.replace("_", " "), f"{share['queries']}", f"{share['accepted']:.3f}", f"{share['probability']:.3f}"]
        for kind, share in shares.items()
    ]
