"""``decaf demo``: a simulated camera and decaf_node as processes of their own, asked as a user asks, scored against the truth.

The camera films a robot's table while the arm works. Three sentences about scenes that no model was trained on: two that mean a
thing, and one that is true of nothing, of which the node is to say that it is not there. The exit status is 1 if anything
fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from decaf_ros.cli import pick
from decaf_ros.cli.demo_pictures import draw_sheet, look_again, write_video
from decaf_ros.cli.demo_run import ANSWER_SECONDS, TRACKING_SECONDS, Absence, DemoError, Outcome, run_node, say
from decaf_ros.cli.demo_scenes import choose_queries, require_kinds
from decaf_ros.cli.models import whole_number
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.outputs import OutputFolder
from decaf_ros.video import VideoError

# Scenes to look at, not to judge by: docs/benchmarks has the averages over many.
FIRST_SEED = 24
KINDS = ("put_down", "colour_category", "near_miss")
LEAST_J_AND_F = 0.5
_OUTPUTS = ("camera.log", "node.log", "overlay.mp4", "contact_sheet.png", "results.md")
_NONE = "-"
_HEADER = (
    *("query", "kind", "is it there?", "name", "latency in ms"),
    *("J", "F", "J&F", "masks published", "frames dropped", "frames per second"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.pick:
        return pick.main(arguments.pick, arguments.out)
    try:
        *present, absent = choose_queries(arguments.seed, arguments.kinds, ANSWER_SECONDS + TRACKING_SECONDS)
    except ValueError as error:  # no scene from this seed on is held out
        parser.error(str(error))
    try:
        out = OutputFolder(arguments.out)
        for name in _OUTPUTS:
            out.holds_file(name)  # what is in the way is seen at once
        outcomes, absence = run_node(present, absent, out)
        write_video(out, outcomes)
        say("looking at the same key frames once more, step by step")
        look = look_again(outcomes, absence)
        out.write_png("contact_sheet.png", draw_sheet(outcomes, absence, look)[..., ::-1])
        table = _table(outcomes, absence)
        out.write_text("results.md", table)
    except (DemoError, VideoError, OSError) as error:  # TimeoutError is an OSError
        print(f"decaf demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\n{table}\n{arguments.out}/overlay.mp4, contact_sheet.png and results.md are written.")
    return _verdict(outcomes, absence)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="decaf demo", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=FIRST_SEED,
        help="the first suitable scenes from this one on are shown (default: %(default)s)",
    )
    parser.add_argument(
        "--kinds",
        type=_kinds,
        default=KINDS,
        metavar="KIND,KIND,KIND",
        help="of the sentences, such as put_down,relation,near_miss (default: " + ",".join(KINDS) + ")",
    )
    parser.add_argument(
        "--pick", nargs="?", type=whole_number, const=3, metavar="N", help="pick by sentence instead, N (3) times"
    )
    return parser


def _kinds(text: str) -> tuple[str, str, str]:
    """An argument type: three kinds of sentences."""
    try:
        return require_kinds(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _table(outcomes: Sequence[Outcome], absence: Absence) -> str:
    rows = [[*_asked(outcome, "there"), *outcome.cells()] for outcome in outcomes]
    rows.append([*_asked(absence, absence.verdict), *[_NONE] * len(outcomes[0].cells())])
    return markdown_table(_HEADER, rows)


def _asked(asked: Outcome | Absence, verdict: str) -> list[str]:
    kind = asked.query.sentence.kind.replace("_", " ")
    return [asked.text, kind, f"{verdict}, presence {asked.response.presence:.1%}"]


def _verdict(outcomes: Sequence[Outcome], absence: Absence) -> int:
    poor = [outcome for outcome in outcomes if outcome.scores.j_and_f < LEAST_J_AND_F]
    for outcome in poor:
        print(f'"{outcome.text}": J&F is below {LEAST_J_AND_F}', file=sys.stderr)
    if not absence.noticed:
        print(f'"{absence.text}": {absence.verdict}, though there is none', file=sys.stderr)
    return 1 if poor or not absence.noticed else 0


if __name__ == "__main__":
    sys.exit(main())
