"""Frames that are kept: the sliding window that queries look at, and the frames that pass while a query runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from decaf_ros.datatypes import Frame, FrameWindow
from decaf_ros.models.protocols import FrameFeatures, MaskTracker

# For somebody who points at an image that was just shown: a second of a 30 Hz camera, and never more of a slower one.
_RECENT_FRAMES = 30
_RECENT_NS = 1_000_000_000
# Ten frames a second, give or take what a camera's stamps do: at fewer, what a hand moves is lost more often.
_CARRY_NS = 80_000_000
# That language models merge into one step in time of a video, at most. Windows begin with a key frame whose number is a
# multiple of it, so that the same frames are merged again and again while they move on.
_STEP_FRAMES = 2

T = TypeVar("T")


class StoredFrame:
    """A frame with its image features, which whoever asks first computes and everybody shares. Thread-safe.

    Attributes:
        frame: the image.
        tracker: the mask model whose features they are, and which alone can read them.
    """

    def __init__(self, frame: Frame, tracker: MaskTracker) -> None:
        self.frame = frame
        self.tracker = tracker
        self._features: FrameFeatures | None = None
        self._lock = threading.Lock()

    def features(self) -> FrameFeatures:
        """The image encoder's output, computed on the first call."""
        with self._lock:
            if self._features is None:
                self._features = self.tracker.encode(self.frame)
            return self._features

    @property
    def is_encoded(self) -> bool:
        """Whether the image encoder's output is there already."""
        return self._features is not None

    def without_features(self) -> StoredFrame:
        """The same frame, whose features whoever needs them computes anew: they are larger than the image."""
        return StoredFrame(self.frame, self.tracker)


class KeyFrameBuffer:
    """The last ``window_seconds`` at about ``window_hz``: the first frame of each period of 1 / ``window_hz`` is kept.

    Beside these key frames there are all frames of about the last second, but not their features. Not thread-safe; the session
    guards it.
    """

    def __init__(self, window_seconds: float, window_hz: float) -> None:
        self._span_ns = int(window_seconds * 1e9)
        self._period_ns = int(1e9 / window_hz)
        self._frames: tuple[StoredFrame, ...] = ()
        self._first_number = 0
        self._recent: deque[StoredFrame] = deque(maxlen=_RECENT_FRAMES)
        self._newest: StoredFrame | None = None

    def add(self, stored: StoredFrame) -> bool:
        """Take a frame that is newer than all before it; whether it is kept as a key frame."""
        stamp_ns = stored.frame.stamp_ns
        is_key = not self._frames or stamp_ns // self._period_ns > self._frames[-1].frame.stamp_ns // self._period_ns
        kept = tuple(each for each in self._frames if each.frame.stamp_ns >= stamp_ns - self._span_ns)
        self._first_number += len(self._frames) - len(kept)
        self._frames = (*kept, stored) if is_key else kept
        self._newest = stored
        self._recent.append(stored.without_features())
        while self._recent[0].frame.stamp_ns < stamp_ns - _RECENT_NS:
            self._recent.popleft()
        return is_key

    def since(self, stamp_ns: int) -> list[StoredFrame]:
        """The first frame that is kept from a stamp on, the key frames after it, and the newest frame, oldest first.

        At least the newest, once there is one.
        """
        if self._newest is None:
            return []
        kept = {each.frame.stamp_ns: each for each in (*self._recent, *self._frames, self._newest)}
        newest_ns = self._newest.frame.stamp_ns
        first_ns = min((each for each in kept if each >= stamp_ns), default=newest_ns)
        later_ns = [each.frame.stamp_ns for each in self._frames if first_ns < each.frame.stamp_ns < newest_ns]
        return [kept[each] for each in dict.fromkeys((first_ns, *later_ns, newest_ns))]

    def clear(self) -> None:
        """Forget everything, as after a jump in time."""
        self._first_number += len(self._frames)
        self._frames = ()
        self._recent.clear()
        self._newest = None

    def select(self, count: int, window_seconds: float | None = None) -> list[StoredFrame]:
        """Up to ``count`` key frames over the last ``window_seconds``, oldest first, and the newest frame as the last of them.

        Where there are many more, they are uniform in time. Else the oldest are left out: those for which there is no room, and
        maybe one more, so that pairs of frames are the same from one call to the next. Empty when no frame was ever added.
        """
        if self._newest is None:
            return []
        newest_ns = self._newest.frame.stamp_ns
        span_ns = self._span_ns if window_seconds is None else int(window_seconds * 1e9)
        first = sum(stored.frame.stamp_ns < newest_ns - span_ns for stored in self._frames)
        frames = [*(stored for stored in self._frames[first:] if stored is not self._newest), self._newest]
        left_out = max(0, len(frames) - count)
        if left_out > _STEP_FRAMES:
            return _uniform_in_time(frames, count)
        odd = (self._first_number + first + left_out) % _STEP_FRAMES
        if len(frames) - left_out - odd > count // 2:  # of few frames, each tells something
            left_out += odd
        return frames[left_out:]

    @property
    def key_frames(self) -> tuple[StoredFrame, ...]:
        """All key frames, oldest first; any thread may ask."""
        return self._frames


