"""How late masks are, also while queries run, whether memory grows, and what slow subscribers do: processes as on a robot."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sensor_msgs.msg import Image

from decaf_ros.bench.figures import Measured, by_place, named
from decaf_ros.bench.part import Run
from decaf_ros.config import SessionConfig
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.processes import ChildProcess, ros_of_its_own
from decaf_ros.session.stages import STAGES
from decaf_ros.synthetic.table.episodes import sample_episode
from decaf_ros.synthetic.table.sentences import sentences_of

LATENCY_TARGET_MS = 150.0
GROWTH_TARGET_MIB = 20.0
MOST_LATER, ANSWER_TARGET_S = 1.5, 1.0

_SEED = 23
_CAMERA_HZ = 10.0
_ENDURANCE_HZ = 15.0  # about what the simulated camera and the node do beside each other on two cores
_WARM_UP_FRAMES, _LATENCY_FRAMES = 20, 300
_SETTLED_AFTER_FRAMES = 300
_SLOW_TOPICS = ("mask", "overlay")
_SLOW_PAUSE_SECONDS = 0.5
_READ_AHEAD = ("off", "auto", "on")
_SETTLING_FRAMES, _QUIET_FRAMES = 20, 40  # so that all of the window comes under a setting before a query is asked
_FIFTHS = ("first fifth", "second", "third", "fourth", "last")


@dataclass(frozen=True)
class LatencyFigures:
    """From the stamp of an image to the arrival of its mask at a subscriber, with one object tracked.

    Attributes:
        frames: masks that were timed.
        p50_ms, p95_ms, longest_ms: of their ages on arrival.
        mask_hz: masks a second.
    """

    frames: int
    p50_ms: float
    p95_ms: float
    longest_ms: float
    mask_hz: float


@dataclass(frozen=True)
class EnduranceFigures:
    """Resident memory and load of decaf_node with one object tracked and its heat map refreshed.

    Attributes:
        frames: processed since the query, the first 300 included.
        settled_mib: after the first 300.
        final_mib, peak_mib: of all that came later.
        mask_hz: masks a second.
        cores: that the node kept busy on average.
    """

    frames: int
    settled_mib: float
    final_mib: float
    peak_mib: float
    mask_hz: float
    cores: float

    @property
    def growth_mib(self) -> float:
        """The most that came on top after the first 300."""
        return self.peak_mib - self.settled_mib


@dataclass(frozen=True)
class SlowSubscriberFigures:
    """Masks of a fast camera while another, reliable subscriber takes half a second for each message.

    Attributes:
        seconds: it was watched for.
        p50_ms, p95_ms: of the age of the masks in each fifth of that time.
        mask_hz: masks a second.
        received, superseded: images that came to the node, and those that a newer one replaced before their turn, which the
            node counts.
    """

    seconds: float
    p50_ms: tuple[float, ...]
    p95_ms: tuple[float, ...]
    mask_hz: float
    received: int
    superseded: int


@dataclass(frozen=True)
class QueryFigures:
    """Masks and answers with one setting of ``read_ahead``, one object tracked.

    Attributes:
        quiet_ms: ages of masks that came while nobody asked.
        asked_ms: of those that came while a query ran.
        answers_s: from each question to its answer.
        stages_ms: of each answer, by stage, as the node says.
        share: of the node's time that reading ahead took when a question came, by what the node says.
    """

    quiet_ms: tuple[float, ...]
    asked_ms: tuple[float, ...]
    answers_s: tuple[float, ...]
    stages_ms: tuple[dict[str, float], ...]
    share: float


def measure(run: Run, node_frames: int, node_seconds: float, node_queries: int) -> Measured:
    """Latency and memory; always with the embedded models: what is measured is the node.

    Raises:
        RuntimeError: a query failed.
        TimeoutError: the processes do not start, or masks do not come.
    """
    latency, endurance = measure_latency(_LATENCY_FRAMES), measure_endurance(node_frames)
    queries = measure_queries(node_queries)
    return report(run, latency, endurance, queries, measure_slow_subscriber(node_seconds))


def report(
    run: Run,
    latency: LatencyFigures,
    endurance: EnduranceFigures,
    queries: Mapping[str, QueryFigures],
    slow: SlowSubscriberFigures,
) -> Measured:
    """The figures with their targets."""
    while_asked = query_figures(queries)
    rows = [
        ["image stamp to mask, p50", f"{latency.p50_ms:.0f} ms", ""],
        ["image stamp to mask, p95", f"{latency.p95_ms:.0f} ms", f"< {LATENCY_TARGET_MS:.0f} ms"],
        ["image stamp to mask, longest", f"{latency.longest_ms:.0f} ms", ""],
        [f"masks a second, camera at {_CAMERA_HZ:g} Hz", f"{latency.mask_hz:.1f}", ""],
        [f"masks a second, camera at {_ENDURANCE_HZ:g} Hz", f"{endurance.mask_hz:.1f}", ""],
        [f"cores busy, camera at {_ENDURANCE_HZ:g} Hz", f"{endurance.cores:.2f}", ""],
        [f"memory after {_SETTLED_AFTER_FRAMES} frames", f"{endurance.settled_mib:.0f} MiB", ""],
        [f"memory after {endurance.frames} frames", f"{endurance.final_mib:.0f} MiB", ""],
        ["growth at most", f"{endurance.growth_mib:.1f} MiB", f"<= {GROWTH_TARGET_MIB:.0f} MiB"],
    ]
    beside_slow = [
        ["age of masks, p50", *(f"{age:.0f} ms" for age in slow.p50_ms)],
        ["age of masks, p95", *(f"{age:.0f} ms" for age in slow.p95_ms)],
    ]
    page = f"""# The node

