"""The parts of ``decaf bench`` that need no ROS: scores on the robot's table, each as a page and as figures."""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

import torch
import transformers

from decaf_ros.bench import space
from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.replay import Latency
from decaf_ros.bench.runs import (
    draw_queries,
    draw_scripts,
    measure_space,
    meet_doubles,
    play_scripts,
    score_presences,
    score_queries,
)
from decaf_ros.bench.scripted import DOUBLE, HZ, PATIENCE_S, SCRIPT_KINDS, rates
from decaf_ros.config import SessionConfig
from decaf_ros.evaluation import presence, quality
from decaf_ros.evaluation.held_out import (
    AT_REST,
    CLIP_FRAMES,
    CLIP_HZ,
    FIRST_SEED,
    KEY_INDICES,
    ROWS,
    WINDOW_S,
    HeldOutQuery,
    even_counts,
)
from decaf_ros.evaluation.setups import Setup, ablations
from decaf_ros.evaluation.summary import PAPER
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.synthetic.table.wordings import EVENT_KINDS

_T = TypeVar("_T")
_PRESENCE_HEADER = ("present sentences against", "absent ones", "present ones", "area under the curve", "target")
_AUC_TARGETS = {presence.ABSENT: 0.97, presence.ALL: 0.90}
_SPACE_HEADER = ("objects", "frames", "with a place", "median, cm at a metre", "90th percentile")
_SPACE_TARGET_CM = 1.5
_TRACKING_HEADER = (
    "the object",
    "scripts",
    "found again, memory alone",
    "with re-query",
    "median delay in s",
    "frames out of sight with a mask",
)


def held_out(setup: Setup, arguments: argparse.Namespace) -> Measured:
    """How well sentences become masks, by kind."""
    queries = draw_queries(dict.fromkeys(ROWS, arguments.queries), arguments.first_seed, arguments.processes)
    scores = list(_progress("held-out", score_queries(setup, queries, arguments.processes), len(queries)))
    rows = quality.rows_of(scores)
    page = f"""# Held-out scores

{markdown_table(("figure", "measured", "target"), _targets(rows))}
{markdown_table(("kind", *quality.HEADER), [[_label(name, row), *quality.cells(row)] for name, row in rows.items()])}
{_scenes(queries)}
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

{_conditions(setup, arguments, f"--parts held-out --queries {arguments.queries}")}
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


def presence_of_yes(setup: Setup, arguments: argparse.Namespace) -> Measured:
    """Whether the language model can tell that nothing fits a sentence."""
    counts = presence.presence_counts(arguments.presence_queries)
    queries = draw_queries(counts, arguments.first_seed, arguments.processes)
    scores = list(_progress("presence", score_presences(setup, queries, arguments.processes), len(queries)))
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

{markdown_table(_PRESENCE_HEADER, rows)}
{markdown_table(("kind", "queries", "yes is likelier", "mean probability of yes"), kinds)}
The language model is asked on the video path whether there is such an object; the probability of *yes* against *no* comes from
the logits of all tokens that read so, in one pass, with nothing decoded. The area under the curve is the probability that a
sentence that is true of something gets a higher one than a sentence that is not. Near misses: a red mug where there are a
red can and a blue mug, the one that fell over where none did.

{_scenes(queries)}

{_conditions(setup, arguments, f"--parts presence --presence-queries {arguments.presence_queries}")}
"""
    return Measured(page, named({"curve": curves, "kind": shares}))


def objects_3d(setup: Setup, arguments: argparse.Namespace) -> Measured:
    """How far off objects are in space."""
    setup = replace(setup, memory_gating=True, motion_gating=True)
    seeds = _seeds(arguments, arguments.scenes)
    found = _progress("objects-3d", measure_space(setup, seeds, arguments.processes), len(seeds))
    figures = space.space_figures(error for errors in found for error in errors)
    rows = [
        [name.replace("_", " "), str(row["frames"]), f"{row['located']:.3f}", f"{row['median_cm']:.2f}", f"{row['p90_cm']:.2f}"]
        for name, row in figures.items()
    ]
    page = f"""# Objects in space

{markdown_table(_SPACE_HEADER, rows)}
Target: a median of {_SPACE_TARGET_CM:g} cm. Every object that is seen well at the start of a scene's last {CLIP_FRAMES} frames
({CLIP_HZ:g} Hz) is pointed out by its mask, and followed by the node's session; what `~/objects_3d` would say is compared with
the world's truth on each later frame on which it is seen well. The error is the distance between the measured centroid
and that of what is truly visible of the object, divided by its distance from the camera in metres. Depth images are the
world's, in whole millimetres. {len(seeds)} scenes, seeds from {seeds[0]}.

{_conditions(setup, arguments, f"--parts objects-3d --scenes {arguments.scenes}")}
"""
    return Measured(page, named(figures))


