"""Camera and node as processes of their own: a scene is shown, a sentence asked when it is time, and the masks scored."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from decaf_ros.cli.recording import Recorder, Recording
from decaf_ros.datatypes import BoolArray
from decaf_ros.evaluation.held_out import HeldOutQuery
from decaf_ros.evaluation.metrics import MaskScores, score_clip
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.processes import ChildProcess, ros_of_its_own
from decaf_ros.srv import Query
from decaf_ros.text import brief

CAMERA_HZ = 10.0
TRACKING_SECONDS = 6.0
ANSWER_SECONDS = 8.0  # that a query may take while what it means has to stay in view
_START_SECONDS, _POLL_SECONDS = 120.0, 2.0
_SETTLING_SECONDS, _SCENE_SECONDS = 0.3, 60.0
_CAMERA, _NODE = "decaf_ros.ros.sim_camera", "decaf_ros.ros.node"


class DemoError(Exception):
    """Something that the demo shows does not work."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one query.

    Attributes:
        query: sentence and scene.
        response: the node's answer.
        recording: everything from the camera's first look at the scene to the end of tracking.
        asked_ns: stamp of the newest camera image when it was asked.
        stamps_ns: camera images after the answer.
        scores: of the published masks against the ground truth of the same stamps.
    """

    query: HeldOutQuery
    response: Query.Response
    recording: Recording
    asked_ns: int
    stamps_ns: tuple[int, ...]
    scores: MaskScores

    @property
    def text(self) -> str:
        """The sentence."""
        return self.query.sentence.text

    @property
    def published(self) -> tuple[int, ...]:
        """Stamps of the camera images for which masks were published."""
        return tuple(stamp for stamp in self.stamps_ns if stamp in self.recording.labels)

    def cells(self) -> list[str]:
        """What the table says of it, from the name on."""
        rate = len(self.published) / TRACKING_SECONDS
        return [
            self.response.object_name,
            f"{self.response.latency.total_ms:.0f}",
            f"{self.scores.j:.3f}",
            f"{self.scores.f:.3f}",
            f"{self.scores.j_and_f:.3f}",
            str(len(self.published)),
            str(len(self.stamps_ns) - len(self.published)),
            f"{rate:.1f}",
        ]


@dataclass(frozen=True, eq=False)
class Absence:
    """What became of a sentence that is true of nothing.

    Attributes:
        query: sentence and scene.
        response: the node's answer.
    """

    query: HeldOutQuery
    response: Query.Response

    @property
    def text(self) -> str:
        """The sentence."""
        return self.query.sentence.text

    @property
    def noticed(self) -> bool:
        """Whether the node refused it, as it should."""
        return not self.response.success

    @property
    def verdict(self) -> str:
        """What the node makes of it."""
        return "not there" if self.noticed else "taken for there"


def say(text: str) -> None:
    """What is going on, for who waits."""
    print(f"[decaf demo] {text}", flush=True)


def run_node(queries: Sequence[HeldOutQuery], absent: HeldOutQuery, out: OutputFolder) -> tuple[list[Outcome], Absence]:
    """Start the programs, ask all queries one after another and what is true of nothing last, and stop the programs."""
    say(f"starting the camera and decaf_node (logs in {out.path})")
    with camera_and_node(out) as (client, _):
        recorder = Recorder(client)
        return [_ask(query, client, recorder) for query in queries], _ask_in_vain(absent, client, recorder)


@contextmanager
def camera_and_node(
    out: OutputFolder, depth: bool = False, **camera_parameters: int | float
) -> Iterator[tuple[DecafClient, list[str]]]:
    """Both as processes of their own, ready, for as long as the block takes.

    Args:
        out: takes their logs.
        depth: whether both have to do with depth, too.
        camera_parameters: of the camera, by name.

    Yields:
        A client, and the ROS arguments that put other programs beside them.

    Raises:
        DemoError: they did not get ready, or what was done with them went wrong; with the last words of who ended.
    """
    with ExitStack() as stack:
        # Nobody else's nodes, which the demo would make forget everything, and nobody else's camera.
        arguments = stack.enter_context(ros_of_its_own())
        settings = {"rate": CAMERA_HZ, **camera_parameters}
        words = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
        both = [*arguments, *(("-p", "depth:=true") if depth else ())]
        programs = [
            stack.enter_context(ChildProcess(_CAMERA, [*both, *words], out.log("camera.log"))),
            stack.enter_context(ChildProcess(_NODE, both, out.log("node.log"))),
        ]
        client = stack.enter_context(DecafClient("decaf_node"))
        try:
            _wait_until_ready(client, programs)
            yield client, arguments
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


def show_until_asked(query: HeldOutQuery, client: DecafClient, recorder: Recorder) -> int:
    """Show a new scene to a node that remembers nothing, until it is time to ask; the stamp of the newest image then.

    Raises:
        DemoError: the camera refused the scene.
        TimeoutError: it does not show it.
    """
    source, since_ns = f"seed {query.seed}", client.node.get_clock().now().nanoseconds
    accepted, reason = client.set_parameter("seeds", [query.seed], node=client.node.resolve_topic_name("sim_camera"))
    if not accepted:
        raise DemoError(f"the camera refused scene {query.seed}: {brief(reason)}")
    recorder.start()
    recorder.wait_for_scene(source, _SETTLING_SECONDS, since_ns, _SCENE_SECONDS)  # no image of the old scene is on its way
    client.reset()
    recorder.start()
    say(f"scene {query.seed}: watching until {query.end_s:.1f} s")
    return recorder.wait_for_scene(source, query.end_s, since_ns, query.end_s + _SCENE_SECONDS)


def _ask(query: HeldOutQuery, client: DecafClient, recorder: Recorder) -> Outcome:
    """Ask when it is time, and watch what is published for a while."""
    text, asked_ns = query.sentence.text, show_until_asked(query, client, recorder)
    say(f'asking for "{text}"')
    response = client.query(text)
    if not response.success:
        raise DemoError(f'"{text}" was not found: {brief(response.message)}')
    say(
        f"answer after {response.latency.total_ms:.0f} ms: {brief(response.object_name)}, {len(response.objects)} object(s)"
        f"{' - ' + brief(response.message) if response.message else ''}; tracking for {TRACKING_SECONDS:g} s"
    )
    time.sleep(TRACKING_SECONDS)
    return _score(query, response, recorder.stop(), asked_ns)


def _ask_in_vain(query: HeldOutQuery, client: DecafClient, recorder: Recorder) -> Absence:
    """Ask for what is not there when it is time."""
    text = query.sentence.text
    show_until_asked(query, client, recorder)
    say(f'asking for "{text}", of which there is none')
    absence = Absence(query, client.query(text))
    recorder.stop()
    if absence.noticed and math.isnan(absence.response.presence):
        raise DemoError(f'"{text}" was not answered: {brief(absence.response.message)}')
    say(f"{absence.verdict}: presence {absence.response.presence:.1%}")
    return absence


def _score(query: HeldOutQuery, response: Query.Response, recording: Recording, asked_ns: int) -> Outcome:
    answered_ns = stamp_to_ns(response.stamp)
    end_ns = answered_ns + round(TRACKING_SECONDS * 1e9)
    # The last image may still be on its way through the node when the recording ends.
    newest_ns = max(recording.labels, default=0)
    stamps = tuple(stamp for stamp in sorted(recording.truth) if answered_ns < stamp <= min(end_ns, newest_ns))
    scored = [stamp for stamp in stamps if stamp in recording.labels]
    if not (scored and recording.overlay):
        raise DemoError(f'no masks were published after the answer to "{query.sentence.text}"')
    masks = np.stack([recording.labels[stamp] > 0 for stamp in scored])
    truth = np.stack([truth_of(query, recording, stamp) for stamp in scored])
    return Outcome(query, response, recording, asked_ns, stamps, score_clip(masks, truth))


def truth_of(query: HeldOutQuery, recording: Recording, stamp_ns: int) -> BoolArray:
    """``(H, W)`` bool: where what is meant is on an image."""
    assert query.sentence.target is not None
    return np.asarray(recording.truth[stamp_ns] == query.sentence.target + 1)
