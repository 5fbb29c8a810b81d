"""Means over a dataset beside the paper's figures, in percent."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np

from decaf_ros.evaluation.journal import LiveScores, Record
from decaf_ros.evaluation.live import live_means, mean_of_numbers
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.outputs import OutputFolder

OVERALL = "overall"

_NOT_LIVE = LiveScores(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class PaperFigures:
    """J&F in percent with Qwen2.5-VL-7B, SAM 2 (Hiera-L) and 16 key frames; ``None`` where none is known.

    Attributes:
        coarse: of the masks straight from the heat map.
        masks: of SAM 2's masks.
    """

    coarse: float | None = None
    masks: float | None = None


# DecAF's tables, by dataset and variant; a dataset's figure is its overall one.
PAPER: Mapping[tuple[str, str], PaperFigures] = {
    ("ref-davis17", "full method"): PaperFigures(25.3, 75.2),
    ("ref-davis17", "object prompt only, no contrast"): PaperFigures(masks=61.9),
    ("ref-davis17", "video path only"): PaperFigures(masks=65.9),
    ("ref-davis17", "frame path only"): PaperFigures(masks=67.4),
    ("ref-davis17", "single scale"): PaperFigures(masks=72.4),
    ("ref-davis17", "rollout: original"): PaperFigures(masks=68.4),
    ("ref-davis17", "rollout: max"): PaperFigures(masks=72.9),
    ("reasonvos", "full method"): PaperFigures(20.6, 63.9),
    ("reasonvos", "object prompt only, no contrast"): PaperFigures(masks=58.4),
    ("reasonvos", "video path only"): PaperFigures(masks=58.6),
    ("reasonvos", "frame path only"): PaperFigures(masks=58.2),
    ("reasonvos", "single scale"): PaperFigures(masks=60.5),
    ("reasonvos", "rollout: original"): PaperFigures(masks=56.8),
    ("reasonvos", "rollout: max"): PaperFigures(masks=60.9),
    ("revos", "full method"): PaperFigures(20.2, 54.2),
    ("ref-davis17", "Loc-Head"): PaperFigures(19.1, 64.6),
    ("reasonvos", "Loc-Head"): PaperFigures(10.7, 41.1),
    ("revos", "Loc-Head"): PaperFigures(14.1, 47.0),
    ("ref-davis17", "TAM"): PaperFigures(3.5),
    ("reasonvos", "TAM"): PaperFigures(3.7),
    ("revos", "TAM"): PaperFigures(4.0),
}

# J&F in percent that others publish of methods that are not here, with models and protocols of their own.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "CoT-RVS, Qwen3-VL-8B": {"revos": 54.3, "reasonvos": 55.7, "mevis": 40.8},
    "CoT-RVS, GPT-4o": {"revos": 55.9, "reasonvos": 65.5, "mevis": 52.2},
    "AgentRVOS, SAM 3, Qwen3-VL-8B": {"revos": 59.8, "reasonvos": 68.6, "mevis": 61.9},
    "AgentRVOS, SAM 3, GPT-5": {"revos": 66.3, "reasonvos": 75.5, "mevis": 73.1},
    "VISA (trained)": {"revos": 46.9},
    "VideoSeg-R1-7B (trained)": {"revos": 61.1, "mevis": 55.3},
    "Veason-R1 (trained)": {"revos": 61.3, "reasonvos": 59.9},
}
NOT_RUN = "published, not run"

HEADER = (
    "variant",
    "group",
    "expressions",
    "coarse J",
    "coarse F",
    "coarse J&F",
    "J",
    "F",
    "J&F",
    "R",
    "present: found",
    "absent: refused",
    "paper: coarse J&F",
    "paper: J&F",
)

LIVE_HEADER = (
    "variant",
    "group",
    "expressions",
    "J",
    "F",
    "J&F",
    "R",
    "present: found",
    "absent: refused",
    "answered",
    "with a mask",
    "frames without an answer",
    "s to the first mask",
)


@dataclass(frozen=True)
class Means:
    """Scores in [0, 1] of a group of sentences.

    Attributes:
        count: of the sentences.
        coarse, masks: means over them; ``None`` for coarse masks of what was asked live.
        robustness: mean R; ``None`` where it is not known of each.
        found: share of sentences that are true of something to which a mask was given; ``None`` where there are none.
        refused: share of those that are true of nothing to which none was given; ``None`` where there are none.
        live: of those that were asked live, see :func:`~decaf_ros.evaluation.live.live_means`; empty where none was.
    """

    count: int
    coarse: MaskScores | None
    masks: MaskScores | None
    robustness: float | None
    found: float | None
    refused: float | None
    live: Mapping[str, float]


def group_means(records: Iterable[Record], overall_of: Sequence[str] = ()) -> dict[str, Means]:
    """Means by category, and :data:`OVERALL` first.

    Args:
        records: of one variant; those without ground truth are left out.
        overall_of: categories of which the overall score is the plain mean, as ReVOS defines it; other categories then do
            not count, but for what is found and refused. Empty: the mean over all sentences.
    """
    scored = [record for record in records if record.masks]
    if not scored:
        return {}
    groups = {
        category: _means([record for record in scored if record.category == category])
        for category in sorted({record.category for record in scored})
    }
    overall = _means(scored)
    counted = [groups[category] for category in overall_of if category in groups]
    named = {category: means for category, means in groups.items() if category}
    return {OVERALL: _mean_of_means(overall, counted) if counted else overall, **named}


def _by_variant(records: Iterable[Record]) -> dict[str, list[Record]]:
    by_variant: dict[str, list[Record]] = {}
    for record in records:
        by_variant.setdefault(record.variant, []).append(record)
    return by_variant


def live_rows(records: Iterable[Record], overall_of: Sequence[str] = ()) -> list[list[str]]:
    """The rows below :data:`LIVE_HEADER`, else as :func:`summary_rows`, of sentences that were asked live."""
    rows = []
    for variant, mine in _by_variant(record for record in records if record.live).items():
        for category, means in group_means(mine, overall_of).items():
            soon = [_share(means.live[name]) for name in ("answered", "with_mask", "without_answer")]
            seconds = "" if math.isnan(means.live["first_mask_s"]) else f"{means.live['first_mask_s']:.2f}"
            rows.append([variant, category, str(means.count), *_percent(means.masks), *_claims(means), *soon, seconds])
    return rows


def summary_rows(dataset: str, records: Iterable[Record], overall_of: Sequence[str] = ()) -> list[list[str]]:
    """The rows below :data:`HEADER`: for each variant the overall scores, then those of its categories."""
    rows = []
    for variant, mine in _by_variant(records).items():
        for category, means in group_means(mine, overall_of).items():
            paper = PAPER.get((dataset, variant), PaperFigures()) if category == OVERALL else PaperFigures()
            figures = [*_percent(means.coarse), *_percent(means.masks), *_claims(means)]
            rows.append([variant, category, str(means.count), *figures, _cell(paper.coarse), _cell(paper.masks)])
    return rows


def published_rows(dataset: str) -> list[list[str]]:
    """Rows below :data:`HEADER` of what others publish, marked as such; the highest first."""
    known = {method: figures[dataset] for method, figures in PUBLISHED.items() if dataset in figures}
    between = [""] * (len(HEADER) - 3)
    return [[method, NOT_RUN, *between, _cell(known[method])] for method in sorted(known, key=known.__getitem__, reverse=True)]


def write_expressions(out: OutputFolder, name: str, records: Iterable[Record]) -> None:
    """A CSV file with a row a sentence, texts as the dataset has them; scores in percent, empty without ground truth.

    The last columns tell how soon it was answered, and are empty where it was not asked live.
    """
    with out.text(name) as file:
        writer = csv.writer(file)
        about = ("variant", "video", "expression_id", "expression", "category", "object_name", "confident", "seconds")
        asked = ("found", "there", "presence")
        writer.writerow((*about, *HEADER[3:10], *asked, *(field.name for field in fields(LiveScores))))
        for each in records:
            scores = (*_percent(each.coarse), *_percent(each.masks), _share(each.robustness))
            soon = ("" if math.isnan(value) else value for value in astuple(each.live or _NOT_LIVE))
            told = [getattr(each, name) for name in asked]
            writer.writerow((*(getattr(each, name) for name in about), *scores, *told, *soon))


def write_summary(out: OutputFolder, name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The summary's rows as a CSV file."""
    with out.text(name) as file:
        csv.writer(file).writerows([header, *rows])


