"""What the demo shows of its queries: a video of what was published, and a sheet of the steps that are on no topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from decaf_ros.cli.contact_sheet import AbsentRow, SheetRow, draw_contact_sheet
from decaf_ros.cli.demo_run import CAMERA_HZ, TRACKING_SECONDS, Absence, DemoError, Outcome, truth_of
from decaf_ros.cli.live_picture import draw_live
from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import HeatMap, UInt8Array
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.outputs import OutputFolder
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.frames import KeyFrameBuffer, StoredFrame, window_of
from decaf_ros.session.grounding import Grounder, Grounding


@dataclass(frozen=True, eq=False)
class SecondLook:
    """What is on no topic, computed once more on the key frames that the node looked at.

    Attributes:
        groundings: the steps of each query.
        absent_heat: where the model looks for what is not there.
    """

    groundings: list[Grounding]
    absent_heat: HeatMap


def write_video(out: OutputFolder, outcomes: Sequence[Outcome]) -> None:
    """All queries one after another, as they were live."""
    with out.video("overlay.mp4", CAMERA_HZ) as video:
        for outcome in outcomes:
            for picture in live_pictures(outcome):
                video.write(picture)


def live_pictures(outcome: Outcome) -> Iterator[UInt8Array]:
    """For each camera image what the node published by then: masks on the left, the newest heat map on the right."""
    recording, answered_ns = outcome.recording, stamp_to_ns(outcome.response.stamp)
    answer = f"{outcome.response.object_name}, after {outcome.response.latency.total_ms * 1e-3:.1f} s"
    for stamp, frame in sorted(recording.overlay.items()):
        heat = max((each for each in recording.heat if each <= stamp), default=None)
        caption = "watching"
        if stamp > outcome.asked_ns:
            caption = f'"{outcome.text}" - {answer if stamp > answered_ns else "looking for it"}'
        yield draw_live(frame.image_rgb, None if heat is None else recording.heat[heat].image_rgb, caption)


def look_again(outcomes: Sequence[Outcome], absence: Absence) -> SecondLook:
    """Go through the steps on the key frames of each query; the last one's are asked for what is not there, too."""
    tracker, attention = Sam2Tracker.load("embedded"), MllmAttention(load_mllm("embedded"))
    grounder = Grounder(attention, tracker)
    clips = [_key_frames(outcome, tracker) for outcome in outcomes]
    groundings = [grounder.ground(clip, outcome.text) for outcome, clip in zip(outcomes, clips, strict=True)]
    heat_hw = attention.attend(window_of(clips[-1]), absence.text).heat_thw[-1]
    return SecondLook(groundings, HeatMap(clips[-1][-1].frame, 1, heat_hw.numpy()))


def _key_frames(outcome: Outcome, tracker: Sam2Tracker) -> list[StoredFrame]:
    """Those that the node looked at."""
    buffer = KeyFrameBuffer(SessionConfig.window_seconds, SessionConfig.window_hz)
    reference_ns = stamp_to_ns(outcome.response.reference_stamp)
    for stamp, frame in sorted(outcome.recording.camera.items()):
        if stamp <= reference_ns and stamp in outcome.recording.truth:
            buffer.add(StoredFrame(frame, tracker))
    clip = buffer.select(SessionConfig.key_frames)
    if not clip:
        raise DemoError("the camera's images were not received")
    return clip


def draw_sheet(outcomes: Sequence[Outcome], absence: Absence, look: SecondLook) -> UInt8Array:
    """The sheet, uint8 RGB."""
    first, *others = [_sheet_row(outcome, grounding) for outcome, grounding in zip(outcomes, look.groundings, strict=True)]
    title = f'"{absence.text}"   there is none. The node: {absence.verdict}'
    asked: list[Outcome | Absence] = [*outcomes, absence]
    presence = {each.text: each.response.presence for each in asked}
    return draw_contact_sheet(first, others, AbsentRow(title, look.absent_heat, presence))


def _sheet_row(outcome: Outcome, grounding: Grounding) -> SheetRow:
    stamps = [frame.stamp_ns for frame in grounding.window.frames]
    truth = np.stack([truth_of(outcome.query, outcome.recording, stamp) for stamp in stamps])
    title = (
        f'"{outcome.text}"   named: {outcome.response.object_name}'
        f"   J&F over {TRACKING_SECONDS:g} s of live tracking: {outcome.scores.j_and_f:.2f}"
    )
    live = outcome.recording.overlay[max(outcome.recording.overlay)]
    return SheetRow(title, grounding, truth, live.image_rgb)
