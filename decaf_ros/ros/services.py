"""The node's services: requests to the engine, and its answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from std_srvs.srv import Trigger

from decaf_ros.ros import replies
from decaf_ros.ros.futures import completed
from decaf_ros.session.engine import Engine
from decaf_ros.session.session import NoFramesError, SessionError
from decaf_ros.srv import ListQueries, Query, RemoveObject, RemoveQuery


class Services:
    """``~/query``, ``~/remove_object``, ``~/remove_query``, ``~/list_queries`` and ``~/reset``.

    Args:
        node: that offers them.
        engine: does what is asked.
        problem: why queries cannot be answered now; "" when they can.
        camera_hint: where to look when no image comes.
    """

    def __init__(self, node: Node, engine: Engine, problem: Callable[[], str], camera_hint: Callable[[], str]) -> None:
        self._node = node
        self._engine = engine
        self._problem = problem
        self._camera_hint = camera_hint
        # Reentrant: a query that waits for its result must not keep the next one from queueing.
        node.create_service(Query, "~/query", self._query, callback_group=ReentrantCallbackGroup())
        group = MutuallyExclusiveCallbackGroup()
        node.create_service(RemoveObject, "~/remove_object", self._remove_object, callback_group=group)
        node.create_service(RemoveQuery, "~/remove_query", self._remove_query, callback_group=group)
        node.create_service(ListQueries, "~/list_queries", self._list_queries, callback_group=group)
        node.create_service(Trigger, "~/reset", self._reset, callback_group=group)

    async def _query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        arrived = time.monotonic()
        try:
            self._require_ready()
            window_seconds = request.window_seconds if request.window_seconds != 0 else None
            job = self._engine.query(request.expression, window_seconds, request.replace)
            result = await completed(self._node, job.future)
        except NoFramesError as error:
            response.message = f"{error}: {self._camera_hint()}"
        except SessionError as error:
            response.message = str(error)
        else:
            replies.fill_query(response, result, total_ms=(time.monotonic() - arrived) * 1e3)
        return response

    def _remove_object(self, request: RemoveObject.Request, response: RemoveObject.Response) -> RemoveObject.Response:
        try:
            self._require_ready()
            self._engine.remove_object(request.object_id)
            response.success = True
        except SessionError as error:
            response.message = str(error)
        return response

    def _remove_query(self, request: RemoveQuery.Request, response: RemoveQuery.Response) -> RemoveQuery.Response:
        try:
            self._require_ready()
            response.removed_object_ids = self._engine.remove_query(request.query_id)
            response.success = True
        except SessionError as error:
            response.message = str(error)
        return response

    def _list_queries(self, request: ListQueries.Request, response: ListQueries.Response) -> ListQueries.Response:
        response.queries = [replies.query_info(query) for query in self._engine.queries()]
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._require_ready()
            self._engine.reset()
            response.success = True
            response.message = "all queries, objects and frames are forgotten"
        except SessionError as error:
            response.message = str(error)
        return response

    def _require_ready(self) -> None:
        if problem := self._problem():
            raise SessionError(problem)
