"""The live node's two threads in simulated time, on one thread: what comes of it does not depend on the machine.

The engine is the node's own. Frames come at their stamps, and are followed at once. The worker is called whenever it has
something to do, and while it "works" the camera goes on filming.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast
from weakref import WeakSet

import torch

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, FrameWindow, HeatMap, ObjectPrompt, Segmentation, TrackEvent, UInt8Array
from decaf_ros.models.protocols import MaskTracker, ObjectTrack
from decaf_ros.models.wanted import while_wanted
from decaf_ros.session.attention import AttentionSource
from decaf_ros.session.engine import Engine
from decaf_ros.session.errors import SessionError
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder, Grounding
from decaf_ros.session.jobs import Job, QueryRequest, QueryState
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.stages import StageClock


@dataclass(frozen=True)
class Latency:
    """What work takes in the simulation.

    Attributes:
        query_s: seconds to answer a sentence, whatever it looks at,
        key_frame_s: and on top for each key frame.
        refresh_s: seconds to compute the heat maps anew.
        look_s: seconds to ask whether there is such a thing, for each key frame that was not read before.
    """

    query_s: float = 0.0
    key_frame_s: float = 0.1
    refresh_s: float = 0.1
    look_s: float = 0.1


@dataclass(eq=False)
class Replay:
    """A node that follows what a camera films.

    Following takes no time, nor does carrying what was found to the newest frame.

    Args:
        frames: in the order of their stamps; each is taken when the one before it was followed.
        tracker, grounder: the models.
        config: of the session.
        latency: of the worker; ``None``: its work takes as long as on this machine.

    Attributes:
        tell: hears what is published for each frame; it may be replaced.
        events: what happened to objects.
        followed: how many frames were followed.
        now_ns: the time, by the clock of the frames' stamps.
    """

    frames: Iterator[Frame]
    tracker: MaskTracker
    grounder: Grounder
    config: SessionConfig = field(default_factory=SessionConfig)
    latency: Latency | None = field(default_factory=Latency)
    tell: Callable[[Segmentation], object] = lambda segmentation: None
    events: list[TrackEvent] = field(default_factory=list)
    followed: int = 0
    now_ns: int = 0

    def __post_init__(self) -> None:
        session = TrackingSession(self.tracker, self.config, clock=lambda: self.now_s)
        slow = cast(Grounder, _SlowGrounder(self.grounder, self))
        self._engine = Engine(session, slow, self, clock=lambda: self.now_s)
        self._trouble: Exception | None = None
        self._next = next(self.frames, None)

    @property
    def now_s(self) -> float:
        """The time, in seconds."""
        return self.now_ns / 1e9

    @property
    def is_over(self) -> bool:
        """Whether no frame is left."""
        return self._next is None

    def ask(self, request: QueryRequest) -> Job:
        """Ask now; it is answered when the worker comes to it.

        Raises:
            SessionError: as the engine.
        """
        return self._engine.query(request)

    def queries(self) -> dict[int, QueryState]:
        """How far each query got, by id."""
        return {status.query_id: status.state for status in self._engine.queries()}

    def point_out(self, prompt: ObjectPrompt) -> None:
        """Follow an object by its prompt on the newest frame."""
        self._engine.add_object(prompt, "")

    def run_until(self, time_s: float) -> None:
        """Film up to a time, and work as long as there is something to do.

        Raises:
            Exception: as :meth:`step`.
        """
        time_ns = _nanoseconds(time_s)
        while self.step(time_ns):
            pass
        self.now_ns = max(self.now_ns, time_ns)

    def step(self, until_ns: float = math.inf) -> bool:
        """Let the worker do something or, where there is nothing to do, the next frame come, if it does until a time.

        Args:
            until_ns: the time, as a stamp.

        Returns:
            Whether anything happened.

        Raises:
            Exception: what a frame could not be read or followed for, or what is wrong with a model: it ends the simulation.
        """
        happened = self._engine.work()
        if not happened and self._next is not None and self._next.stamp_ns <= until_ns:
            self._film(self._next)
            happened = True
        if self._trouble is not None:
            raise self._trouble
        return happened

    @contextmanager
    def working(self, seconds: Callable[[Latency], float]) -> Iterator[None]:
        """Within this the worker works; then the time that it takes passes, and frames come.

        Args:
            seconds: of the latency, where there is one.
        """
        began = time.perf_counter()

        def pass_time() -> None:
            takes_s = time.perf_counter() - began if self.latency is None else seconds(self.latency)
            ends_ns = self.now_ns + _nanoseconds(takes_s)
            with while_wanted(lambda: None):  # what is worked on may be given up, and frames are followed all the same
                self._film_until(ends_ns)
            self.now_ns = ends_ns

        try:
            yield
        except (SessionError, ValueError):  # an answer, too
            pass_time()
            raise
        except Exception as error:  # the engine would take it for one
            self._trouble = self._trouble or error
            raise
        pass_time()

    def _film_until(self, time_ns: int) -> None:
        while self._next is not None and self._next.stamp_ns <= time_ns and self._trouble is None:
            self._film(self._next)

    def _film(self, frame: Frame) -> None:
        self.now_ns = max(self.now_ns, frame.stamp_ns)
        self._engine.follow(lambda: frame)
        try:
            self._next = next(self.frames, None)
        except Exception as error:  # the worker may be at a query, which would be answered with it
            self._trouble = error

    def on_segmentation(self, segmentation: Segmentation) -> None:
        """Tell where objects are."""
        self.followed += 1
        self.tell(segmentation)

    def on_heat_map(self, heat: HeatMap) -> None:
        """Heat maps are not looked at."""

    def on_events(self, events: Sequence[TrackEvent]) -> None:
        """Note what happened."""
        self.events += events

    def on_rejected_frame(self, reason: str) -> None:
        """Note why: it ends the simulation, whose frames are good."""
        self._trouble = self._trouble or RuntimeError(f"a frame of the simulation was rejected: {reason}")


def filmed(camera: Callable[[float], UInt8Array], hz: float) -> Iterator[Frame]:
    """An endless film of what a camera sees at times in seconds: ``(H, W, 3)`` uint8 each."""
    return (Frame(round(index / hz * 1e9), "camera", camera(index / hz)) for index in count())


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


class _SlowGrounder:
    """Takes simulated time to answer; all else is the grounder's own."""

    def __init__(self, grounder: Grounder, replay: Replay) -> None:
        self.attention = _SlowAttention(grounder.attention, replay)
        self._grounder = grounder
        self._replay = replay

    def ground(self, clip: Sequence[StoredFrame], *args: Any, **kwargs: Any) -> Grounding:
        with self._replay.working(lambda latency: latency.query_s + latency.key_frame_s * len(clip)):
            self.attention.read.update(stored.frame for stored in clip)
            return self._grounder.ground(clip, *args, **kwargs)

    def build_tracks(
        self, grounding: Grounding, clip: Sequence[StoredFrame], clock: StageClock | None = None
    ) -> list[ObjectTrack]:
        with self._replay.working(lambda latency: 0.0):  # which is in that of the answer
            return self._grounder.build_tracks(grounding, clip, clock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grounder, name)


class _SlowAttention:
    """Takes simulated time to refresh heat maps, and reads nothing ahead: time passes for what was asked alone."""

    def __init__(self, attention: AttentionSource, replay: Replay) -> None:
        self._attention = attention
        self._replay = replay
        self.read: WeakSet[Frame] = WeakSet()

    def refresh(self, frame: Frame, queries: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        with self._replay.working(lambda latency: latency.refresh_s):
            return self._attention.refresh(frame, queries)

    def presences(self, window: FrameWindow, expressions: Sequence[str]) -> list[float]:
        unread = sum(frame not in self.read for frame in window.frames)
        self.read.update(window.frames)
        with self._replay.working(lambda latency: latency.look_s * unread):
            return self._attention.presences(window, expressions)

    def unread(self, window: FrameWindow) -> tuple[Frame, ...]:
        return ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attention, name)
