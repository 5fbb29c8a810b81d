"""Which thread runs which callback of the node."""

from __future__ import annotations

import time
from concurrent import futures
from typing import Any

from rclpy.executors import (
    ConditionReachedException,
    Executor,
    ShutdownException,
    TimeoutException,
)
from rclpy.subscription import Subscription
from rclpy.task import Task
from rclpy.timer import Timer

_NOTHING_TO_DO = (ConditionReachedException, ShutdownException, TimeoutException)
_WAIT_FOR_A_THREAD_SECONDS = 0.001


class CameraFirstExecutor(Executor):
    """Runs subscriptions and timers on the thread that spins; services, actions and tasks, which may take long, on a pool.

    An image so reaches the engine without changing threads. rclpy's MultiThreadedExecutor gives every callback to its pool, and
    offers one that no thread has begun yet again and again: beside threads that compute in Python it begins a few milliseconds
    later, and until then spinning takes a whole core, and the interpreter's lock with it, for every image of the camera.

    Args:
        threads: of the pool; so many callbacks may block at a time.
    """

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="decaf-callback")
        self._steps: dict[Task[Any], futures.Future[None]] = {}

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback that is ready, and run it or hand it over; raises what a callback raised."""
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec)
        except _NOTHING_TO_DO:
            return
        if isinstance(entity, (Subscription, Timer)):
            handler()
            _raise_error_of(handler)
        else:
            self._hand_over(handler)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Take no more callbacks, and wait for those that run; see rclpy's ``Executor``."""
        finished = super().shutdown(timeout_sec)
        self._pool.shutdown()
        return finished

    def _hand_over(self, handler: Task[Any]) -> None:
        step = self._steps.get(handler)
        if step is None or step.done():  # new, or a coroutine that waits for something and looks whether it is there
            self._steps[handler] = self._pool.submit(handler)
        else:
            time.sleep(_WAIT_FOR_A_THREAD_SECONDS)
        for each in [each for each in self._steps if each.done()]:
            del self._steps[each]
            _raise_error_of(each)


def _raise_error_of(handler: Task[Any]) -> None:
    if handler.done():
        handler.result()
