"""Which thread runs which callback of the node."""

from __future__ import annotations

from concurrent import futures
from typing import Any

from rclpy.executors import ConditionReachedException, Executor, ShutdownException, TimeoutException
from rclpy.subscription import Subscription
from rclpy.task import Task
from rclpy.timer import Timer

_NOTHING_TO_DO = (ConditionReachedException, ShutdownException, TimeoutException)


class CameraFirstExecutor(Executor):
    """Runs subscriptions on the thread that spins, timers on a second one, and services, actions and tasks on a pool.

    An image so reaches the engine without changing threads, whatever else waits or blocks. rclpy's MultiThreadedExecutor leaves
    taking an image to its pool, too. Beside threads that compute in Python that begins a few milliseconds later; until then
    there is something to read, so that no wait for the subscription's other events sleeps under Fast DDS, and spinning takes a
    whole core, and the interpreter's lock with it, for every image of the camera.

    Args:
        threads: of the pool; so many callbacks may block at a time.
    """

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._timers = futures.ThreadPoolExecutor(1, thread_name_prefix="decaf-timer")
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="decaf-callback")
        self._steps: dict[Task[Any], futures.Future[None]] = {}

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback that is ready, and run it or hand it over; raises what a callback raised, one at a time."""
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec)
        except _NOTHING_TO_DO:
            pass
        else:
            if isinstance(entity, Subscription):
                handler()
                if handler.done():
                    handler.result()
            else:
                self._hand_over(handler, self._timers if isinstance(entity, Timer) else self._pool)
        self._raise_an_error()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Take no more callbacks, and wait for those that run, however long: the timeout is rclpy's, which does not wait."""
        finished = super().shutdown(timeout_sec)
        self._timers.shutdown()
        self._pool.shutdown()
        return finished

    def _hand_over(self, handler: Task[Any], pool: futures.Executor) -> None:
        step = self._steps.get(handler)  # rclpy offers what no thread has begun yet again and again
        if step is None or step.done():  # new, or a coroutine that waits for something and looks whether it is there
            self._steps[handler] = pool.submit(handler)

    def _raise_an_error(self) -> None:
        """Forget callbacks that ended; the first that ended in an error raises it, and the others are looked at next time."""
        for handler, step in list(self._steps.items()):
            crashed = step.exception() if step.done() else None  # what rclpy lets through, such as SystemExit
            if crashed is not None or handler.done() or handler.cancelled():
                del self._steps[handler]
                if crashed is not None:
                    raise crashed
                if handler.done():
                    handler.result()
