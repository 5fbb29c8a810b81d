"""``decaf demo``: a simulated camera and decaf_node as processes of their own, asked as a user asks, scored against the truth.

Three sentences of different kinds, each about a world that no model was trained on. The exit status is 1 if anything fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from decaf_ros.cli import pick
from decaf_ros.cli.contact_sheet import SheetRow, draw_contact_sheet
from decaf_ros.cli.models import whole_number
from decaf_ros.cli.processes import ChildProcess, ros_of_its_own
from decaf_ros.cli.recording import Recorder, Recording
from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import BoolArray, UInt8Array
from decaf_ros.evaluation.held_out import HeldOutQuery, sample_queries
from decaf_ros.evaluation.metrics import MaskScores, score_clip
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.client import DecafClient
from decaf_ros.session.frames import KeyFrameBuffer, StoredFrame
from decaf_ros.session.grounding import Grounder, Grounding
from decaf_ros.srv import Query
from decaf_ros.text import brief
from decaf_ros.video import VideoError

DEMO_KINDS = ("colour", "position", "size")
# Worlds to look at, not to judge by: docs/benchmarks has the averages over many.
FIRST_SEED = 6
CAMERA_HZ = 10.0
WINDOW_SECONDS = SessionConfig.window_seconds
TRACKING_SECONDS = 10.0
LEAST_J_AND_F = 0.5
_START_SECONDS, _POLL_SECONDS = 120.0, 2.0
_SETTLING_SECONDS = 0.5
_VIDEO_SCALE = 2
_OUTPUTS = ("camera.log", "node.log", "overlay.mp4", "contact_sheet.png", "results.md")
_CAMERA, _NODE = "decaf_ros.ros.sim_camera", "decaf_ros.ros.node"


class DemoError(Exception):
    """Something that the demo shows does not work."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one query.

    Attributes:
        query: sentence and world.
        response: the node's answer.
        recording: everything from the camera's first look at the world to the end of tracking.
        stamps_ns: camera images after the answer.
        scores: of the published masks against the ground truth of the same stamps.
    """

    query: HeldOutQuery
    response: Query.Response
    recording: Recording
    stamps_ns: tuple[int, ...]
    scores: MaskScores

    @property
    def published(self) -> tuple[int, ...]:
        """Stamps of the camera images for which masks were published."""
        return tuple(stamp for stamp in self.stamps_ns if stamp in self.recording.labels)

    def cells(self) -> list[str]:
        """The row of the table."""
        rate = len(self.published) / TRACKING_SECONDS
        return [
            self.query.expression.text,
            self.query.expression.kind.replace("_", " + "),
            self.response.object_name,
            f"{self.response.latency.total_ms:.0f}",
            f"{self.scores.j:.3f}",
            f"{self.scores.f:.3f}",
            f"{self.scores.j_and_f:.3f}",
            str(len(self.published)),
            str(len(self.stamps_ns) - len(self.published)),
            f"{rate:.1f}",
        ]


_HEADER = ("query", "kind", "name", "latency in ms", "J", "F", "J&F", "masks published", "frames dropped", "frames per second")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.pick:
        return pick.main(arguments.pick, arguments.out)
    queries = sample_queries(dict.fromkeys(DEMO_KINDS, 1), arguments.seed)
    try:
        out = OutputFolder(arguments.out)
        for name in _OUTPUTS:
            out.holds_file(name)  # what is in the way is seen at once
        outcomes = _run_node(queries, out)
        _write_video(out, outcomes)
        _say("drawing the contact sheet: the same key frames once more, step by step")
        out.write_png("contact_sheet.png", draw_contact_sheet(_sheet_rows(outcomes))[..., ::-1])
        table = markdown_table(_HEADER, [outcome.cells() for outcome in outcomes])
        out.write_text("results.md", table)
    except (DemoError, VideoError, OSError) as error:  # TimeoutError is an OSError
        print(f"decaf demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\n{table}\n{arguments.out}/overlay.mp4, contact_sheet.png and results.md are written.")
    return _verdict(outcomes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="decaf demo", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=FIRST_SEED,
        help="the first suitable worlds from this one on are shown (default: %(default)s)",
    )
    parser.add_argument(
        "--pick", nargs="?", type=whole_number, const=3, metavar="N", help="pick by sentence instead, N (3) times"
    )
    return parser


def _say(text: str) -> None:
    print(f"[decaf demo] {text}", flush=True)


def _run_node(queries: Sequence[HeldOutQuery], out: OutputFolder) -> list[Outcome]:
    """Start the programs, ask all queries one after another, and stop the programs."""
    with ExitStack() as stack:
        _say(f"starting the camera and decaf_node (logs in {out.path})")
        # Nobody else's nodes, which the demo would make forget everything, and nobody else's camera.
        arguments = stack.enter_context(ros_of_its_own())
        camera_arguments = [*arguments, "-p", f"seeds:=[{queries[0].seed}]", "-p", f"rate:={CAMERA_HZ}"]
        programs = [
            stack.enter_context(ChildProcess(_CAMERA, camera_arguments, out.log("camera.log"))),
            stack.enter_context(ChildProcess(_NODE, arguments, out.log("node.log"))),
        ]
        client = stack.enter_context(DecafClient("decaf_node"))
        try:
            _wait_until_ready(client, programs)
            recorder = Recorder(client)
            return [_run_query(query, client, recorder) for query in queries]
        except (TimeoutError, DemoError) as error:
            ended = [f"{program.module} ended: {program.last_words()}" for program in programs if not program.running]
            raise DemoError("\n".join([str(error), *ended])) from error


def _wait_until_ready(client: DecafClient, programs: Sequence[ChildProcess]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return client.wait_until_ready(_POLL_SECONDS)
        except TimeoutError:
            if time.monotonic() > deadline or not all(program.running for program in programs):
                raise


def _run_query(query: HeldOutQuery, client: DecafClient, recorder: Recorder) -> Outcome:
    """Show a new world to the camera, ask, and watch what is published for a while."""
    accepted, reason = client.set_parameter("seeds", [query.seed], node=client.node.resolve_topic_name("sim_camera"))
    if not accepted:
        raise DemoError(f"the camera refused world {query.seed}: {brief(reason)}")
    time.sleep(_SETTLING_SECONDS)  # until no image of the old world is on its way
    client.reset()
    recorder.start()
    _say(f"world {query.seed}: watching for {WINDOW_SECONDS:g} s")
    time.sleep(WINDOW_SECONDS)
    _say(f'asking for "{query.expression.text}"')
    response = client.query(query.expression.text)
    if not response.success:
        raise DemoError(f'"{query.expression.text}" was not found: {brief(response.message)}')
    _say(
        f"answer after {response.latency.total_ms:.0f} ms: {brief(response.object_name)}, {len(response.objects)} object(s)"
        f"{' - ' + brief(response.message) if response.message else ''}; tracking for {TRACKING_SECONDS:g} s"
    )
    time.sleep(TRACKING_SECONDS)
    recording = recorder.stop()
    return _score(query, response, recording)


def _score(query: HeldOutQuery, response: Query.Response, recording: Recording) -> Outcome:
    answered_ns = stamp_to_ns(response.stamp)
    end_ns = answered_ns + round(TRACKING_SECONDS * 1e9)
    # The last image may still be on its way through the node when the recording ends.
    newest_ns = max(recording.labels, default=0)
    stamps = tuple(stamp for stamp in sorted(recording.truth) if answered_ns < stamp <= min(end_ns, newest_ns))
    scored = [stamp for stamp in stamps if stamp in recording.labels]
    if not (scored and recording.overlay):
        raise DemoError(f'no masks were published after the answer to "{query.expression.text}"')
    masks = np.stack([recording.labels[stamp] > 0 for stamp in scored])
    truth = np.stack([_truth(query, recording, stamp) for stamp in scored])
    return Outcome(query, response, recording, stamps, score_clip(masks, truth))


def _truth(query: HeldOutQuery, recording: Recording, stamp_ns: int) -> BoolArray:
    return np.asarray(recording.truth[stamp_ns] == query.expression.body_index + 1)


def _write_video(out: OutputFolder, outcomes: Sequence[Outcome]) -> None:
    """What the node published while tracking: masks on the left, the newest heat map on the right."""
    with out.video("overlay.mp4", CAMERA_HZ) as video:
        for outcome in outcomes:
            recording = outcome.recording
            for stamp in sorted(recording.overlay.keys() & set(outcome.stamps_ns)):
                overlay = recording.overlay[stamp].image_rgb
                earlier = [heat for heat in recording.heat if heat <= stamp]
                heat = recording.heat[max(earlier)].image_rgb if earlier else np.zeros_like(overlay)
                video.write(_enlarged(np.concatenate([overlay, heat], axis=1)))


def _enlarged(image: UInt8Array) -> UInt8Array:
    size_wh = (image.shape[1] * _VIDEO_SCALE, image.shape[0] * _VIDEO_SCALE)
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _sheet_rows(outcomes: Sequence[Outcome]) -> list[SheetRow]:
    """The steps within the node are on no topic: they are computed once more here, on the key frames that it looked at."""
    tracker = Sam2Tracker.load("embedded")
    grounder = Grounder(load_mllm("embedded"), tracker)
    return [_sheet_row(outcome, _ground_again(outcome, grounder, tracker)) for outcome in outcomes]


def _ground_again(outcome: Outcome, grounder: Grounder, tracker: Sam2Tracker) -> Grounding:
    window = KeyFrameBuffer(SessionConfig.window_seconds, SessionConfig.window_hz)
    reference_ns = stamp_to_ns(outcome.response.reference_stamp)
    for stamp, frame in sorted(outcome.recording.camera.items()):
        if stamp <= reference_ns and stamp in outcome.recording.truth:
            window.add(StoredFrame(frame, tracker))
    clip = window.select(SessionConfig.key_frames)
    if not clip:
        raise DemoError("the camera's images were not received")
    return grounder.ground(clip, outcome.query.expression.text)


def _sheet_row(outcome: Outcome, grounding: Grounding) -> SheetRow:
    stamps = [frame.stamp_ns for frame in grounding.window.frames]
    truth = np.stack([_truth(outcome.query, outcome.recording, stamp) for stamp in stamps])
    title = (
        f'"{outcome.query.expression.text}"   named: {outcome.response.object_name}'
        f"   J&F over {TRACKING_SECONDS:g} s of live tracking: {outcome.scores.j_and_f:.2f}"
    )
    live = outcome.recording.overlay[max(outcome.recording.overlay)]
    return SheetRow(title, grounding, truth, live.image_rgb)


def _verdict(outcomes: Sequence[Outcome]) -> int:
    poor = [outcome for outcome in outcomes if outcome.scores.j_and_f < LEAST_J_AND_F]
    for outcome in poor:
        print(f'"{outcome.query.expression.text}": J&F is below {LEAST_J_AND_F}', file=sys.stderr)
    return 1 if poor else 0


if __name__ == "__main__":
    sys.exit(main())
