"""From the node's services and actions to the engine, and back with its answer or with the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from decaf_ros.ros.futures import completed
from decaf_ros.session.engine import Engine, Job, QueryResult
from decaf_ros.session.session import NoFramesError, SessionError


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

    async def answer(self, response: Any, submit: Callable[[], Job], fill: Callable[[Any, QueryResult, float], None]) -> None:
        """Have the engine do something, and write its answer once it comes; no thread waits for it.

        Args:
            response: changed in place; its ``message`` tells the reason when there is no answer.
            submit: asks the engine; raises ``SessionError`` when it refuses.
            fill: writes the result into the response; also gets the milliseconds since the request came.
        """
        arrived = time.monotonic()
        try:
            self.require_ready()
            result = await completed(self.node, submit().future)
        except NoFramesError as error:
            response.message = f"{error}: {self.camera_hint()}"
        except SessionError as error:
            response.message = str(error)
        else:
            fill(response, result, (time.monotonic() - arrived) * 1e3)
