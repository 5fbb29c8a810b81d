"""Which thread runs which callback of the node."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any, cast

from rclpy.executors import ConditionReachedException, Executor, ShutdownException, TimeoutException
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.task import Task
from rclpy.timer import Timer

from decaf_ros.ros.postman import Postman

_NOTHING_TO_DO = (ConditionReachedException, ShutdownException, TimeoutException)


class CameraFirstExecutor(Executor):
    """Runs subscriptions on the thread that spins, timers on a second one, and services, actions and tasks on a pool.
    A thread more sends what services answer.

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
        self._postman = Postman()
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
        self._postman.close()
        return finished

    def _take_service(self, srv: Service[Any, Any]) -> Callable[[], Any] | None:
        """As rclpy's, but that the answer is posted."""
        return cast("Callable[[], Any] | None", super()._take_service(_Answered(srv, self._postman)))  # type: ignore[arg-type]

    def _hand_over(self, handler: Task[Any], pool: futures.Executor) -> None:
        step = self._steps.get(handler)  # rclpy offers what no thread has begun yet again and again
        if step is None or step.done():  # new, or a coroutine that waits for something and looks whether it is there
            self._steps[handler] = pool.submit(handler)

    def _raise_an_error(self) -> None:
        """Forget callbacks that ended; the first that ended in an error raises it, and the others are looked at next time."""
        if self._postman.errors:
            raise self._postman.errors.pop(0)
        for handler, step in list(self._steps.items()):
            crashed = step.exception() if step.done() else None  # what rclpy lets through, such as SystemExit
            if crashed is not None or handler.done() or handler.cancelled():
                del self._steps[handler]
                if crashed is not None:
                    raise crashed
                if handler.done():
                    handler.result()


class _Answered:
    """A service to take a request from, whose answers go to the postman."""

    def __init__(self, service: Service[Any, Any], postman: Postman) -> None:
        self.handle = service.handle
        self.srv_type = service.srv_type
        self.callback = service.callback
        self._service = service
        self._postman = postman

    def send_response(self, response: Any, header: Any) -> None:
        self._postman.post(lambda: self._service.send_response(response, header))
