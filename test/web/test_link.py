"""What the page makes of a node that comes, goes, hangs and is restarted, as DDS tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from decaf_ros.web import link as link_module
from decaf_ros.web.link import NodeLink, NodeUnavailableError

TIMEOUT_S = 20.0


class StubClient:
    """As DecafClient, with publishers as a test wants them."""

    target = "/robot/decaf_node"

    def __init__(self) -> None:
        self.node = self
        self.publishers: list[SimpleNamespace] = []
        self.receive: Callable[[DiagnosticArray], None] = lambda message: None

    def get_publishers_info_by_topic(self, topic: str) -> list[SimpleNamespace]:
        assert topic == "/diagnostics"
        return self.publishers

    def subscribe(self, topic: str, kind: type, callback: Callable[[Any], None], depth: int) -> None:
        self.receive = callback

    def call_async(self, service: str, request: Any, timeout_s: float) -> Any:
        return PendingFuture()

    def report(self, state: str) -> None:
        """Diagnostics of the node."""
        status = DiagnosticStatus(name=f"{self.target}: queries", values=[KeyValue(key="state", value=state)])
        self.receive(DiagnosticArray(status=[status]))


class PendingFuture:
    """One whose answer never comes."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...

    def cancel(self) -> None: ...


def publisher(process: bytes, name: str = "decaf_node") -> SimpleNamespace:
    return SimpleNamespace(node_name=name, node_namespace="/robot", endpoint_gid=list(process))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_PERIOD_SECONDS", 0.01)


def watch(check: Callable[[StubClient, NodeLink], Coroutine[Any, Any, None]], answer_s: float = 2 * TIMEOUT_S) -> None:
    async def run() -> None:
        client = StubClient()
        link = NodeLink(client, answer_s)  # type: ignore[arg-type]
        watching = asyncio.create_task(link.watch_presence())
        try:
            await check(client, link)
        finally:
            watching.cancel()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


async def begun(query: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A query that waits for its answer."""
    task = asyncio.create_task(query)
    await asyncio.sleep(0)
    return task


async def told(link: NodeLink, presence: str, restarts: int = 0) -> None:
    """Wait until the page says so."""
    while link.snapshot()["node"] != {"name": "/robot/decaf_node", "presence": presence, "restarts": restarts}:
        await asyncio.sleep(0.01)


def test_presence_follows_the_diagnostics() -> None:
    async def check(client: StubClient, link: NodeLink) -> None:
        client.publishers = [publisher(b"o", name="another_node")]
        await told(link, "waiting")
        client.publishers.append(publisher(b"a"))
        for state in ("unconfigured", "inactive", "activating"):
            client.report(state)
            await told(link, state)
        client.report("active")
        await told(link, "online")

    watch(check)


def test_a_node_that_hangs_is_silent_then_gone_then_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_SILENCE_SECONDS", 1.0)

    async def check(client: StubClient, link: NodeLink) -> None:
        client.publishers = [publisher(b"a")]
        client.report("active")
        await told(link, "online")
        asked = await begun(link.query("the mug", True))
        await told(link, "silent")
        assert not asked.done(), "it may wake up and answer"
        client.publishers = []  # after the lease
        await told(link, "gone")
        with pytest.raises(NodeUnavailableError, match="went away, or hangs"):
            await asked
        client.publishers = [publisher(b"a")]
        await told(link, "silent")
        client.report("active")
        await told(link, "online", restarts=0)

    watch(check)


def test_a_question_without_an_answer_ends() -> None:
    async def check(client: StubClient, link: NodeLink) -> None:
        with pytest.raises(NodeUnavailableError, match=r"decaf_node did not answer within 0\.05 s"):
            await link.query("the mug", True)

    watch(check, answer_s=0.05)


def test_diagnostics_of_parts_that_the_node_does_not_have_are_not_kept() -> None:
    """Anybody may send them, without end."""

    async def check(client: StubClient, link: NodeLink) -> None:
        client.publishers = [publisher(b"a")]
        await told(link, "waiting")
        values = [KeyValue(key="state", value="active"), *[KeyValue(key="x", value="x" * 1000)] * 500]
        for part in (*map(str, range(50)), "queries"):
            client.receive(DiagnosticArray(status=[DiagnosticStatus(name=f"{client.target}: {part}", values=values)]))
        await told(link, "online")
        (status,) = link.snapshot()["diagnostics"]
        assert (status["part"], len(status["values"])) == ("queries", 100)
        assert max(len(value["text"]) for value in status["values"]) < 600

    watch(check)


@pytest.mark.parametrize("seen_to_go", [True, False])
def test_another_process_of_that_name_is_a_restart(seen_to_go: bool) -> None:
    async def check(client: StubClient, link: NodeLink) -> None:
        client.publishers = [publisher(b"a")]
        client.report("active")
        await told(link, "online")
        asked = await begun(link.query("the mug", True))
        if seen_to_go:
            client.publishers = []
            await told(link, "gone")
        client.publishers = [*client.publishers, publisher(b"b")]  # the old one's lease may not be over
        await told(link, "waiting", restarts=1)
        assert link.snapshot()["diagnostics"] == []
        with pytest.raises(NodeUnavailableError, match="went away" if seen_to_go else "was restarted"):
            await asked
        client.report("activating")
        await told(link, "activating", restarts=1)

    watch(check)
