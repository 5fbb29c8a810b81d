"""The page's routes: files, services of the node as POST requests, state and images as websockets."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeAlias

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from decaf_ros.ros.client import DecafClient
from decaf_ros.strict_json import from_json, to_json
from decaf_ros.text import brief
from decaf_ros.web.access import AccessPolicy
from decaf_ros.web.link import NodeLink, NodeUnavailableError
from decaf_ros.web.questions import Questions, TooManyQuestionsError
from decaf_ros.web.topics import ImageFeed

IMAGE_TOPICS = ("overlay", "heatmap")
_MAX_REQUEST_BYTES = 64 * 1024
_BODY_SECONDS = 10.0
_STATE_PERIOD_SECONDS = 0.2
_STATE_SILENCE_SECONDS = 2.0
_HEARTBEAT_SECONDS = 20.0
_MAX_ID = 2**32 - 1
_Fields: TypeAlias = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class PageSettings:
    """How the page treats questions, and what it has to say of itself.

    Attributes:
        answer_s: how long a question may take.
        max_questions: how many may be under way.
        remark: told to whoever opens the page; "" for nothing.
    """

    answer_s: float
    max_questions: int
    remark: str = ""


def make_app(client: DecafClient, policy: AccessPolicy, settings: PageSettings) -> web.Application:
    """The application, to be made and run within an event loop.

    Args:
        client: of the node; closed by the caller after the application.
        policy: who may use it.
        settings: see there.
    """
    app = web.Application(client_max_size=_MAX_REQUEST_BYTES)
    policy.protect(app)
    _Page(client, settings).add_to(app)
    return app


class _Page:
    def __init__(self, client: DecafClient, settings: PageSettings) -> None:
        self._remark = settings.remark
        self._link = NodeLink(client, settings.answer_s)
        self._questions = Questions(self._link.query, settings.max_questions)
        self._feeds = {name: ImageFeed(client, f"~/{name}") for name in IMAGE_TOPICS}
        self._sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    def add_to(self, app: web.Application) -> None:
        """Add the routes, and what runs beside them."""
        folder = resources.files(__package__) / "static"
        for file in folder.iterdir():
            path = "/" if file.name == "index.html" else f"/{file.name}"
            app.router.add_get(path, _file_handler(file.read_bytes(), file.name))
        app.router.add_post("/api/ask", self._ask)
        app.router.add_post("/api/query", self._query)
        app.router.add_post("/api/remove_object", self._remove_object)
        app.router.add_post("/api/remove_query", self._remove_query)
        app.router.add_post("/api/reset", self._reset)
        app.router.add_get("/live/state", self._show_state)
        for name in IMAGE_TOPICS:
            app.router.add_get(f"/live/{name}", self._show_images)
        app.cleanup_ctx.append(self._watch_node)
        app.on_shutdown.append(self._close_sockets)

    # --- services ---

    async def _ask(self, request: web.Request) -> web.Response:
        body = await _read_body(request, _QUESTION, _DOUBTS)
        try:
            question = self._questions.put(**body)
        except TooManyQuestionsError as error:
            return _failure(error, 429)
        return _json({"id": question}, status=202)

    async def _query(self, request: web.Request) -> web.Response:
        body = await _read_body(request, _QUESTION, _DOUBTS)
        return await _answer(self._questions.ask(**body))

    async def _remove_object(self, request: web.Request) -> web.Response:
        body = await _read_body(request, {"object_id": _as_id})
        return await _answer(self._link.remove_object(body["object_id"]))

    async def _remove_query(self, request: web.Request) -> web.Response:
        body = await _read_body(request, {"query_id": _as_id})
        return await _answer(self._link.remove_query(body["query_id"]))

    async def _reset(self, request: web.Request) -> web.Response:
        await _read_body(request, {})
        return await _answer(self._link.reset())

    # --- live views ---

    async def _show_state(self, request: web.Request) -> web.WebSocketResponse:
        """Send the state whenever it changed, and now and then all the same, by which the browser knows that the line is up."""
        socket = await self._open_socket(request)
        with self._link.watched():
            await self._link.catch_up()
            await _exchange(socket, self._send_state(socket), lambda: None)
        return socket

    async def _send_state(self, socket: web.WebSocketResponse) -> None:
        sent, sent_at = "", 0.0
        while True:
            state = to_json(self._link.snapshot() | {"questions": self._questions.summary(), "remark": self._remark})
            if state != sent or time.monotonic() - sent_at > _STATE_SILENCE_SECONDS:
                await socket.send_str(state)
                sent, sent_at = state, time.monotonic()
            await asyncio.sleep(_STATE_PERIOD_SECONDS)

    async def _show_images(self, request: web.Request) -> web.WebSocketResponse:
        """Send the newest image for every message of the browser, which asks again when it has drawn one.

        So nothing queues up on the way, however slow it is.
        """
        feed = self._feeds[request.path.rsplit("/", 1)[-1]]
        asked = asyncio.Event()
        socket = await self._open_socket(request)
        with feed.topic.watched():
            await _exchange(socket, _send_images(socket, feed, asked), asked.set)
        return socket

    async def _open_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_SECONDS, max_msg_size=1024, compress=False)
        try:
            await socket.prepare(request)
        except ValueError as error:  # aiohttp decodes a header that it did not check
            raise web.HTTPBadRequest(text=f"this asks for no websocket: {brief(error)}\n") from error
        self._sockets.add(socket)
        return socket

    async def _close_sockets(self, _: web.Application) -> None:
        for socket in set(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _watch_node(self, _: web.Application) -> AsyncIterator[None]:
        async with _beside(self._link.watch_presence()), _beside(self._link.watch_queries()):
            yield
        await self._questions.close()


async def _send_images(socket: web.WebSocketResponse, feed: ImageFeed, asked: asyncio.Event) -> None:
    # The newest image may have come before this viewer did.
    number = 0
    while True:
        await asked.wait()
        asked.clear()
        try:
            number, jpeg = await feed.next_jpeg(number)
        except Exception as error:  # OpenCV has errors of its own; one image that nobody can draw is no reason to end the view
            number = feed.topic.count
            await socket.send_json({"error": brief(error)}, dumps=to_json)
        else:
            await socket.send_bytes(jpeg)


async def _exchange(socket: web.WebSocketResponse, sending: Coroutine[Any, Any, None], on_message: Callable[[], None]) -> None:
    """Send and receive until the browser goes away. An error of either ends both, so that the browser does not wait in vain."""
    tasks = [asyncio.create_task(sending), asyncio.create_task(_wait_for_messages(socket, on_message))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    with contextlib.suppress(ConnectionError):
        for task in done:
            task.result()


async def _wait_for_messages(socket: web.WebSocketResponse, on_message: Callable[[], None]) -> None:
    """Until the browser goes away."""
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            on_message()


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something for as long as the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _file_handler(content: bytes, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return handle


async def _answer(call: Awaitable[dict[str, Any]]) -> web.Response:
    """What the service says, as it is; 503 when nobody says anything, 429 when it cannot be asked now."""
    try:
        return _json(await call)
    except NodeUnavailableError as error:
        return _failure(error, 503)
    except TooManyQuestionsError as error:
        return _failure(error, 429)


def _failure(error: Exception, status: int) -> web.Response:
    return _json({"success": False, "message": brief(error)}, status)


def _json(content: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(content, status=status, dumps=to_json)


async def _read_body(request: web.Request, fields: _Fields, more: _Fields = MappingProxyType({})) -> dict[str, Any]:
    """The fields of a JSON object, checked; ``more`` may be left out. Other sites' forms cannot send this content type."""
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise web.HTTPUnsupportedMediaType(text="the content type must be application/json, in UTF-8\n")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="the body must not be compressed\n")
    try:
        body = from_json(await asyncio.wait_for(request.read(), _BODY_SECONDS))
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {_BODY_SECONDS:g} s\n") from None
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON: {brief(error)}\n") from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise web.HTTPBadRequest(text="the body is not what its header promises\n") from error
    if not isinstance(body, dict) or not set(fields) <= set(body) <= set(fields) | set(more):
        left_out = f" and, if you like, {', '.join(more)}" if more else ""
        raise web.HTTPBadRequest(text=f"the body must be an object with {', '.join(fields) or 'no fields'}{left_out}\n")
    try:
        return {name: check(body[name]) for name, check in {**fields, **more}.items() if name in body}
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error


def _as_text(value: Any) -> str:
    if not isinstance(value, str) or not _is_unicode(value):
        raise ValueError("expression must be text")
    if "\0" in value:
        raise ValueError("expression must not hold the character NUL, at which messages of ROS end a text")
    return value


def _is_unicode(text: str) -> bool:
    """JSON can spell half of a character."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _as_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("replace and accept_doubtful must be true or false")
    return value


def _as_id(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_ID:
        raise ValueError(f"the id must be a whole number from 0 to {_MAX_ID}")
    return value


_QUESTION: _Fields = {"expression": _as_text, "replace": _as_flag}
_DOUBTS: _Fields = {"accept_doubtful": _as_flag}
