"""Speed and memory of the tracker: many objects, a stream without end, and the tracklets of a query.

``python tools/bench_tracker.py`` prints Markdown. Each measurement runs in a process of its own, warm-up apart.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import Time, apart, machine, resident_mib, timed
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import BoolArray, Frame, ObjectPrompt, PointPrompt
from decaf_ros.evaluation.held_out import KEY_INDICES, key_window, sample_queries
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import FrameFeatures, MaskProposals
from decaf_ros.models.sam2_loading import load_sam2, locate
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.models.visual_prefix import MllmOptions
from decaf_ros.outputs import OutputFolder
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder, _Candidate
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.stages import StageClock
from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.synthetic.table.rendering import View

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "test" / "parity"))

OBJECTS = (1, 2, 4, 8)
TARGETS = {1: "<= 1.05", 4: "<= 0.6", 8: "<= 0.5"}
SCENE_SEED, CAMERA_HZ, WARM_UP_FRAMES = 18, 10.0, 16
SOAK_IMAGE_SIZE, SOAK_OBJECTS = 64, 8


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--frames", type=int, default=80, help="for each number of objects (default: %(default)s)")
    parser.add_argument("--soak-frames", type=int, default=20_000, help="to watch the memory for (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=8, help="whose tracklets are timed (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    arguments = parser.parse_args()
    page = f"""# The tracker

{machine()}, float32, warm-up apart. Made by `.venv/bin/python tools/bench_tracker.py`.

## Many objects

{_speed(arguments.frames)}
The embedded SAM 2.1 over frames of 192 x 256 pixels, encoder included; {arguments.frames} frames with each side in turn, of
which {WARM_UP_FRAMES} are warm-up. With one thread it is CPU time, which does not depend on what else the machine does; with
all cores, which is PyTorch's default, time by the clock (load {os.getloadavg()[0]:.1f}). The predictor gets the whole video
beforehand, and its reading and resizing is not timed; ours gets an image at a time, resizing included.

What several objects save are calls, and what does not depend on the object. Beyond that the arithmetic of each object remains:
one thread is busy with it, while batches are large enough to keep two threads busy, and single objects are not.

## A stream without end

{_soak(arguments.soak_frames)}
A session that follows {SOAK_OBJECTS} objects; every 50 frames one is removed and another one pointed out. The embedded SAM 2.1
at {SOAK_IMAGE_SIZE} pixels, so that the frames take minutes; what is kept does not depend on their number. Resident memory of
the process.

## The tracklets of a query

{apart(_tracklets, arguments.queries)}
Point prompts, proposals, suppression, propagation and scores over {len(KEY_INDICES)} key frames (the stage *prompting*).
Plainly, as the method is written down: each point is prompted alone, each mask that survives on its frame is propagated over
the whole clip before it competes, alone, and every frame is encoded each time that it is needed.
"""
    print(page)
    if arguments.write:
        OutputFolder(arguments.write.parent).write_text(arguments.write.name, page)


def _speed(frames: int) -> str:
    rows = []
    for threads in (1, os.cpu_count() or 1):
        for count in OBJECTS:
            official, ours = apart(speeds, frames, count, threads, threads=threads)
            cells = [f"{percentile:.1f}" for times in (official, ours) for percentile in np.percentile(times, [50, 95])]
            ratio = float(np.median(ours) / np.median(official))
            rows.append([str(threads), str(count), *cells, f"{ratio:.2f}", TARGETS.get(count, "")])
    header = ("threads", "objects", "sam2, p50 in ms", "p95", "decaf_ros, p50 in ms", "p95", "ratio", "target")
    return markdown_table(header, rows)


def speeds(frames: int, count: int, threads: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each frame with sam2's predictor and with ours.

    With one thread they are of CPU time, which does not depend on what else the machine does; else by the clock.
    """
    pairs = in_turn(load_sam2("embedded"), locate("embedded").config, _views(frames), count)
    official, ours = zip(*pairs[WARM_UP_FRAMES:], strict=True)
    return tuple([each.cpu_ms if threads == 1 else each.wall_ms for each in side] for side in (official, ours))


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
    from test_sam2_stream import predictor_of  # in test/parity

    first_masks = [views[0].mask_of(two_largest(views[0])[index % 2]) for index in range(count)]
    predictor, tracker = predictor_of(model, config).to(device), Sam2Tracker(Sam2Network(model, device, dtype))
    stream = iter([Frame(index, "camera", view.image_rgb) for index, view in enumerate(views)])
    features = tracker.encode(next(stream))
    tracks = [tracker.start_track(features, mask) for mask in first_masks]
    half = dtype is not torch.float32
    times = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), torch.autocast(device, dtype, enabled=half):
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


