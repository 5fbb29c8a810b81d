"""The camera's stream: which frames are taken, which of them are kept, and when everything before is of another time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame
from decaf_ros.session.errors import NoFramesError, SupersededError
from decaf_ros.session.frames import CatchUpBuffer, KeyFrameBuffer, StoredFrame
from decaf_ros.session.stamps import StampWatch

_WARNING_PERIOD_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass
class Counters:
    """Frames since the start, by fate."""

    processed: int = 0
    late: int = 0
    repeated: int = 0
    discontinuities: int = 0
    catch_up_skipped: int = 0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a query looks at: key frames, oldest first, of one epoch of the stream."""

    clip: tuple[StoredFrame, ...]
    epoch: int


class Admission(Enum):
    """What is made of a frame that comes."""

    NEXT = auto()
    NEW_START = auto()
    DROPPED = auto()


class Stream:
    """Frames in the order of their stamps, in epochs: what was looked at in one means nothing in the next.

    Not thread-safe, the session guards it; but a snapshot may be checked at any time.

    Attributes:
        newest: the last frame that was taken; ``None`` before the first.
        newest_key_frame: the last key frame of this epoch; ``None`` before the first.
        counters: what became of all that came.
    """

    def __init__(self, config: SessionConfig) -> None:
        self.newest: StoredFrame | None = None
        self.newest_key_frame: StoredFrame | None = None
        self.counters = Counters()
        self._window = KeyFrameBuffer(config.window_seconds, config.window_hz)
        self._catch_up: CatchUpBuffer | None = None
        self._stamps = StampWatch()
        self._epoch = 0
        self._epoch_reason = ""
        self._silent_until = 0.0

    def admit(self, frame: Frame, time_jump_seconds: float) -> Admission:
        """What to make of a frame. A stamp far back, a stream of stamps a little back and another image size are new starts."""
        starts_anew = self._stamps.starts_anew(frame.stamp_ns, time_jump_seconds)
        if self.newest is None:
            return Admission.NEXT
        last = self.newest.frame
        behind_ns = last.stamp_ns - frame.stamp_ns
        if frame.size_hw != last.size_hw:
            self._start_anew(f"the image size changed from {last.size_hw} to {frame.size_hw} (height, width)", frame)
            return Admission.NEW_START
        if starts_anew:
            self._start_anew(f"the stamps went back by {behind_ns / 1e9:.3f} s", frame)
            return Admission.NEW_START
        if behind_ns > 0:
            self.counters.late += 1
            return Admission.DROPPED
        if behind_ns == 0:
            self.counters.repeated += 1
            return Admission.DROPPED
        return Admission.NEXT

    def take(self, stored: StoredFrame) -> bool:
        """Keep a frame that was admitted; whether it is a key frame."""
        self.newest = stored
        is_key = self._window.add(stored)
        if is_key:
            self.newest_key_frame = stored
        is_carried = self._catch_up is not None and self._catch_up.append(stored)
        if is_key or is_carried:
            stored.features()  # now, when the worker does not wait for it
        self.counters.processed += 1
        return is_key

    def look_back(self, config: SessionConfig, window_seconds: float | None) -> Snapshot:
        """Key frames over the last ``window_seconds``, or over the whole window; from here on frames are kept to catch up.

        Raises:
            NoFramesError: no frame has come yet.
        """
        return self._snapshot(self._window.select(config.key_frames, window_seconds), config)

    def look_at(self, config: SessionConfig, stamp_ns: int | None) -> Snapshot:
        """The first frame that is kept from a stamp on and the key frames since, or the newest frame; as :meth:`look_back`."""
        if stamp_ns is not None:
            return self._snapshot(self._window.since(stamp_ns), config)
        return self._snapshot([] if self.newest is None else [self.newest], config)

    @property
    def key_frames(self) -> tuple[StoredFrame, ...]:
        """All key frames, oldest first; any thread may ask."""
        return self._window.key_frames

    def _snapshot(self, clip: Sequence[StoredFrame], config: SessionConfig) -> Snapshot:
        if not clip:
            raise NoFramesError("there is no camera frame to look at yet")
        self._catch_up = CatchUpBuffer(config.catch_up_frames)
        return Snapshot(tuple(clip), self._epoch)

    def check(self, snapshot: Snapshot) -> None:
        """Raise :class:`SupersededError` if the stream has started anew since the snapshot."""
        if snapshot.epoch != self._epoch:
            raise SupersededError(f"given up: {self._epoch_reason} while the query ran; ask again")

    def drain(self, snapshot: Snapshot) -> list[StoredFrame]:
        """Take the frames that passed since the snapshot, or since the last call, oldest first.

        Raises:
            SupersededError: as :meth:`check`.
        """
        self.check(snapshot)
        if self._catch_up is None:
            return []
        passed = self._catch_up.drain()
        self.counters.catch_up_skipped += self._catch_up.skipped
        self._catch_up.skipped = 0
        return passed

    def stop_keeping(self) -> None:
        """Keep no more frames to catch up."""
        self._catch_up = None

    def forget(self, reason: str) -> None:
        """Forget all frames: an epoch begins for a reason, which those learn who look at an earlier one."""
        self._new_epoch(reason)
        self._stamps.start()
        self.newest = None

    def _start_anew(self, reason: str, frame: Frame) -> None:
        now = time.monotonic()
        if now >= self._silent_until:  # two cameras on one topic would fill the log
            logger.warning("%s: the frame window starts anew, objects are followed on", reason)
            self._silent_until = now + _WARNING_PERIOD_SECONDS
        self.counters.discontinuities += 1
        self._stamps.start(frame.stamp_ns)
        self._new_epoch(reason)

    def _new_epoch(self, reason: str) -> None:
        self._epoch += 1
        self._epoch_reason = reason
        self._window.clear()
        self.newest_key_frame = None
        self._catch_up = None
