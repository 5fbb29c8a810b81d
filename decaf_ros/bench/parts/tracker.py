"""Speed and memory of the tracker: many objects, a stream without end, and the tracklets of a query.

Each measurement runs in a process of its own, warm-up apart.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.measuring import Time, apart, machine, resident_mib, timed
from decaf_ros.bench.part import Run
from decaf_ros.bench.reference.sam2_predictor import predictor_of
from decaf_ros.bench.reference.tracklets import PlainGrounder, PlainTracker
from decaf_ros.bench.report import told
from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, ObjectPrompt
from decaf_ros.evaluation.held_out import KEY_INDICES, key_window, sample_queries
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_loading import load_sam2, locate
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.stages import StageClock
from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.synthetic.table.rendering import View

OBJECTS = (1, 2, 4, 8)
TARGETS = {1: "<= 1.05", 4: "<= 0.6", 8: "<= 0.5"}
SCENE_SEED, CAMERA_HZ, WARM_UP_FRAMES = 18, 10.0, 16
SOAK_IMAGE_SIZE, SOAK_OBJECTS = 64, 8


def measure(run: Run, tracker_frames: int, soak_frames: int, tracker_queries: int) -> Measured:
    """All three, with the embedded models."""
    speed, speed_figures = _speed(tracker_frames)
    soak, soak_figures = _soak(soak_frames)
    tracklets, tracklets_figures = _tracklets(tracker_queries)
    page = f"""# The tracker

{machine()}, float32, warm-up apart. `{run.command}`.

## Many objects

{speed}
The embedded SAM 2.1 over frames of 192 x 256 pixels, encoder included; {tracker_frames} frames with each side in turn, of
which {WARM_UP_FRAMES} are warm-up. With one thread it is CPU time, which does not depend on what else the machine does; with
all cores, which is PyTorch's default, time by the clock (load {os.getloadavg()[0]:.1f}). The predictor gets the whole video
beforehand, and its reading and resizing is not timed; ours gets an image at a time, resizing included.

What several objects save are calls, and what does not depend on the object. Beyond that the arithmetic of each object remains:
one thread is busy with it, while batches are large enough to keep two threads busy, and single objects are not.

## A stream without end

{soak}
A session that follows {SOAK_OBJECTS} objects; every 50 frames one is removed and another one pointed out. The embedded SAM 2.1
at {SOAK_IMAGE_SIZE} pixels, so that the frames take minutes; what is kept does not depend on their number. Resident memory of
the process.

## The tracklets of a query

{tracklets}
Point prompts, proposals, suppression, propagation and scores over {len(KEY_INDICES)} key frames (the stage *prompting*).
Plainly, as the method is written down: each point is prompted alone, each mask that survives on its frame is propagated over
the whole clip before it competes, alone, and every frame is encoded each time that it is needed.
"""
    return Measured(page, named({"speed": speed_figures, "soak": soak_figures, "tracklets": tracklets_figures}))


def _speed(frames: int) -> tuple[str, dict[str, dict[str, float]]]:
    """By threads and objects: a table, and figures."""
    rows, figures = [], {}
    for threads in (1, os.cpu_count() or 1):
        for count in OBJECTS:
            sides = apart(speeds, frames, count, threads, threads=threads)
            (official, official_p95), (ours, ours_p95) = (np.percentile(side, [50, 95]).tolist() for side in sides)
            cells = [f"{value:.1f}" for value in (official, official_p95, ours, ours_p95)]
            rows.append([str(threads), str(count), *cells, f"{ours / official:.2f}", TARGETS.get(count, "")])
            figures[f"{threads} threads {count} objects"] = {"sam2_ms": official, "ours_ms": ours, "ratio": ours / official}
    header = ("threads", "objects", "sam2, p50 in ms", "p95", "decaf_ros, p50 in ms", "p95", "ratio", "target")
    return markdown_table(header, told(rows)), figures


def speeds(frames: int, count: int, threads: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each frame with sam2's predictor and with ours.

    With one thread they are of CPU time, which does not depend on what else the machine does; else by the clock.
    """
    pairs = in_turn(load_sam2("embedded"), locate("embedded").config, _views(frames), count)
    timed_pairs = [[each.cpu_ms if threads == 1 else each.wall_ms for each in pair] for pair in pairs[WARM_UP_FRAMES:]]
    official, ours = map(list, zip(*timed_pairs, strict=True))
    return official, ours


