"""Chooses how presence is decided: the constants of ``decaf_ros/method/presence.py``, and the default of ``min_presence``.

``.venv/bin/python -m tools.fit_presence --write`` asks the embedded model about held-out scenes that no score is of, and writes
what fits best; ``make docs`` afterwards. Weights and pooling are chosen by the area under the curve, the threshold by balanced
accuracy: of those that are about as good it is the one that refuses the fewest sentences that are true.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from decaf_ros.bench.report import progress
from decaf_ros.bench.runs import ask_presences, draw_queries
from decaf_ros.evaluation.presence import Answers, area_under_curve, by_path, curves_of, decisions_of, presence_counts
from decaf_ros.evaluation.setups import Setup
from decaf_ros.method.presence import combined_presence
from decaf_ros.synthetic.table.sampling import FIRST_SCORED_SEED
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS

FIRST_SEED = FIRST_SCORED_SEED + 200_000
"""Held out from training, and apart from the scenes that scores are of."""
VIDEO_SHARES = tuple(index / 10 for index in range(11))
LIKELIEST_SHARES = (1 / 16, 0.25, 0.5, 1.0)
THRESHOLDS = tuple(index / 100 for index in range(1, 100))
AS_GOOD = 0.015
"""Of balanced accuracy, which the mildest threshold may have less than the best one."""
WRITTEN = ("decaf_ros/method/presence.py", "decaf_ros/config.py", "config/decaf.yaml")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Fit:
    """What was chosen.

    Attributes:
        video_share, likeliest_share: see :func:`~decaf_ros.method.presence.combined_presence`.
        min_presence: the threshold.
    """

    video_share: float
    likeliest_share: float
    min_presence: float


def fit(answers: Sequence[Answers]) -> Fit:
    """What fits best; of equals, what is nearest to taking both paths and a quarter of the frames."""
    kinds = [each.kind for each in answers]

    def preferred(shares: tuple[float, float]) -> tuple[float, float, float]:
        area = area_of(kinds, presences_of(answers, *shares))
        return round(area, 3), -abs(shares[0] - 0.5), -abs(shares[1] - 0.25)

    video_share, likeliest_share = max(itertools.product(VIDEO_SHARES, LIKELIEST_SHARES), key=preferred)
    presences = presences_of(answers, video_share, likeliest_share)
    return Fit(video_share, likeliest_share, threshold(kinds, presences))


def threshold(kinds: Sequence[str], presences: Sequence[float]) -> float:
    """The mildest of those that are about as good as the best one."""
    accuracies = {each: decisions_of(kinds, presences, each)["balanced_accuracy"] for each in THRESHOLDS}
    best = max(accuracies.values())
    return next(each for each, accuracy in accuracies.items() if accuracy >= best - AS_GOOD)


def presences_of(answers: Sequence[Answers], video_share: float, likeliest_share: float) -> list[float]:
    """Of each query."""
    return [combined_presence(each.video, each.frames, video_share, likeliest_share) for each in answers]


def area_of(kinds: Sequence[str], values: Sequence[float]) -> float:
    """Under the curve of present sentences against all others."""
    told = list(zip(kinds, values, strict=True))
    present = [value for kind, value in told if kind not in ABSENT_KINDS]
    return area_under_curve(present, [value for kind, value in told if kind in ABSENT_KINDS])


def write(chosen: Fit, root: Path = ROOT) -> None:
    """Write what was chosen to where it is read, and to the example of parameters."""
    method, config, example = (root / name for name in WRITTEN)
    _set(method, r"^VIDEO_SHARE = ", chosen.video_share)
    _set(method, r"^LIKELIEST_SHARE = ", chosen.likeliest_share)
    _set(config, r"^    min_presence: float = ", chosen.min_presence)
    _set(example, r"^    min_presence: ", chosen.min_presence)


def _set(path: Path, before: str, value: float) -> None:
    text, found = re.subn(rf"({before})[0-9.]+$", rf"\g<1>{value!r}", path.read_text(), flags=re.MULTILINE)
    if found != 1:
        raise SystemExit(f"{path} has {found} lines that begin with {before!r}, not one")
    path.write_text(text)


def main() -> None:
    """Ask, or read what was answered, choose, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=200, help="true of something, and as many true of nothing")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--mllm", default="embedded", help="the language model that is asked")
    parser.add_argument("--answers", type=Path, help="a JSON file: read where it is there, written where it is not")
    parser.add_argument("--write", action="store_true", help="write what was chosen into the sources")
    arguments = parser.parse_args()
    answers = _answers(arguments)
    kinds = [each.kind for each in answers]
    for name, values in by_path(answers).items():
        print(f"{name}: {_told(kinds, values)}")
    for share in VIDEO_SHARES:
        areas = [area_of(kinds, presences_of(answers, share, likeliest)) for likeliest in LIKELIEST_SHARES]
        print(f"video share {share:.1f}, by likeliest share: " + ", ".join(f"{area:.3f}" for area in areas))
    chosen = fit(answers)
    presences = presences_of(answers, chosen.video_share, chosen.likeliest_share)
    print(f"{chosen}: {_told(kinds, presences)}")
    for name, share in decisions_of(kinds, presences, chosen.min_presence).items():
        print(f"  {name}: {share:.3f}")
    if arguments.write:
        write(chosen)


def _answers(arguments: argparse.Namespace) -> list[Answers]:
    if arguments.answers and arguments.answers.exists():
        return [Answers(each["kind"], each["video"], each["frames"]) for each in json.loads(arguments.answers.read_text())]
    queries = draw_queries(presence_counts(arguments.queries), arguments.first_seed, arguments.processes)
    asked = ask_presences(Setup(mllm=arguments.mllm), queries, arguments.processes)
    answers = list(progress("presence", asked, len(queries)))
    if arguments.answers:
        arguments.answers.write_text(json.dumps([asdict(each) for each in answers]))
    return answers


def _told(kinds: Sequence[str], values: Sequence[float]) -> str:
    curves = curves_of(kinds, values)
    return "areas under the curve: " + ", ".join(f"{name} {curve['auc']:.3f}" for name, curve in curves.items())


if __name__ == "__main__":
    main()
