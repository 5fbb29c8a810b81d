"""The page's connections: where it listens, how many there may be, how long they may idle, and what is said to no request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from decaf_ros.text import brief, with_kind

MAX_CONNECTIONS = 200
_IDLE_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_LINGERING_SECONDS = 2.0
_BACKLOG = 128
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"decaf_web has %d connections at work, and takes no more: close other tabs\n" % MAX_CONNECTIONS
)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of a host; port 0 takes one that is free.

    Raises:
        OSError: the host has no address here, or the port is taken or forbidden.
        OverflowError: there is no such port.
        UnicodeError: the host is no name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listening.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # The same free port for all.
            listener.bind((address[0], listening[0].getsockname()[1] or port, *address[2:]))
            listener.listen(_BACKLOG)
    except BaseException:
        for listener in listening:
            listener.close()
        raise
    return listening


class Connections:
    """Accepts connections for an application, so many at most. Belongs to one event loop.

    A connection idles while no request of it is being answered: before its first one is complete, and between two. One that
    idles for long is cut off, and of too many the one that has done so for longest: who opens connections and says nothing, or
    little, keeps nobody out. An answer to a request that is let in has all the time that its handler takes.

    Args:
        headers: of answers to what is no request, which the application never sees.
        limit: of connections.
        idle_s: how long one may idle.
    """

    def __init__(self, headers: Mapping[str, str], limit: int = MAX_CONNECTIONS, idle_s: float = _IDLE_SECONDS) -> None:
        self._headers = headers
        self._limit = limit
        self._idle_s = idle_s
        self._idle_since: dict[web.RequestHandler, float] = {}  # longest first
        self._at_work: set[web.RequestHandler] = set()

    @contextlib.asynccontextmanager
    async def serving(self, app: web.Application, listening: Sequence[socket.socket], grace_s: float) -> AsyncIterator[None]:
        """Serve an application on sockets within this block; answers under way have ``grace_s`` seconds at its end."""
        app.middlewares.append(self._note_work)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=grace_s)
        await runner.setup()
        server = runner.server
        assert server is not None
        watching = asyncio.create_task(self._cut_idle_ones())
        accepting = [await loop.create_server(lambda: self._accept(server), sock=each) for each in listening]
        try:
            yield
        finally:
            for each in accepting:
                each.close()
            watching.cancel()
            await runner.cleanup()

    def _accept(self, server: web.Server) -> asyncio.Protocol:
        self._forget_closed_ones()
        if len(self._idle_since) + len(self._at_work) >= self._limit:
            if not self._idle_since:
                return _Refusal()
            self._cut(next(iter(self._idle_since)))
        # A compressed body would be unpacked before anybody asked how large it is.
        connection = _Connection(
            server,
            self._headers,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            lingering_time=_LINGERING_SECONDS,
        )
        self._idle_since[connection] = time.monotonic()
        return connection

    @web.middleware
    async def _note_work(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The innermost: who is not let in does not count as being answered."""
        connection = request.protocol
        self._idle_since.pop(connection, None)
        self._at_work.add(connection)
        try:
            return await handler(request)
        finally:
            self._at_work.discard(connection)
            self._idle_since[connection] = time.monotonic()

    async def _cut_idle_ones(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._forget_closed_ones()
            now = time.monotonic()
            for connection in [each for each, since in self._idle_since.items() if now - since > self._idle_s]:
                self._cut(connection)

    def _cut(self, connection: web.RequestHandler) -> None:
        del self._idle_since[connection]
        if isinstance(connection.transport, asyncio.WriteTransport):
            connection.transport.abort()

    def _forget_closed_ones(self) -> None:
        now = time.monotonic()
        # Without a transport is also what was accepted just now.
        closed = [each for each, since in self._idle_since.items() if each.transport is None and now - since > _LOOK_SECONDS]
        for connection in closed:
            del self._idle_since[connection]


class _Connection(web.RequestHandler):
    """Answers errors in one line, and tells no more than a line of them in the output: whoever connects can cause some."""

    def __init__(self, server: web.Server, headers: Mapping[str, str], **options: Any) -> None:
        super().__init__(server, **options)
        self._error_headers = headers

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Called for what is no HTTP (400), and for errors that no handler has foreseen."""
        if request.transport is None or isinstance(exc, ConnectionError):
            raise ConnectionResetError("whoever asked has gone") from exc
        if isinstance(exc, UnicodeError):  # aiohttp puts some headers into its answers as they are
            status, message = 400, "a header is not UTF-8"
        if status >= 500:
            _say(f"{request.method} {request.path} failed", exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("a part of an answer was sent before it failed")
        text = "decaf_web failed: its output says more\n" if status >= 500 else f"this is no request: {brief(message)}\n"
        response = web.Response(status=status, text=text, headers=self._error_headers)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """What else goes wrong."""
        _say(str(args[0]) if args else "failed", options.get("exc_info"))


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Errors that nobody waits for."""
    _say(context["message"], context.get("exception"))


def _say(what: str, error: object) -> None:
    reason = f": {with_kind(error)}" if isinstance(error, BaseException) else ""
    with contextlib.suppress(OSError):
        print(f"decaf_web: {brief(what + reason)}", file=sys.stderr, flush=True)
