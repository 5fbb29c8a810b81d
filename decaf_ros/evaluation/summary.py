"""Means over a dataset beside the paper's figures, in percent."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decaf_ros.evaluation.journal import Record
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.outputs import OutputFolder

OVERALL = "overall"


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
}

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
    "paper: coarse J&F",
    "paper: J&F",
)


@dataclass(frozen=True)
class Means:
    """Scores in [0, 1] of a group of sentences."""

    count: int
    coarse: MaskScores
    masks: MaskScores


def group_means(records: Iterable[Record], overall_of: Sequence[str] = ()) -> dict[str, Means]:
    """Means by category, and :data:`OVERALL` first.

    Args:
        records: of one variant; those without ground truth are left out.
        overall_of: categories of which the overall score is the plain mean, as ReVOS defines it; other categories then do
            not count. Empty: the mean over all sentences.
    """
    scored = [record for record in records if record.coarse and record.masks]
    groups = {
        category: _means([record for record in scored if record.category == category])
        for category in sorted({record.category for record in scored})
    }
    counted = [groups[category] for category in overall_of if category in groups]
    overall = _mean_of_means(counted) if counted else _means(scored) if scored else None
    named = {category: means for category, means in groups.items() if category}
    return {OVERALL: overall, **named} if overall else {}


def summary_rows(dataset: str, records: Iterable[Record], overall_of: Sequence[str] = ()) -> list[list[str]]:
    """The rows below :data:`HEADER`: for each variant the overall scores, then those of its categories."""
    by_variant: dict[str, list[Record]] = {}
    for record in records:
        by_variant.setdefault(record.variant, []).append(record)
    rows = []
    for variant, mine in by_variant.items():
        for category, means in group_means(mine, overall_of).items():
            paper = PAPER.get((dataset, variant), PaperFigures()) if category == OVERALL else PaperFigures()
            figures = [*_percent(means.coarse), *_percent(means.masks), _cell(paper.coarse), _cell(paper.masks)]
            rows.append([variant, category, str(means.count), *figures])
    return rows


def write_expressions(out: OutputFolder, name: str, records: Iterable[Record]) -> None:
    """A CSV file with a row a sentence, texts as the dataset has them; scores in percent, empty without ground truth."""
    with out.text(name) as file:
        writer = csv.writer(file)
        writer.writerow(
            ("variant", "video", "expression_id", "expression", "category", "object_name", "confident", "seconds", *HEADER[3:9])
        )
        for each in records:
            about = (each.variant, each.video, each.expression_id, each.expression, each.category, each.object_name)
            writer.writerow((*about, each.confident, each.seconds, *_percent(each.coarse), *_percent(each.masks)))


def write_summary(out: OutputFolder, name: str, rows: Iterable[Sequence[str]]) -> None:
    """The summary's rows as a CSV file."""
    with out.text(name) as file:
        csv.writer(file).writerows([HEADER, *rows])


def _means(records: Sequence[Record]) -> Means:
    coarse = [record.coarse for record in records if record.coarse]
    masks = [record.masks for record in records if record.masks]
    return Means(len(records), _mean_scores(coarse), _mean_scores(masks))


def _mean_of_means(groups: Sequence[Means]) -> Means:
    count = sum(group.count for group in groups)
    return Means(count, _mean_scores([group.coarse for group in groups]), _mean_scores([group.masks for group in groups]))


def _mean_scores(scores: Sequence[MaskScores]) -> MaskScores:
    return MaskScores(float(np.mean([each.j for each in scores])), float(np.mean([each.f for each in scores])))


def _percent(scores: MaskScores | None) -> list[str]:
    if scores is None:
        return ["", "", ""]
    return [f"{100 * value:.1f}" for value in (scores.j, scores.f, scores.j_and_f)]


def _cell(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.1f}"