{markdown_table(("figure", "measured", "target"), rows)}
`decaf_node` with the embedded models and `decaf_sim_camera` (192 x 256, rgb8) as processes, one object tracked, its heat map
refreshed once a second. Latency: {latency.frames} masks after {_WARM_UP_FRAMES} of warm-up, measured by a subscriber in a third
process. Memory: resident, as the node reports it.

## While queries run

{_query_table(while_asked)}
One node, a camera at {_CAMERA_HZ:g} Hz, one object tracked and its heat map refreshed once a second. With each setting of
`read_ahead`, in turn, {len(queries["off"].answers_s)} queries, and {_QUIET_FRAMES} masks before each of them. *Ratio*: of the
p95 to that of masks with `off` while no query runs; the target is <= {MOST_LATER:g}. *Answer*: from the question to the answer
at the client; the target is a p50 <= {ANSWER_TARGET_S:g} s where key frames are read ahead. *Time share*: of the worker's,
spent on that.

{_stage_table(while_asked)}
The same answers by stage, medians, as the node tells with each.

## Beside a slow subscriber

{markdown_table(("figure", *_FIFTHS), beside_slow)}
{slow.seconds:.0f} s with a camera at {_ENDURANCE_HZ:g} Hz and two subscribers: the one that measures, and one that subscribes
reliably to {" and ".join(f"`~/{topic}`" for topic in _SLOW_TOPICS)} and takes {_SLOW_PAUSE_SECONDS:g} s for each message.
{slow.mask_hz:.1f} masks a second; of {slow.received} images {slow.superseded} were overtaken by a newer one and counted as
`dropped_superseded`.

