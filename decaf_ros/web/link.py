"""What the page knows of decaf_node, and how it calls the node's services without blocking the event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.topic_endpoint_info import TopicEndpointInfo
from std_srvs.srv import Trigger

from decaf_ros.drawing import object_colour
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.msg import QueryInfo, StageLatency, TrackedObject, TrackedObjectArray
from decaf_ros.ros.client import PARTS, DecafClient
from decaf_ros.srv import ListQueries, Query, RemoveObject, RemoveQuery
from decaf_ros.text import brief
from decaf_ros.web.topics import LazyTopic

_PERIOD_SECONDS = 0.5
# Diagnostics come once a second.
_SILENCE_SECONDS = 5.0
_CALL_SECONDS = 30.0
_DISCOVERY_SECONDS = 5.0
# Anybody may send diagnostics in the node's name: of more than it has itself, nothing is kept.
_MAX_FIGURES = 100

_LEVELS = {DiagnosticStatus.OK: "ok", DiagnosticStatus.WARN: "warning"}
_PRESENCES = {"active": "online", "": "waiting"}
_QUERY_STATES = {
    QueryInfo.QUEUED: "queued",
    QueryInfo.RUNNING: "running",
    QueryInfo.WAITING: "waiting",
    QueryInfo.ACTIVE: "active",
    QueryInfo.FAILED: "failed",
}
_STAGES = tuple(name for name in StageLatency.get_fields_and_field_types() if name != "total_ms")


class NodeUnavailableError(Exception):
    """The node is not there, or went away before it answered."""


class NodeLink:
    """Presence, queries, objects and diagnostics of the node. Belongs to the event loop that it is made in.

    Args:
        client: of the node.
        answer_s: how long a question may take.
    """

    def __init__(self, client: DecafClient, answer_s: float) -> None:
        self._client = client
        self._answer_s = answer_s
        self._loop = asyncio.get_running_loop()
        self._objects = LazyTopic(client, "~/objects", TrackedObjectArray)
        self._name = client.target
        self._diagnostics: dict[str, DiagnosticStatus] = {}
        self._heard = -math.inf
        self._publishers: frozenset[bytes] = frozenset()
        self._starts = 0
        self._present = False
        self._viewers = 0
        self._queries: list[QueryInfo] = []
        self._last_answer: dict[str, Any] | None = None
        self._calls: set[asyncio.Future[Any]] = set()
        client.subscribe("/diagnostics", DiagnosticArray, self._receive_diagnostics, depth=10)

    async def watch_presence(self) -> None:
        """Note for ever whether the node is there, or another one in its place."""
        while True:
            try:
                self._note_presence()
            except Exception as error:  # rclpy has errors of its own
                self._client.node.get_logger().error(f"the node cannot be looked for: {brief(error)}")
            await asyncio.sleep(_PERIOD_SECONDS)

    async def watch_queries(self) -> None:
        """Ask for ever what the node's queries are, while anybody looks at them."""
        while True:
            if self._viewers:
                await self._refresh_queries()
            await asyncio.sleep(_PERIOD_SECONDS)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep queries and objects up to date within this block."""
        self._viewers += 1
        try:
            with self._objects.watched():
                yield
        finally:
            self._viewers -= 1

    async def catch_up(self) -> None:
        """Ask for the queries, which nobody did while nobody looked at them."""
        if self._viewers == 1:
            await self._refresh_queries(_PERIOD_SECONDS)

    def snapshot(self) -> dict[str, Any]:
        """Everything that the page shows, but for the images, ready for JSON."""
        message = self._objects.newest
        tracked = {each.id: each for each in message.objects} if message else {}
        return {
            "node": {"name": self._name, "presence": self._presence(), "restarts": max(0, self._starts - 1)},
            "queries": [_query_summary(query, tracked, _stamp_ns(message)) for query in self._queries],
            "diagnostics": [_status_summary(part, status) for part, status in self._diagnostics.items()],
            "answer": self._last_answer,
        }

    # --- services ---

    async def query(self, expression: str, replace: bool, accept_doubtful: bool = False) -> dict[str, Any]:
        """Ask, and wait for the answer; every viewer sees it as the last one.

        Raises:
            NodeUnavailableError: there will be no answer, or it takes too long.
        """
        request = Query.Request(expression=expression, replace=replace, accept_doubtful=accept_doubtful)
        response = await self._call("query", request, self._answer_s)
        answer = {
            "success": response.success,
            "message": response.message,
            "expression": expression,
            "object_name": response.object_name,
            "presence": response.presence,
            "stages": [{"name": name.removesuffix("_ms"), "ms": getattr(response.latency, name)} for name in _STAGES],
            "total_ms": response.latency.total_ms,
        }
        if response.success:
            self._last_answer = answer
        await self._refresh_queries(_PERIOD_SECONDS)
        return answer

    async def remove_object(self, object_id: int) -> dict[str, Any]:
        """Stop tracking an object; raises as :meth:`query` does."""
        return await self._change("remove_object", RemoveObject.Request(object_id=object_id))

    async def remove_query(self, query_id: int) -> dict[str, Any]:
        """Forget or cancel a query; raises as :meth:`query` does."""
        return await self._change("remove_query", RemoveQuery.Request(query_id=query_id))

    async def reset(self) -> dict[str, Any]:
        """Forget everything; raises as :meth:`query` does."""
        self._last_answer = None
        return await self._change("reset", Trigger.Request())

    async def _change(self, service: str, request: Any) -> dict[str, Any]:
        response = await self._call(service, request)
        await self._refresh_queries(_PERIOD_SECONDS)
        return {"success": response.success, "message": response.message}

    async def _refresh_queries(self, patience_s: float | None = None) -> None:
        """A node that hangs is waited for no longer than that, and what is known stays."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._list_queries(), patience_s)

    async def _list_queries(self) -> None:
        try:
            self._queries = list((await self._call("list_queries", ListQueries.Request())).queries)
        except NodeUnavailableError:
            self._queries = []

    async def _call(self, service: str, request: Any, timeout_s: float = _CALL_SECONDS) -> Any:
        future = await self._send(service, request)
        answer: asyncio.Future[Any] = self._loop.create_future()

        def settle(done: Any) -> None:
            self._loop.call_soon_threadsafe(_settle, answer, done)

        future.add_done_callback(settle)
        self._calls.add(answer)
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise NodeUnavailableError(f"{self._name} did not answer within {timeout_s:g} s") from None
        finally:
            self._calls.discard(answer)
            future.cancel()

    async def _send(self, service: str, request: Any) -> Any:
        """The future of an answer. An active node has all services; when it has just come, some are still to be discovered."""
        deadline = time.monotonic() + _DISCOVERY_SECONDS
        while True:
            try:
                return self._client.call_async(service, request, timeout_s=0.0)
            except TimeoutError as error:
                if self._presence() != "online" or time.monotonic() > deadline:
                    raise NodeUnavailableError(str(error)) from error
            await asyncio.sleep(_PERIOD_SECONDS)

    # --- presence ---

    def _presence(self) -> str:
        """ "online" for an active node, the state of its lifecycle for any other, or how it is missed."""
        if not self._present:
            return "gone" if self._starts else "waiting"
        if time.monotonic() - self._heard > _SILENCE_SECONDS:
            return "silent"
        queries = self._diagnostics.get("queries")
        state = next((pair.value for pair in queries.values if pair.key == "state"), "") if queries else ""
        return _PRESENCES.get(state, state)

    def _note_presence(self) -> None:
        """The node publishes diagnostics in every state: a publisher that was not there before is a node started since."""
        found = self._client.node.get_publishers_info_by_topic("/diagnostics")
        publishers = frozenset(bytes(each.endpoint_gid) for each in found if _full_name(each) == self._name)
        was_present, self._present = self._present, bool(publishers)
        if publishers - self._publishers:
            self._starts += 1
            self._heard = time.monotonic()
            if self._starts > 1:
                self._forget(f"{self._name} was restarted before it answered: ask again")
        elif was_present and not publishers:
            # DDS cannot tell a node that hangs for longer than its lease from one that was killed. It may come back as it was.
            self._forget(f"{self._name} went away, or hangs, before it answered")
        self._publishers = publishers or self._publishers

    def _forget(self, reason: str) -> None:
        """What is known of a node that is no more."""
        for call in self._calls:
            if not call.done():
                call.set_exception(NodeUnavailableError(reason))
        self._queries = []
        self._diagnostics = {}
        self._last_answer = None
        self._objects.forget()

    def _receive_diagnostics(self, message: DiagnosticArray) -> None:
        """On the client's thread."""
        self._loop.call_soon_threadsafe(self._keep_diagnostics, message)

    def _keep_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = f"{self._name}: "
        for status in message.status:
            part = status.name.removeprefix(prefix)
            if status.name.startswith(prefix) and part in PARTS:
                self._diagnostics[part] = status
                self._heard = time.monotonic()


