"""message_filters where there is none: that one comes with a ROS distribution only, and not as a wheel.

The two classes that decaf_ros needs, under the same names, with the same interface for two inputs and the same rule; a test
compares the pairs of both on random stamps wherever message_filters is installed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from decaf_ros.imaging import stamp_to_ns

Callback = Callable[..., None]


class SimpleFilter:
    """Hands on what it is given to those who asked for it."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[Callback, tuple[Any, ...]]] = []

    def registerCallback(self, callback: Callback, *args: Any) -> None:  # noqa: N802
        """Call back with every message; ``args`` follow the message."""
        self.callbacks.append((callback, args))

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802
        """Give a message to all callbacks, on this thread."""
        for callback, args in self.callbacks:
            callback(*messages, *args)


class ApproximateTimeSynchronizer(SimpleFilter):
    """Pairs the messages of two filters whose stamps differ by less than ``slop`` seconds; each goes into one pair at most.

    A new message is paired at once with the closest one of the other filter, if that is close enough, and waits otherwise. Of
    each filter the ``queue_size`` messages with the latest stamps wait. The callback comes on the thread of the later one.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int, slop: float) -> None:
        super().__init__()
        self._queue_size = queue_size
        self._slop_ns = int(slop * 1e9)
        self._queues: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
        self._lock = threading.Lock()
        first, second = fs
        first.registerCallback(self._add, 0)
        second.registerCallback(self._add, 1)

    def _add(self, message: Any, index: int) -> None:
        stamp = stamp_to_ns(message.header.stamp)
        own, other = self._queues[index], self._queues[1 - index]
        with self._lock:
            own[stamp] = message
            while len(own) > self._queue_size:
                del own[min(own)]
            closest = min(other, key=lambda waiting: abs(waiting - stamp), default=None)
            if closest is None or stamp not in own or abs(closest - stamp) >= self._slop_ns:
                return
            pair = (own.pop(stamp), other.pop(closest))
            self.signalMessage(*(pair if index == 0 else pair[::-1]))