def _uniform_in_time(frames: Sequence[StoredFrame], count: int) -> list[StoredFrame]:
    """At most ``count`` of the frames: those nearest to evenly spaced times, since a camera may pause; the last even alone."""
    if len(frames) <= count or count == 1:
        return list(frames[-count:])
    stamps_ns = [each.frame.stamp_ns for each in frames]
    chosen: list[int] = []
    for rank in range(count):
        wanted_ns = stamps_ns[0] + (stamps_ns[-1] - stamps_ns[0]) * rank // (count - 1)
        first, last = (chosen[-1] + 1 if chosen else 0), len(frames) - count + rank  # each once, and one for every later rank
        chosen.append(min(range(first, last + 1), key=lambda index: abs(stamps_ns[index] - wanted_ns)))
    return [frames[index] for index in chosen]


class CatchUpBuffer:
    """Frames that pass while a query runs, to carry its objects over: those that have their features, and some ten a second.

    They are bounded: when full, every second one is given up and the stride doubles. The newest frame is there whatever it is:
    a camera may stop, and the query is answered on the last image.

    Attributes:
        skipped: frames given up so far.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._frames: list[StoredFrame] = []
        self._stride = 1
        self._seen = 0
        self._seen_ns: int | None = None
        self._last_skipped: StoredFrame | None = None
        self.skipped = 0

    def append(self, stored: StoredFrame) -> bool:
        """Keep the frame, or count it as skipped; whether it is kept for itself, and not as the newest alone."""
        is_dense = self._seen_ns is not None and stored.frame.stamp_ns - self._seen_ns < _CARRY_NS
        if is_dense and not stored.is_encoded:
            return self._skip(stored)
        self._seen += 1
        self._seen_ns = stored.frame.stamp_ns
        if self._seen % self._stride:
            return self._skip(stored)
        self._frames.append(stored)
        self._last_skipped = None
        if len(self._frames) > self._capacity:
            self.skipped += len(self._frames) // 2
            self._frames = self._frames[-1::-2][::-1]
            self._stride *= 2
        return True

    def _skip(self, stored: StoredFrame) -> bool:
        self.skipped += 1
        self._last_skipped = stored
        return False

    def drain(self) -> list[StoredFrame]:
        """Take all frames out, oldest first, and start anew at stride 1."""
        frames, self._frames = self._frames, []
        if self._last_skipped is not None:
            frames.append(self._last_skipped)
            self.skipped -= 1
            self._last_skipped = None
        self._stride, self._seen = 1, 0
        return frames


def uniform_selection(frames: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the frames, or of their indices: uniform from the first to the last, which is there even alone."""
    if len(frames) <= count:
        return list(frames)
    step = (len(frames) - 1) / max(count - 1, 1)
    return [frames[len(frames) - 1 - round(index * step)] for index in reversed(range(count))]


def window_of(clip: list[StoredFrame]) -> FrameWindow:
    """The frames of a clip as the language model's input."""
    return FrameWindow(tuple(stored.frame for stored in clip))