def ablation(setup: Setup, arguments: argparse.Namespace) -> Measured:
    """The method with one part changed at a time."""
    counts = even_counts([row for row in ROWS if row != AT_REST], arguments.ablation_queries)
    queries = draw_queries(counts, arguments.first_seed, arguments.processes)
    rows, figures = [], {}
    for name, variant in ablations(setup).items():
        scores = list(_progress(name, score_queries(variant, queries, arguments.processes), len(queries)))
        figures[name] = quality.means(scores)
        paper = [f"{PAPER[dataset, name].masks}" for dataset in ("ref-davis17", "reasonvos")]
        rows.append([name, *quality.cells(figures[name])[1:-2], *paper])
    header = ("variant", *quality.HEADER[1:-2], "paper: Ref-DAVIS17 J&F", "paper: ReasonVOS J&F")
    page = f"""# Ablations

{markdown_table(header, rows)}
One part of the method changed at a time; the full method is contrast, both paths, two scales and V-Max rollout.
{_scenes(queries)} All kinds of sentences alike.
The paper's figures (Qwen2.5-VL-7B, SAM 2 Hiera-L, real videos) stand beside ours for the shape of the table, not for
comparison: the embedded models are a thousand times smaller, and were trained with supervision of their attention.

{_conditions(setup, arguments, f"--parts ablation --ablation-queries {arguments.ablation_queries}")}
"""
    return Measured(page, named(figures))


def tracking(setup: Setup, arguments: argparse.Namespace) -> Measured:
    """What becomes of objects that go out of sight, or meet their doubles."""
    setup, processes = replace(setup, memory_gating=True, motion_gating=True), arguments.processes
    scripts = draw_scripts([kind for kind in SCRIPT_KINDS if kind != DOUBLE], _seeds(arguments, arguments.episodes), processes)
    without, with_it = (
        rates(list(_progress(name, play_scripts(setup, SessionConfig(reacquire=again), scripts, processes), len(scripts))))
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
    doubles = draw_scripts([DOUBLE], _seeds(arguments, arguments.doubles), processes)
    kept, kept_without = (
        sum(_progress(name, meet_doubles(replace(setup, motion_gating=gated), doubles, processes), len(doubles)))
        for name, gated in (("doubles", True), ("doubles, without motion gating", False))
    )
    page = f"""# Loss and return

{markdown_table(_TRACKING_HEADER, rows)}
An object is asked for by a sentence, followed, and goes out of sight, or passes another object, which can draw the mask away.
The camera goes around the middle between it and a tall box, or the other object, so that one hides the other; where it
*leaves*, the arm carries it out of the image, and brings it back. *Found again*: followed steadily under its old id within
{PATIENCE_S:g} s of its return, among scripts in which it was followed before. *Memory alone*: SAM 2's; *with re-query*: the
node's default, which asks again for objects that are lost or that attention disagrees with (target: 0.9). Simulated time
(`decaf_ros/bench/replay.py`): a camera at {HZ:g} Hz, a query takes {Latency().key_frame_s:g} s a key frame.

A double of the same kind and colour passes an object head-on, in front of it: in {kept} of {len(doubles)} scripts the object
is followed on most frames of the last half second (target: 0.8 of them), without motion gating in {kept_without}. Re-query is
off, since no sentence tells the two apart. SAM 2's memory knows how things look, not how they move: the double draws the mask
onto both. Motion gating gives up the part that is not where the object was going. It cannot help where the mask moves to the
double alone.

{_conditions(setup, arguments, f"--parts tracking --episodes {arguments.episodes} --doubles {arguments.doubles}")}
"""
    figures = {
        "memory_alone": {kind: asdict(rate) for kind, rate in without.items()},
        "with_re_query": {kind: asdict(rate) for kind, rate in with_it.items()},
        "doubles": {"scripts": len(doubles), "kept": kept, "kept_without_motion_gating": kept_without},
    }
    return Measured(page, named(figures))


def _seeds(arguments: argparse.Namespace, count: int) -> range:
    return range(arguments.first_seed, arguments.first_seed + count)


def _scenes(queries: Sequence[HeldOutQuery]) -> str:
    seeds = {query.seed for query in queries}
    return f"{len(queries)} queries about {len(seeds)} scenes, seeds from {min(seeds)} to {max(seeds)}, none used in training."


def _conditions(setup: Setup, arguments: argparse.Namespace, command: str) -> str:
    seed = "" if arguments.first_seed == FIRST_SEED else f" --first-seed {arguments.first_seed}"
    return (
        f"`decaf bench {command}{seed}`. "
        f"Models: {setup.mllm} (language), {setup.tracker} (masks), on {setup.device}. "
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )


def _progress(name: str, results: Iterable[_T], count: int) -> Iterator[_T]:
    start = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        if done % 20 == 0 or done == count:
            print(f"{name}: {done} of {count}, {(time.monotonic() - start) / done:.1f} s each", file=sys.stderr)