def _soak(frames: int) -> str:
    marks = [frames // 20, frames // 4, frames // 2, frames * 3 // 4, frames]
    memory = apart(memory_of_a_session, frames, marks)
    rows = [[f"{mark}", f"{mib:.1f}"] for mark, mib in zip(marks, memory, strict=True)]
    rows.append([f"growth from {marks[0]} on, at most", f"{max(memory) - memory[0]:.1f} (target <= 20)"])
    return markdown_table(("frames", "MiB"), rows)


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


class PlainTracker:
    """A tracker that shares nothing: every frame is encoded when it is needed, and points and masks go one by one."""

    def __init__(self, tracker: Sam2Tracker) -> None:
        self._tracker = tracker
        self._propagated: dict[tuple[int, bytes], BoolArray] = {}

    def encode(self, frame: Frame) -> Frame:
        """Nothing is kept."""
        return frame

    def propose(self, frame: Frame, points_xy_px: Sequence[tuple[float, float]]) -> MaskProposals:
        """One point after another."""
        each = [self._tracker.propose(self._tracker.encode(frame), [point]) for point in points_xy_px]
        return MaskProposals(
            np.concatenate([proposals.masks_phw for proposals in each]),
            torch.cat([proposals.predicted_iou_p for proposals in each]),
        )

    def propagate(self, clip: Sequence[Frame], key_index: int, masks_nhw: BoolArray) -> BoolArray:
        """One mask after another, each only once in its life."""
        return np.stack([self._propagate(clip, key_index, mask) for mask in masks_nhw])

    def _propagate(self, clip: Sequence[Frame], key_index: int, mask_hw: BoolArray) -> BoolArray:
        key = (key_index, mask_hw.tobytes())
        if key not in self._propagated:
            features = [self._tracker.encode(frame) for frame in clip]
            self._propagated[key] = self._tracker.propagate(features, key_index, mask_hw[None])[0]
        return self._propagated[key]

    def forget(self) -> None:
        """Begin another query."""
        self._propagated.clear()


class PlainGrounder(Grounder):
    """The method as it is written down: what survives on its frame is propagated over the whole clip, and then they compete."""

    def _candidates(
        self, features: Sequence[FrameFeatures], prompted: Sequence[PointPrompt], clock: StageClock
    ) -> list[_Candidate]:
        alive: list[_Candidate] = []
        kept: list[_Candidate] = []  # so that no identity is given twice
        masks: dict[int, BoolArray] = {}
        for key_index, here in enumerate(features):
            for old in alive:
                old.current_mask_hw = masks[id(old)][key_index]
            on_frame = [prompt for prompt in prompted if prompt.key_index == key_index]
            newcomers = self._proposals(here, on_frame, clock.check) if on_frame else []
            for newcomer in newcomers:
                [masks[id(newcomer)]] = self.tracker.propagate(features, key_index, newcomer.key_mask_hw[None])
            kept.extend(newcomers)
            alive = self._compete(alive, newcomers)
        return alive


def _tracklets(count: int) -> str:
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
        changed += np.count_nonzero(masks["plainly"] != masks["decaf_ros"])
    ratios = np.array(times["plainly"]) / np.array(times["decaf_ros"])
    rows = [[name, f"{np.median(values):.0f}", f"{np.percentile(values, 95):.0f}"] for name, values in times.items()]
    rows.append(["times faster, median (target >= 4)", f"{np.median(ratios):.1f}", ""])
    rows.append(["pixels of the result that differ", f"{changed} of {pixels}", ""])
    return markdown_table((f"{count} queries", "p50 in ms", "p95 in ms"), rows)


if __name__ == "__main__":
    main()
