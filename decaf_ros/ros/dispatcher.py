"""From the node's services and actions to the engine, and back with its answer or with the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node

from decaf_ros.ros.futures import completed
from decaf_ros.ros.replies import refuse
from decaf_ros.session.engine import Engine
from decaf_ros.session.errors import NoFramesError, SessionError
from decaf_ros.session.jobs import Job, QueryResult


@dataclass(frozen=True, eq=False)
class Request:
    """What the engine was asked for.

    Attributes:
        future: completed with the result or a ``SessionError``.
        arrived: when it was asked, in seconds of ``time.monotonic``.
        query_id: of the query that it became; 0 when it was refused.
    """

    future: Future[QueryResult]
    arrived: float
    query_id: int = 0


@dataclass(frozen=True, eq=False)
class Dispatcher:
    """What services and actions of a node share.

    Attributes:
        node: that offers them.
        engine: does what is asked.
        problem: why queries cannot be answered now; "" when they can.
        camera_hint: where to look when no image is followed.
        unanswered: requests whose answer is still to be written.
    """

    node: Node
    engine: Engine
    problem: Callable[[], str]
    camera_hint: Callable[[], str]
    unanswered: set[Request] = field(default_factory=set, init=False)

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
            job = submit()
            request = Request(job.future, arrived, job.query_id)
        except SessionError as error:
            request = Request(Future(), arrived)
            request.future.set_exception(error)
        self.unanswered.add(request)
        return request

    async def answer(
        self,
        request: Request,
        response: Any,
        fill: Callable[[Any, QueryResult, float], None],
        refuse: Callable[[Any, SessionError], None] = refuse,
    ) -> None:
        """Write the engine's answer once it comes; no thread waits for it.

        Args:
            request: what was asked.
            response: changed in place; ``query_id`` tells which query it was.
            fill: writes the result into the response; also gets the milliseconds since the request came.
            refuse: writes the reason into the response when there is no result.
        """
        response.query_id = request.query_id
        try:
            result = await completed(self.node, request.future)
        except NoFramesError as error:
            refuse(response, NoFramesError(f"{error}: {self.camera_hint()}"))
        except SessionError as error:
            refuse(response, error)
        else:
            fill(response, result, (time.monotonic() - request.arrived) * 1e3)
        finally:
            self.unanswered.discard(request)
