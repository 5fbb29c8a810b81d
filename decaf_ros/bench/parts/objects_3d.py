"""How far off objects are in space."""

from __future__ import annotations

from dataclasses import replace

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress
from decaf_ros.bench.runs import measure_space
from decaf_ros.bench.space import space_figures
from decaf_ros.evaluation.held_out import CLIP_FRAMES, CLIP_HZ
from decaf_ros.evaluation.tables import markdown_table

_HEADER = ("objects", "frames", "with a place", "median, cm at a metre", "90th percentile")
_TARGET_CM = 1.5


def measure(run: Run, scenes: int) -> Measured:
    """How far off objects are in space."""
    setup = replace(run.setup, memory_gating=True, motion_gating=True)
    seeds = run.seeds(scenes)
    found = progress("objects-3d", measure_space(setup, seeds, run.processes), len(seeds))
    figures = space_figures(error for errors in found for error in errors)
    rows = [
        [name.replace("_", " "), str(row["frames"]), f"{row['located']:.3f}", f"{row['median_cm']:.2f}", f"{row['p90_cm']:.2f}"]
        for name, row in figures.items()
    ]
    page = f"""# Objects in space

{markdown_table(_HEADER, rows)}
Target: a median of {_TARGET_CM:g} cm. Every object that is seen well at the start of a scene's last {CLIP_FRAMES} frames
({CLIP_HZ:g} Hz) is pointed out by its mask, and followed by the node's session; what `~/objects_3d` would say is compared with
the world's truth on each later frame on which it is seen well. The error is the distance between the measured centroid
and that of what is truly visible of the object, divided by its distance from the camera in metres. Depth images are the
world's, in whole millimetres. {len(seeds)} scenes, seeds from {seeds[0]}.

{conditions(run)}
"""
    return Measured(page, named(figures))