def _means(records: Sequence[Record]) -> Means:
    live = [(record.masks, record.live) for record in records if record.masks and record.live]
    return Means(
        len(records),
        _mean_scores([record.coarse for record in records]),
        _mean_scores([record.masks for record in records]),
        _mean([record.robustness for record in records]),
        _mean([float(record.found) for record in records if record.there]),
        _mean([float(not record.found) for record in records if record.there is False]),
        live_means(live) if live else {},
    )


def _mean_of_means(overall: Means, groups: Sequence[Means]) -> Means:
    """Of a few groups, which weigh alike; what is found and refused stays that of all."""
    return replace(
        overall,
        count=sum(group.count for group in groups),
        coarse=_mean_scores([group.coarse for group in groups]),
        masks=_mean_scores([group.masks for group in groups]),
        robustness=_mean([group.robustness for group in groups]),
        live={name: mean_of_numbers(group.live[name] for group in groups if group.live) for name in overall.live},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """``None`` where there is no value, or one is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _mean_scores(scores: Sequence[MaskScores | None]) -> MaskScores | None:
    """Of those that are known; ``None`` where none is."""
    known = [each for each in scores if each]
    return MaskScores(float(np.mean([each.j for each in known])), float(np.mean([each.f for each in known]))) if known else None


def _claims(means: Means) -> list[str]:
    return [_share(share) for share in (means.robustness, means.found, means.refused)]


def _percent(scores: MaskScores | None) -> list[str]:
    if scores is None:
        return ["", "", ""]
    return [f"{100 * value:.1f}" for value in (scores.j, scores.f, scores.j_and_f)]


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _cell(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.1f}"