{os.cpu_count()} CPU cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}, PyTorch {torch.__version__}.
`{run.command}`
"""
    fifths = {name: by_place(_FIFTHS, ages) for name, ages in (("p50_ms", slow.p50_ms), ("p95_ms", slow.p95_ms))}
    figures = {
        "latency": asdict(latency),
        "queries": while_asked,
        "endurance": asdict(endurance) | {"growth_mib": endurance.growth_mib},
        "slow_subscriber": asdict(slow) | fifths,
    }
    return Measured(page, named(figures))


def query_figures(queries: Mapping[str, QueryFigures]) -> dict[str, dict[str, float]]:
    """By setting of ``read_ahead`` and by whether a query ran: ages of masks, and how long answers took.

    ``ratio`` is of the p95 to that of masks while no query runs and nothing is read ahead.
    """
    plain_p95 = float(np.percentile(queries["off"].quiet_ms, 95))
    figures: dict[str, dict[str, float]] = {}
    for setting, measured in queries.items():
        for name, ages_ms in (("no_query", measured.quiet_ms), ("query", measured.asked_ms)):
            p50, p95 = np.percentile(ages_ms, [50, 95]).tolist()
            figures[f"{setting}_{name}"] = {"p50_ms": p50, "p95_ms": p95, "ratio": p95 / plain_p95}
        p50, p95 = np.percentile(measured.answers_s, [50, 95]).tolist()
        figures[f"{setting}_query"] |= {"answer_p50_s": p50, "answer_p95_s": p95}
        for stage in STAGES:
            p50 = float(np.median([each[stage] for each in measured.stages_ms]))
            figures[f"{setting}_query"][f"answer_{stage}_ms"] = p50
        figures[f"{setting}_no_query"]["time_share"] = measured.share
    return figures


def _stage_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [f"`{setting}`", *(f"{figures[f'{setting}_query'][f'answer_{stage}_ms']:.0f} ms" for stage in STAGES)]
        for setting in _READ_AHEAD
        if f"{setting}_query" in figures
    ]
    return markdown_table(("read_ahead", *(stage.replace("_", "-") for stage in STAGES)), rows)


def _query_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    columns = {
        "p50_ms": "{:.0f} ms",
        "p95_ms": "{:.0f} ms",
        "ratio": "{:.2f}",
        "answer_p50_s": "{:.2f} s",
        "answer_p95_s": "{:.2f} s",
    }
    columns["time_share"] = "{:.2f}"
    rows = []
    for name, values in figures.items():
        setting, _, state = name.partition("_")
        shown = [form.format(values[key]) if key in values else "" for key, form in columns.items()]
        rows.append([f"`{setting}`", "while a query runs" if state == "query" else "no query", *shown])
    header = ("read_ahead", "masks", "age, p50", "p95", "ratio", "answer, p50", "p95", "time share")
    return markdown_table(header, rows)


def measure_latency(frames: int) -> LatencyFigures:
    """Track one object at 10 Hz and time its masks.

    Raises:
        RuntimeError: the query failed.
        TimeoutError: the processes do not start, or masks do not come.
    """
    with _tracking(_CAMERA_HZ) as masks:
        masks.wait_for(_WARM_UP_FRAMES)
        first, start = len(masks.ages_ms), time.monotonic()
        masks.wait_for(frames)
        seconds = time.monotonic() - start
        ages = np.array(masks.ages_ms[first:])
    p50, p95 = np.percentile(ages, [50, 95])
    return LatencyFigures(len(ages), float(p50), float(p95), float(ages.max()), len(ages) / seconds)


def measure_endurance(frames: int) -> EnduranceFigures:
    """Track one object as fast as the node can, up to the camera's 15 Hz, and watch its resident memory.

    Raises:
        RuntimeError: the query failed.
        TimeoutError: the processes do not start, or masks do not come.
    """
    with _tracking(_ENDURANCE_HZ) as masks:
        masks.wait_for(_SETTLED_AFTER_FRAMES)
        settled, start, computed = masks.node_memory_mib(), time.monotonic(), masks.node.cpu_seconds
        later = []
        for _ in range(_SETTLED_AFTER_FRAMES, frames, 50):
            masks.wait_for(50)
            later.append(masks.node_memory_mib())
        seconds, computed = time.monotonic() - start, masks.node.cpu_seconds - computed
    counted = 50 * len(later)
    return EnduranceFigures(
        _SETTLED_AFTER_FRAMES + counted, settled, later[-1], max(later), counted / seconds, computed / seconds
    )


def measure_queries(rounds: int, settling: int = _SETTLING_FRAMES, quiet: int = _QUIET_FRAMES) -> dict[str, QueryFigures]:
    """Track one object at 10 Hz and ask for it now and then, with one setting of ``read_ahead`` after the other.

    Args:
        rounds: of all settings.
        settling: masks after a change that are not counted.
        quiet: masks before a query.

    Raises:
        RuntimeError: a query failed, or the parameter cannot be set.
        TimeoutError: the processes do not start, or masks do not come.
    """
    quiet_ms: dict[str, list[float]] = {setting: [] for setting in _READ_AHEAD}
    asked_ms, answers_s, shares = deepcopy(quiet_ms), deepcopy(quiet_ms), deepcopy(quiet_ms)
    stages_ms: dict[str, list[dict[str, float]]] = {setting: [] for setting in _READ_AHEAD}
    with _tracking(_CAMERA_HZ) as masks:
        masks.wait_for(_WARM_UP_FRAMES)
        for _ in range(rounds):
            for setting in _READ_AHEAD:
                masks.set_parameter("read_ahead", setting)
                masks.wait_for(settling)
                before = len(masks.ages_ms)
                masks.wait_for(quiet)
                shares[setting].append(masks.read_ahead_share())
                asked, start = len(masks.ages_ms), time.monotonic()
                stages_ms[setting].append(masks.ask())
                answers_s[setting].append(time.monotonic() - start)
                quiet_ms[setting] += masks.ages_ms[before:asked]
                asked_ms[setting] += masks.ages_ms[asked:]
    return {
        setting: QueryFigures(
            tuple(quiet_ms[setting]),
            tuple(asked_ms[setting]),
            tuple(answers_s[setting]),
            tuple(stages_ms[setting]),
            float(np.median(shares[setting])),
        )
        for setting in _READ_AHEAD
    }


def measure_slow_subscriber(seconds: float) -> SlowSubscriberFigures:
    """Track one object of a fast camera while another subscriber is slow, and watch the age of the masks.

    Raises:
        RuntimeError: the query failed.
        TimeoutError: the processes do not start, or masks do not come.
    """
    with _tracking(_ENDURANCE_HZ) as masks, tempfile.TemporaryDirectory() as folder:
        topics = [f"{masks.node_name}/{name}" for name in _SLOW_TOPICS]
        arguments = [*topics, "--pause", str(_SLOW_PAUSE_SECONDS)]
        with ChildProcess("decaf_ros.bench.listener", arguments, OutputFolder(Path(folder)).log("listener.log")):
            masks.wait_for_subscribers(topics[-1])
            masks.wait_for(_WARM_UP_FRAMES)
            first, counted, start = len(masks.ages_ms), masks.camera_counters(), time.monotonic()
            while time.monotonic() - start < seconds:
                masks.wait_for(1)
            elapsed, ages = time.monotonic() - start, np.array(masks.ages_ms[first:])
            counts = {name: value - counted[name] for name, value in masks.camera_counters().items()}
    p50_ms, p95_ms = np.transpose([np.percentile(fifth, [50, 95]) for fifth in np.array_split(ages, len(_FIFTHS))])
    return SlowSubscriberFigures(
        seconds=elapsed,
        p50_ms=tuple(map(float, p50_ms)),
        p95_ms=tuple(map(float, p95_ms)),
        mask_hz=len(ages) / elapsed,
        received=counts["received"],
        superseded=counts["dropped_superseded"],
    )


class _Masks:
    """Hears the masks of a running node.

    Attributes:
        node: the process that they come from.
        node_name: of the node in that process, in full.
        ages_ms: of all masks until now, on their arrival.
    """

    def __init__(self, node: ChildProcess, client: DecafClient) -> None:
        self.node = node
        self.node_name = client.target
        self.ages_ms: list[float] = []
        self._client = client
        client.subscribe("~/mask", Image, self._note)

    def _note(self, mask: Image) -> None:
        now_ns = self._client.node.get_clock().now().nanoseconds
        self.ages_ms.append((now_ns - stamp_to_ns(mask.header.stamp)) * 1e-6)

    def wait_for(self, count: int) -> None:
        """Wait until so many more came in."""
        goal, deadline = len(self.ages_ms) + count, time.monotonic() + count + 30.0
        while len(self.ages_ms) < goal:
            if time.monotonic() > deadline:
                raise TimeoutError("decaf_node publishes less than one mask a second")
            time.sleep(0.02)

    def wait_for_subscribers(self, topic: str) -> None:
        """Wait until somebody listens to a topic."""
        deadline = time.monotonic() + 60.0
        while not self._client.node.count_subscribers(topic):
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody subscribes to {topic}")
            time.sleep(0.02)

    def ask(self) -> dict[str, float]:
        """Ask for the object that is tracked, and wait for the answer; milliseconds by stage."""
        answer = self._client.query(_expression())
        if not answer.success:
            raise RuntimeError(f"the query failed: {answer.message}")
        return {stage: getattr(answer.latency, f"{stage}_ms") for stage in STAGES}

    def set_parameter(self, name: str, value: str) -> None:
        """Set a parameter of the node."""
        is_set, reason = self._client.set_parameter(name, value)
        if not is_set:
            raise RuntimeError(f"{name} cannot be set to {value}: {reason}")

    def read_ahead_share(self) -> float:
        """What share of the worker's time reading ahead takes, as the node's diagnostics say."""
        return float(self._client.diagnostic_values("queries")["read_ahead_time_share"])

    def camera_counters(self) -> dict[str, int]:
        """What became of the images, as the node's diagnostics say."""
        values = self._client.diagnostic_values("camera")
        return {name: int(values[name]) for name in ("received", "dropped_superseded")}

    def node_memory_mib(self) -> float:
        """What the node's diagnostics say."""
        return float(self._client.diagnostic_values("tracking")["memory_rss_mib"])