def _full_name(endpoint: TopicEndpointInfo) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _settle(answer: asyncio.Future[Any], done: Any) -> None:
    if answer.done() or done.cancelled():
        return
    if (error := done.exception()) is not None:
        answer.set_exception(NodeUnavailableError(str(error)))
    else:
        answer.set_result(done.result())


def _stamp_ns(message: TrackedObjectArray | None) -> int:
    """Of the newest image; 0 before the first."""
    return stamp_to_ns(message.header.stamp) if message is not None else 0


def _query_summary(query: QueryInfo, tracked: dict[int, TrackedObject], newest_ns: int) -> dict[str, Any]:
    """One that waits has the seconds since it looked last, by the stamps of images, and how sure it was; ``None`` before."""
    looked_ns = stamp_to_ns(query.last_look)
    return {
        "id": query.query_id,
        "expression": query.expression,
        "object_name": query.object_name,
        "state": _QUERY_STATES.get(query.state, "unknown"),
        "message": query.message,
        "presence": query.presence,
        "looked_s": round(max(0, newest_ns - looked_ns) / 1e9, 1) if looked_ns and newest_ns else None,
        "objects": [_object_summary(object_id, query.query_id, tracked.get(object_id)) for object_id in query.object_ids],
    }


def _object_summary(object_id: int, query_id: int, tracked: TrackedObject | None) -> dict[str, Any]:
    """An object that was on no image yet has neither state nor score."""
    summary: dict[str, Any] = {"id": object_id, "colour": "#{:02x}{:02x}{:02x}".format(*object_colour(object_id, query_id))}
    if tracked is not None:
        summary |= {
            "label": tracked.label,
            "state": "visible" if tracked.state == TrackedObject.VISIBLE else "lost",
            "score": round(tracked.score, 2),
            "presence": round(tracked.presence, 2),
        }
    return summary


def _status_summary(part: str, status: DiagnosticStatus) -> dict[str, Any]:
    return {
        "part": part,
        "level": _LEVELS.get(status.level, "error"),
        "message": brief(status.message),
        "values": [{"name": brief(pair.key), "text": brief(pair.value)} for pair in status.values[:_MAX_FIGURES]],
    }
