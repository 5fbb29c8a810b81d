"""From the node's services and actions to the engine, and back with its answer or with the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from decaf_ros.ros.futures import completed
from decaf_ros.session.engine import Engine, Job, QueryResult
from decaf_ros.session.session import NoFramesError, SessionError


@dataclass(frozen=True, eq=False)
class Request:
    """What the engine was asked for.

    Attributes:
        future: completed with the result or a ``SessionError``.
        arrived: when it was asked, in seconds of ``time.monotonic``.
    """

    future: Future[QueryResult]
    arrived: float


@dataclass(frozen=True, eq=False)
class Dispatcher:
    """What services and actions of a node share.

    Attributes:
        node: that offers them.
        engine: does what is asked.
        problem: why queries cannot be answered now; "" when they can.
        camera_hint: where to look when no image comes.
    """

    node: Node
    engine: Engine
    problem: Callable[[], str]
    camera_hint: Callable[[], str]

    def require_ready(self) -> None:
        """Raise ``SessionError`` with the reason if queries cannot be answered now."""
        if problem := self.problem():
            raise SessionError(problem)

    def ask(self, submit: Callable[[], Job]) -> Request:
        """Have the engine do something.

        Args:
            submit: asks it; raises ``SessionError`` when it refuses, which becomes the answer.
        """
        arrived = time.monotonic()
        try:
            self.require_ready()
            return Request(submit().future, arrived)
        except SessionError as error:
            refused: Future[QueryResult] = Future()
            refused.set_exception(error)
            return Request(refused, arrived)

    async def answer(self, request: Request, response: Any, fill: Callable[[Any, QueryResult, float], None]) -> None:
        """Write the engine's answer once it comes; no thread waits for it.

        Args:
            request: what was asked.
            response: changed in place; its ``message`` tells the reason when there is no answer.
            fill: writes the result into the response; also gets the milliseconds since the request came.
        """
        try:
            result = await completed(self.node, request.future)
        except NoFramesError as error:
            response.message = f"{error}: {self.camera_hint()}"
        except SessionError as error:
            response.message = str(error)
        else:
            fill(response, result, (time.monotonic() - request.arrived) * 1e3)