def in_turn(
    model: SAM2Base, config: Path, views: Sequence[View], count: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[tuple[Time, Time]]:
    """The time of each frame but the first with sam2's predictor and with ours, in turn, so that both meet the same machine.

    Args:
        model: a network, and so are the other arguments what both follow.
        config: its architecture.
        views: the video. Its loading by the predictor is not timed.
        count: objects, which are the two largest of the first view in turn.
        device: of both.
        dtype: float32, or what both compute in under autocast.
    """
    first_masks = [views[0].mask_of(two_largest(views[0])[index % 2]) for index in range(count)]
    predictor, tracker = predictor_of(model, config).to(device), Sam2Tracker(Sam2Network(model, device, dtype))
    stream = iter([Frame(index, "camera", view.image_rgb) for index, view in enumerate(views)])
    features = tracker.encode(next(stream))
    tracks = [tracker.start_track(features, mask) for mask in first_masks]
    half = dtype is not torch.float32
    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.inference_mode(),
        torch.autocast(torch.device(device).type, dtype, enabled=half),
    ):
        for index, view in enumerate(views):
            Image.fromarray(view.image_rgb).save(Path(folder) / f"{index:05d}.jpg", format="PNG")
        state = predictor.init_state(folder)
        for index, mask in enumerate(first_masks):
            predictor.add_new_mask(state, 0, index, mask)
        steps = predictor.propagate_in_video(state)
        next(steps)
        for _ in views[1:]:
            _, official = timed(lambda: next(steps))
            _, ours = timed(lambda: tracker.step(tracks, tracker.encode(next(stream))))
            times.append((official, ours))
    return times


def _views(frames: int) -> list[View]:
    episode = sample_episode(SCENE_SEED)
    return [episode.render(index / CAMERA_HZ) for index in range(frames)]


def two_largest(view: View) -> list[int]:
    """The two things of which most is seen."""
    pixels = [np.count_nonzero(view.mask_of(thing)) for thing in range(len(view.poses_n44))]
    return np.argsort(pixels)[-2:].tolist()


def _soak(frames: int) -> tuple[str, dict[str, float]]:
    marks = [frames // 20, frames // 4, frames // 2, frames * 3 // 4, frames]
    memory = apart(memory_of_a_session, frames, marks)
    growth = max(memory) - memory[0]
    rows = [[f"{mark}", f"{mib:.1f}"] for mark, mib in zip(marks, memory, strict=True)]
    rows.append([f"growth from {marks[0]} on, at most", f"{growth:.1f} (target <= 20)"])
    return markdown_table(("frames", "MiB"), told(rows)), {"frames": frames, "settled_mib": memory[0], "growth_mib": growth}


def memory_of_a_session(frames: int, marks: Sequence[int]) -> list[float]:
    """Resident memory after some numbers of frames, with objects that come and go."""
    size_hw = (96, 128)
    episode = sample_episode(SCENE_SEED)
    views = [episode.render(index / CAMERA_HZ, size_hw) for index in range(50)]
    things = two_largest(views[0])
    tracker = Sam2Tracker.load("embedded", image_size=SOAK_IMAGE_SIZE)
    session = TrackingSession(tracker, SessionConfig())
    measured = []
    for number in range(1, frames + 1):
        view = views[number % len(views)]
        session.push(Frame(number * 100_000_000, "camera", view.image_rgb))
        session.take_events()
        followed = sorted(session.object_ids.items())
        if len(followed) == SOAK_OBJECTS and number % 50 == 0:
            session.remove_query(followed[0][1])
        if len(followed) < SOAK_OBJECTS or number % 50 == 0:
            record = QueryRecord(session.new_query_id(), "", "", 0, confident=True)
            session.add(record, ObjectPrompt(mask_hw=view.mask_of(things[number % 2])))
            session.end_query()
        if number in marks:
            measured.append(resident_mib())
    return measured


def _tracklets(count: int) -> tuple[str, dict[str, float]]:
    times, changed, pixels = apart(tracklets_in_turn, count)
    faster = float(np.median(np.array(times["plainly"]) / np.array(times["decaf_ros"])))
    rows = [[name, f"{np.median(values):.0f}", f"{np.percentile(values, 95):.0f}"] for name, values in times.items()]
    rows.append(["times faster, median (target >= 4)", f"{faster:.1f}", ""])
    rows.append(["pixels of the result that differ", f"{changed} of {pixels}", ""])
    table = markdown_table((f"{count} queries", "p50 in ms", "p95 in ms"), told(rows))
    figures = {"plainly_ms": float(np.median(times["plainly"])), "ours_ms": float(np.median(times["decaf_ros"]))}
    return table, figures | {"queries": count, "times_faster": faster, "changed_pixels": changed, "pixels": pixels}


def tracklets_in_turn(count: int) -> tuple[dict[str, list[float]], int, int]:
    """Milliseconds of each query plainly and by decaf_ros, and of all pixels of the results how many differ."""
    attention, tracker = MllmAttention(load_mllm("embedded", MllmOptions())), Sam2Tracker.load("embedded")
    plain = PlainTracker(tracker)
    sides = {"plainly": plain, "decaf_ros": tracker}
    grounders = {"plainly": PlainGrounder(attention, plain), "decaf_ros": Grounder(attention, tracker)}  # type: ignore[arg-type]
    times: dict[str, list[float]] = {name: [] for name in sides}
    pixels = changed = 0
    for query in sample_queries({"colour_category": count}):
        frames = key_window(query).frames
        plain.forget()
        masks = {}
        for name, side in sides.items():
            clip = [StoredFrame(frame, side) for frame in frames]  # type: ignore[arg-type]
            clock = StageClock()
            grounding = grounders[name].ground(clip, query.sentence.text, clock)
            times[name].append(clock.latency_ms["prompting"])
            masks[name] = grounding.union_masks()
        pixels += masks["plainly"].size
        changed += int(np.count_nonzero(masks["plainly"] != masks["decaf_ros"]))
    return times, changed, pixels