@contextmanager
def _tracking(rate_hz: float) -> Iterator[_Masks]:
    """Camera and node as processes, with one object tracked."""
    with ExitStack() as stack:
        folder = OutputFolder(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        arguments = stack.enter_context(ros_of_its_own())
        camera_arguments = [*arguments, "-p", f"seeds:=[{_SEED}]", "-p", f"rate:={rate_hz}"]
        stack.enter_context(ChildProcess("decaf_ros.ros.sim_camera", camera_arguments, folder.log("camera.log")))
        node = stack.enter_context(ChildProcess("decaf_ros.ros.node", arguments, folder.log("node.log")))
        client = stack.enter_context(DecafClient("decaf_node", name="bench_client"))
        client.wait_until_ready()
        masks = _Masks(node, client)
        # A query that looks back over a whole window takes more memory than one that comes early.
        masks.wait_for(1 + round(rate_hz * SessionConfig().window_seconds))
        masks.ask()
        yield masks


@cache
def _expression() -> str:
    """A sentence that holds for one thing of the scene from its beginning to its end."""
    episode = sample_episode(_SEED)
    seconds = episode.scene.duration_s
    sentences = sentences_of(episode, seconds, np.random.default_rng(_SEED), seconds)
    return next(sentence.text for sentence in sentences if sentence.kind == "colour_category")
