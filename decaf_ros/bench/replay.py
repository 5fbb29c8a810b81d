"""The live node's two threads in simulated time, on one thread: what a query takes does not depend on the machine.

The engine is the node's own. Its worker is called between frames, and while it "works" the camera goes on filming.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakSet

import torch

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, FrameWindow, HeatMap, ObjectMask, ObjectPrompt, Segmentation, TrackEvent, UInt8Array
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.attention import Attention, AttentionSource
from decaf_ros.session.engine import Engine
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.jobs import QueryRequest, QueryState
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.stages import StageClock


@dataclass(frozen=True)
class Latency:
    """What work takes in the simulation.

    Attributes:
        key_frame_s: seconds to ground a sentence, for each key frame.
        refresh_s: seconds to compute the heat maps anew.
        look_s: seconds to ask whether there is such a thing, for each key frame that was not read before.
        query_s: seconds to ground a sentence, whatever the number of key frames; ``None`` leaves it to them.
    """

    key_frame_s: float = 0.1
    refresh_s: float = 0.1
    look_s: float = 0.1
    query_s: float | None = None

    def of_query(self, window: FrameWindow) -> float:
        """Seconds to ground a sentence on a window."""
        return self.key_frame_s * len(window) if self.query_s is None else self.query_s


@dataclass(eq=False)
class Replay:
    """A camera, and a node that follows what it films.

    Args:
        camera: image of a time in seconds: ``(H, W, 3)`` uint8.
        tracker, grounder: the models.
        config: of the session.
        hz: rate of the camera.
        latency: of the worker.

    Attributes:
        seen: objects by frame, from the first frame on.
        events: what happened to objects.
        attention_s: seconds of CPU time that the language model took, in truth.
    """

    camera: Callable[[float], UInt8Array]
    tracker: MaskTracker
    grounder: Grounder
    config: SessionConfig = field(default_factory=SessionConfig)
    hz: float = 10.0
    latency: Latency = field(default_factory=Latency)
    seen: list[tuple[ObjectMask, ...]] = field(default_factory=list)
    events: list[TrackEvent] = field(default_factory=list)
    attention_s: float = 0.0

    def __post_init__(self) -> None:
        session = TrackingSession(self.tracker, self.config, clock=lambda: self.now_s)
        slow = replace(self.grounder, attention=_SlowAttention(self, self.grounder.attention))
        self._engine = Engine(session, slow, self, clock=lambda: self.now_s)
        self._rejection = ""

    @property
    def now_s(self) -> float:
        """Time of the next frame."""
        return len(self.seen) / self.hz

    def ask(self, expression: str, wait_seconds: float = 0.0) -> int:
        """Ask on the next occasion that the worker has; the id of the query. Who waits leaves other queries alone."""
        return self._engine.query(QueryRequest(expression, replace=not wait_seconds, wait_seconds=wait_seconds)).query_id

    def queries(self) -> dict[int, QueryState]:
        """How far each query got, by id."""
        return {status.query_id: status.state for status in self._engine.queries()}

    def point_out(self, prompt: ObjectPrompt) -> None:
        """Follow an object by its prompt on the newest frame, on the next occasion that the worker has."""
        self._engine.add_object(prompt, "")

    def run_until(self, time_s: float) -> None:
        """Film, and work between the frames."""
        while self.now_s < time_s:
            self.film(1)
            self._engine.work()

    def film(self, frames: int) -> None:
        """Film and follow, while the worker is busy."""
        for _ in range(frames):
            self._engine.follow(self._shoot)
            if self._rejection:
                raise RuntimeError(f"a frame of the simulation was rejected: {self._rejection}")

    def _shoot(self) -> Frame:
        return Frame(round(self.now_s * 1e9), "camera", self.camera(self.now_s))

    def on_segmentation(self, segmentation: Segmentation) -> None:
        """Note where objects are."""
        self.seen.append(segmentation.objects)

    def on_heat_map(self, heat: HeatMap) -> None:
        """Heat maps are not looked at."""

    def on_events(self, events: Sequence[TrackEvent]) -> None:
        """Note what happened."""
        self.events += events

    def on_rejected_frame(self, reason: str) -> None:
        """Note why: it ends the simulation, whose frames are good."""
        self._rejection = reason


@dataclass(frozen=True, eq=False)
class _SlowAttention:
    """Attention that takes simulated time."""

    replay: Replay
    source: AttentionSource
    read: WeakSet[Frame] = field(default_factory=WeakSet)

    def attend(self, window: FrameWindow, expression: str, clock: StageClock | None = None) -> Attention:
        with self._timed():
            attention = self.source.attend(window, expression, clock)
        self._take(self.replay.latency.of_query(window))
        self.read.update(window.frames)
        return attention

    def refresh(self, frame: Frame, queries: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        with self._timed():
            maps = self.source.refresh(frame, queries)
        self._take(self.replay.latency.refresh_s)
        return maps

    def presences(self, window: FrameWindow, expressions: Sequence[str]) -> list[float]:
        with self._timed():
            presences = self.source.presences(window, expressions)
        self._take(self.replay.latency.look_s * sum(frame not in self.read for frame in window.frames))
        self.read.update(window.frames)
        return presences

    def prepare(self, window: FrameWindow, frame: Frame) -> None:
        self.source.prepare(window, frame)

    def unread(self, window: FrameWindow) -> tuple[Frame, ...]:
        return ()  # time passes for what was asked alone

    def forget(self) -> None:
        self.source.forget()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self.replay.attention_s += time.process_time() - began

    def _take(self, seconds: float) -> None:
        self.replay.film(round(seconds * self.replay.hz))
