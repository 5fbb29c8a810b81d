"""What becomes of objects that go out of sight, or meet their doubles."""

from __future__ import annotations

from dataclasses import asdict, replace

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress
from decaf_ros.bench.runs import draw_scripts, meet_doubles, play_scripts
from decaf_ros.bench.scripted import DOUBLE, HZ, PATIENCE_S, SCRIPT_KINDS, rates
from decaf_ros.config import SessionConfig
from decaf_ros.evaluation.replay import Latency
from decaf_ros.evaluation.tables import markdown_table

_HEADER = (
    "the object",
    "scripts",
    "found again, memory alone",
    "with re-query",
    "median delay in s",
    "frames out of sight with a mask",
)


def measure(run: Run, episodes: int, doubles: int) -> Measured:
    """What becomes of objects that go out of sight, or meet their doubles."""
    setup, processes = replace(run.setup, memory_gating=True, motion_gating=True), run.processes
    scripts = draw_scripts([kind for kind in SCRIPT_KINDS if kind != DOUBLE], run.seeds(episodes), processes)
    without, with_it = (
        rates(list(progress(name, play_scripts(setup, SessionConfig(reacquire=again), scripts, processes), len(scripts))))
        for name, again in (("without", False), ("with re-query", True))
    )
    rows = [
        [
            kind,
            str(rate.scripts),
            f"{without[kind].in_time:.2f}",
            f"{rate.in_time:.2f}",
            f"{rate.delay_s:.1f}",
            f"{rate.wrong:.2f}",
        ]
        for kind, rate in with_it.items()
    ]
    met = draw_scripts([DOUBLE], run.seeds(doubles), processes)
    kept, kept_without = (
        sum(progress(name, meet_doubles(replace(setup, motion_gating=gated), met, processes), len(met)))
        for name, gated in (("doubles", True), ("doubles, without motion gating", False))
    )
    page = f"""# Loss and return

{markdown_table(_HEADER, rows)}
An object is asked for by a sentence, followed, and goes out of sight, or passes another object, which can draw the mask away.
The camera goes around the middle between it and a tall box, or the other object, so that one hides the other; where it
*leaves*, the arm carries it out of the image, and brings it back. *Found again*: followed steadily under its old id within
{PATIENCE_S:g} s of its return, among scripts in which it was followed before. *Memory alone*: SAM 2's; *with re-query*: the
node's default, which asks again for objects that are lost or that attention disagrees with (target: 0.9). Simulated time
(`decaf_ros/evaluation/replay.py`): a camera at {HZ:g} Hz, a query takes {Latency().key_frame_s:g} s a key frame.

A double of the same kind and colour passes an object head-on, in front of it: in {kept} of {len(met)} scripts the object
is followed on most frames of the last half second (target: 0.8 of them), without motion gating in {kept_without}. Re-query is
off, since no sentence tells the two apart. SAM 2's memory knows how things look, not how they move: the double draws the mask
onto both. Motion gating gives up the part that is not where the object was going. It cannot help where the mask moves to the
double alone.

{conditions(run)}
"""
    figures = {
        "memory_alone": {kind: asdict(rate) for kind, rate in without.items()},
        "with_re_query": {kind: asdict(rate) for kind, rate in with_it.items()},
        "doubles": {"scripts": len(met), "kept": kept, "kept_without_motion_gating": kept_without},
    }
    return Measured(page, named(figures))
