"""What became of the camera's images."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
from rclpy.clock import ROSClock

_AGES_KEPT = 300
SAME_STAMP = "all images bear the same stamp: does the driver set header.stamp?"


class _StopWatch:
    """Seconds since it was started: by the wall clock, and under simulated time not longer than by that one either.

    A paused bag is not a broken camera, and neither is one whose time jumps.
    """

    def __init__(self, clock: ROSClock) -> None:
        self._clock = clock
        self.start()

    def start(self) -> None:
        self._since_s, self._since_sim_s = time.monotonic(), self._sim_s()

    @property
    def seconds(self) -> float:
        passed = time.monotonic() - self._since_s
        if not self._clock.ros_time_is_active:
            return passed
        now = self._sim_s()
        self._since_sim_s = min(self._since_sim_s, now)  # time was set back
        return min(passed, now - self._since_sim_s)

    def _sim_s(self) -> float:
        return self._clock.now().nanoseconds * 1e-9


class CameraStatistics:
    """Counts images and times masks. Thread-safe.

    Ages are by the node's clock, as stamps are. Silence and blindness are by a :class:`_StopWatch`.

    Args:
        clock: of the node.
    """

    def __init__(self, clock: ROSClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._received = self._unusable = self._old = 0
        self._last_rejection = self._obstacle = ""
        self._last_stamp_ns: int | None = None
        self._ages_ms: deque[float] = deque(maxlen=_AGES_KEPT)
        self._last_mask_ns = 0
        self._last_report = (time.monotonic(), 0)
        self._heard, self._followed = _StopWatch(clock), _StopWatch(clock)

    def start(self) -> None:
        """Silence and blindness count from now on."""
        with self._lock:
            self._heard.start()
            self._followed.start()
            self._obstacle, self._last_stamp_ns = "", None

    def note_arrival(self, stamp_ns: int) -> None:
        """An image came in."""
        with self._lock:
            self._received += 1
            self._heard.start()
            if stamp_ns == self._last_stamp_ns:
                self._obstacle = SAME_STAMP
            self._last_stamp_ns = stamp_ns

    def note_mask(self, stamp_ns: int) -> None:
        """The mask of the image with that stamp was published."""
        now_ns = self._clock.now().nanoseconds
        with self._lock:
            self._followed.start()
            self._obstacle = ""
            if now_ns < self._last_mask_ns:
                self._ages_ms.clear()  # a bag that starts over: what was measured before belongs to another time
            self._last_mask_ns = now_ns
            if (
                now_ns >= stamp_ns or not self._clock.ros_time_is_active
            ):  # else stamp and simulated time are from before and after
                self._ages_ms.append((now_ns - stamp_ns) * 1e-6)

    def note_old(self) -> None:
        """An image was too old when its turn came; it will be noted as a rejection, too."""
        with self._lock:
            self._old += 1

    def note_rejection(self, reason: str) -> None:
        """An image was not followed."""
        with self._lock:
            self._unusable += 1
            self._last_rejection = self._obstacle = reason

    def age_ns(self, stamp_ns: int) -> int:
        """Age of a stamp."""
        return self._clock.now().nanoseconds - stamp_ns

    @property
    def received(self) -> int:
        """Images that came in."""
        return self._received

    @property
    def dropped_old(self) -> int:
        """Images that were too old when their turn came."""
        return self._old

    @property
    def rejected(self) -> int:
        """Images that could not be decoded or followed."""
        with self._lock:
            return self._unusable - self._old

    @property
    def last_rejection(self) -> str:
        """Why the last image that was not followed was not; "" for none."""
        return self._last_rejection

    @property
    def clock_stands_at_zero(self) -> bool:
        """Whether time is simulated and nobody has told it yet."""
        return self._clock.ros_time_is_active and self._clock.now().nanoseconds == 0

    @property
    def silent_seconds(self) -> float:
        """Time since the last image, or since the start before the first."""
        with self._lock:
            return self._heard.seconds

    @property
    def blind_seconds(self) -> float:
        """Time since an image was followed last, or since the start before the first."""
        with self._lock:
            return self._followed.seconds

    @property
    def obstacle(self) -> str:
        """Why images are not followed, if one came and was not since the last that was; else ""."""
        return self._obstacle

    def take_input_rate(self) -> float:
        """Images a second of the wall clock since the last call."""
        with self._lock:
            now = time.monotonic()
            since, count = self._last_report
            self._last_report = (now, self._received)
            return (self._received - count) / max(now - since, 1e-3)

    def mask_age_ms(self) -> tuple[float, float]:
        """Median and 95th percentile of the age of the last masks, in milliseconds; NaN before the first."""
        with self._lock:
            ages = list(self._ages_ms)
        if not ages:
            return float("nan"), float("nan")
        median, p95 = np.percentile(ages, [50, 95])
        return float(median), float(p95)
