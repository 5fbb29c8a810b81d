"""decaf_web as a process of its own, and HTTP as anything but a browser might speak it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from harness import wait_until

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class PageProcess:
    """Runs decaf_web and talks to it; its output goes to a file. ``port`` 0 takes a free one."""

    def __init__(self, log: Path, *arguments: str, port: int = 0, token: str = "") -> None:
        self.log = log
        environment = {name: value for name, value in os.environ.items() if name != "DECAF_WEB_TOKEN"}
        command = [sys.executable, "-m", "decaf_ros.web.main", "--port", str(port), *arguments]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment | ({"DECAF_WEB_TOKEN": token} if token else {}),
            )
        self.token = token
        greeting = wait_until(self._greeting, "the page's address", TIMEOUT_S)
        self.port = int(greeting["port"])
        self.printed_token = greeting["token"]

    def __enter__(self) -> PageProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def child(self) -> psutil.Process:
        """The process that serves, which the other one starts again when it crashes."""
        found = wait_until(psutil.Process(self.process.pid).children, "a process that serves", TIMEOUT_S)
        return found[0]

    def _greeting(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.output()
        return re.search(r"open http://.*:(?P<port>\d+)/(\?token=(?P<token>\S+))?\n", self.output())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Interrupt the process as Ctrl-C does; its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """End it as the kernel does when memory is short; what serves ends with it."""
        served = psutil.Process(self.process.pid).children() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(served, TIMEOUT_S)
        assert not alive

    def request(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> Reply:
        """One request with these headers; the token is added unless some are given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, dict(headers or self._own_headers()))
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def post(self, service: str, **fields: Any) -> Reply:
        """Call a service of the node, as the page does."""
        headers = {"Content-Type": "application/json", **self._own_headers()}
        return self.request("POST", f"/api/{service}", json.dumps(fields).encode(), headers)

    def state(self, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """The first state that the page is told for which a condition holds."""

        async def look() -> dict[str, Any]:
            seen = []
            async with self.socket("state") as socket:
                async for message in socket:
                    seen.append(message.json())
                    if condition(seen[-1]):
                        return seen[-1]
            raise AssertionError(f"the socket was closed before {what}; last was {seen[-1:]}")

        async def look_in_time() -> dict[str, Any]:
            return await asyncio.wait_for(look(), TIMEOUT_S)

        return asyncio.run(look_in_time())

    def socket(self, name: str) -> LiveSocket:
        """A connection to one of the live views."""
        return LiveSocket(f"ws://127.0.0.1:{self.port}/live/{name}", self._own_headers())

    def _own_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


class LiveSocket:
    """A websocket as an asynchronous context manager."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        self._session = aiohttp.ClientSession()
        return await self._session.ws_connect(self._url, headers=self._headers)

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
