"""Connections that say nothing, too little, too much, or are too many; errors that nobody has foreseen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from decaf_ros.web.connections import Connections, listen

TIMEOUT_S = 60.0
GOOD = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KEPT = GOOD.replace(b"close", b"keep-alive")
WAITING = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
FAILING = b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n"
HEADERS = {"X-Content-Type-Options": "nosniff"}


class Site:
    """A small application behind ``Connections``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.go_on = asyncio.Event()
        self.at_work = 0

    async def open(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        return reader, writer

    async def ask(self, request: bytes) -> bytes:
        """All that comes back until the connection is closed."""
        reader, writer = await self.open(request)
        try:
            return await everything(reader)
        finally:
            writer.close()

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(text="good")

    async def wait(self, _: web.Request) -> web.Response:
        self.at_work += 1
        await self.go_on.wait()
        return web.Response(text="waited")

    async def fail(self, _: web.Request) -> web.Response:
        raise ValueError("a secret\nof two lines")

    async def fail_late(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise ValueError("too late")


async def everything(reader: asyncio.StreamReader) -> bytes:
    received = b""
    try:
        while part := await reader.read(65536):
            received += part
    except ConnectionError:
        pass
    return received


@asynccontextmanager
async def serving(limit: int, idle_s: float) -> AsyncIterator[Site]:
    listening = listen("127.0.0.1", 0)
    site = Site(listening[0].getsockname()[1])
    app = web.Application()
    for path, handler in (("/", site.answer), ("/wait", site.wait), ("/fail", site.fail), ("/late", site.fail_late)):
        app.router.add_get(path, handler)
    async with Connections(HEADERS, limit, idle_s).serving(app, listening, grace_s=0.1):
        yield site


def check(work: Callable[[Site], Coroutine[Any, Any, None]], limit: int = 3, idle_s: float = 1000.0) -> None:
    async def run() -> None:
        async with serving(limit, idle_s) as site:
            await asyncio.wait_for(work(site), TIMEOUT_S)

    asyncio.run(run())


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", KEPT])
def test_who_says_too_little_is_cut_off(said: bytes) -> None:
    async def work(site: Site) -> None:
        assert (await site.ask(said)).endswith(b"good" if said == KEPT else b"")

    check(work, idle_s=0.2)


def test_who_says_it_byte_by_byte_is_cut_off() -> None:
    async def work(site: Site) -> None:
        reader, writer = await site.open(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        received = asyncio.create_task(everything(reader))
        while not received.done():
            writer.write(b"a")
            await asyncio.sleep(0.05)
        assert await received == b""

    check(work, idle_s=0.5)


def test_who_is_being_answered_is_not() -> None:
    async def work(site: Site) -> None:
        reader, writer = await site.open(WAITING)
        await site.ask(KEPT)  # until that one is cut off
        site.go_on.set()
        assert b"waited" in await everything(reader)
        writer.close()

    check(work, idle_s=0.2)


def test_of_too_many_the_one_that_idles_for_longest_goes() -> None:
    async def work(site: Site) -> None:
        first, *others = [await site.open(b"") for _ in range(3)]
        assert b"good" in await site.ask(GOOD)
        assert await everything(first[0]) == b""
        for reader, writer in others:
            writer.write(GOOD)
            assert b"good" in await everything(reader)

    check(work)


def test_more_than_can_be_answered_are_refused_with_the_reason() -> None:
    async def work(site: Site) -> None:
        busy = [await site.open(WAITING) for _ in range(3)]
        while site.at_work < 3:
            await asyncio.sleep(0.01)
        refusal = await site.ask(GOOD)
        assert refusal.startswith(b"HTTP/1.1 503 ")
        assert b"connections" in refusal
        site.go_on.set()
        await busy[0][0].readuntil(b"waited")
        assert b"good" in await site.ask(GOOD)

    check(work)


def test_an_error_is_one_line_here_and_there(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(site: Site) -> None:
        answer = await site.ask(FAILING)
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert answer.endswith(b"\r\n\r\ndecaf_web failed: its output says more\n")
        assert b"nosniff" in answer
        assert b"secret" not in answer
        assert (await site.ask(FAILING.replace(b"/fail", b"/late"))).rstrip(b"\r\n").endswith(b"begun")
        answer = await site.ask(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert answer.count(b"\n", answer.index(b"\r\n\r\n") + 4) == 1

    check(work)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "decaf_web: GET /fail failed: ValueError: a secret of two lines",
        "decaf_web: GET /late failed: ValueError: too late",
    ]


def test_all_addresses_of_a_host_have_one_port_that_nobody_else_gets() -> None:
    listening = listen("localhost", 0)
    try:
        (port,) = {each.getsockname()[1] for each in listening}
        assert len(listening) == len({info[4][0] for info in socket.getaddrinfo("localhost", None)})
        with pytest.raises(OSError, match="in use"):
            listen("localhost", port)
    finally:
        for each in listening:
            each.close()
    with pytest.raises(OverflowError):
        listen("127.0.0.1", 65536)
