"""Many requests at once, from many processes: every one is answered, whoever else asks, cancels or has gone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from filmed_table import EXPRESSION
from harness import System, wait_until
from rclpy.action import ActionClient, CancelResponse
from rclpy.action.server import GoalEvent, ServerGoalHandle

from decaf_ros.action import TrackByLanguage
from decaf_ros.ros.action import _Server
from decaf_ros.ros.client import DecafClient

PROCESSES = 5
REQUESTS = 100
# As many requests as it is told, at once; then a line for each answer.
CLIENT = f"""
import sys
import rclpy
from rcl_interfaces.srv import GetParameters
from decaf_ros.ros import client as clients
from decaf_ros.srv import ListQueries, Query, RemoveQuery

REQUESTS = {{
    "query": (Query, Query.Request(expression={EXPRESSION!r}, replace=True)),
    "list_queries": (ListQueries, ListQueries.Request()),
    "remove_query": (RemoveQuery, RemoveQuery.Request(query_id=4000000000)),
    "get_parameters": (GetParameters, GetParameters.Request(names=["device"])),
}}
service, count, stays = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "stays"
kind, request = REQUESTS[service]
rclpy.init()
node = rclpy.create_node("one_of_many")
client = node.create_client(kind, f"/decaf_node/{{service}}", qos_profile=clients.SERVICE_QOS)
assert client.wait_for_service(110.0)
print("there", flush=True)
sys.stdin.readline()

answers = [client.call_async(request) for _ in range(count)]
if stays:
    while answers:
        rclpy.spin_once(node, timeout_sec=0.1)
        for answer in [each for each in answers if each.done()]:
            answers.remove(answer)
            print(repr(getattr(answer.result(), "message", "")), flush=True)
node.destroy_node()
"""


class _Clients:
    """Processes that ask at the same moment; what they were answered goes to files."""

    def __init__(self, folder: Path, service: str, processes: int, count: int, stay: bool) -> None:
        self._files = [folder / f"{service}_{index}.txt" for index in range(processes)]
        command = [sys.executable, "-c", CLIENT, service, str(count), "stays" if stay else "goes"]
        self._processes = []
        for each in self._files:
            with each.open("wb") as output:
                self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output))
        wait_until(lambda: all("there" in each.read_text() for each in self._files), "the clients to find the service", 120.0)

    def ask(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.close()

    def answers(self) -> list[str]:
        return [line for each in self._files for line in each.read_text().splitlines()[1:]]

    def have_gone(self) -> bool:
        return all(process.poll() is not None for process in self._processes)

    def end(self) -> None:
        """Who has all answers goes by itself; what a killed process leaves in shared memory is another matter."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
            process.wait(timeout=30)


@contextmanager
def _clients(folder: Path, service: str, processes: int, count: int, stay: bool = True) -> Iterator[_Clients]:
    clients = _Clients(folder, service, processes, count, stay)
    try:
        yield clients
    finally:
        clients.end()


@pytest.mark.parametrize("service", ["list_queries", "remove_query", "get_parameters"])
def test_all_requests_of_a_burst_are_answered_while_images_are_followed(system: System, service: str, tmp_path: Path) -> None:
    with system.camera.filming(), _clients(tmp_path, service, PROCESSES, REQUESTS) as clients:
        system.wait_for_mask()
        clients.ask()
        system.wait_for_mask("a mask during the burst")
        wait_until(lambda: len(clients.answers()) == PROCESSES * REQUESTS, "all answers", 120.0)
        status = system.client.diagnostics("camera", max_age_s=5.0)
        assert status is not None, "diagnostics go on"


def test_a_burst_of_queries_is_refused_at_once_but_for_those_that_may_wait(system: System, tmp_path: Path) -> None:
    with system.camera.filming(), _clients(tmp_path, "query", PROCESSES, REQUESTS) as clients:
        system.wait_for_mask()
        clients.ask()
        admitted = 8 + 1  # max_pending_queries, and the one that runs
        wait_until(lambda: len(clients.answers()) >= PROCESSES * REQUESTS - admitted, "all refusals", 120.0)
        system.client.reset()
        wait_until(lambda: len(clients.answers()) == PROCESSES * REQUESTS, "the other answers", 120.0)
    kinds = Counter("max_pending_queries" in each for each in clients.answers())
    assert kinds[False] >= 1, "some waited"
    assert kinds[True] >= PROCESSES * REQUESTS / 2, Counter(clients.answers())
    system.require_good_answer()


def test_who_asks_and_goes_holds_up_nobody(system: System, tmp_path: Path) -> None:
    with system.camera.filming(), _clients(tmp_path, "list_queries", 1, 200, stay=False) as clients:
        system.wait_for_mask()
        clients.ask()
        wait_until(clients.have_gone, "the client to go")
        system.client.list_queries()  # within 10 s; one answer after the other into the void would take 20 s
        system.client.reset()
        system.wait_for_mask("a mask beside answers into the void")


def test_memory_does_not_grow_from_burst_to_burst(system: System, tmp_path: Path) -> None:
    def burst_and_memory(index: int) -> float:
        folder = tmp_path / str(index)
        folder.mkdir()
        with _clients(folder, "list_queries", 1, 500) as clients:
            clients.ask()
            wait_until(lambda: len(clients.answers()) == 500, "all answers", 120.0)
        return max(_memory_mib(system) for _ in range(2))

    memory = [burst_and_memory(index) for index in range(10)]
    assert memory[-1] - memory[2] < 32.0, memory  # 3500 requests: a few kilobytes kept of each would show


def _memory_mib(system: System) -> float:
    """As told from now on."""
    known = system.client.diagnostics("tracking")
    wait_until(lambda: system.client.diagnostics("tracking") is not known, "diagnostics")
    return float(system.client.diagnostic_values("tracking")["memory_rss_mib"])


def test_goals_at_once_come_to_an_end_each_and_are_cancelled_all_at_once(system: System) -> None:
    client, count = system.client, 40
    with system.camera.filming(), ThreadPoolExecutor(count) as pool:
        system.wait_for_mask()
        goals = list(pool.map(lambda _: client.track(EXPRESSION, timeout_s=120.0), range(count)))
        cancel = client.node.create_client(CancelGoal, "/decaf_node/track_by_language/_action/cancel_goal")
        assert cancel.wait_for_service(60.0)
        answer = client.wait_for(cancel.call_async(CancelGoal.Request()), 60.0)
        ended = [goal.wait(120.0) for goal in goals]
    assert len(answer.goals_canceling) <= 9, "one that runs and those that may wait"
    statuses = Counter(status for status, _ in ended)
    assert statuses[GoalStatus.STATUS_CANCELED] == len(answer.goals_canceling)
    refused = [result.message for status, result in ended if status == GoalStatus.STATUS_ABORTED]
    assert len(refused) >= count // 2
    assert all("max_pending_queries" in message for message in refused)


def test_a_goal_that_ends_while_all_are_cancelled_leaves_none_out(client: DecafClient) -> None:
    node, handles = client.node, list[ServerGoalHandle]()
    asked = []

    def cancel(handle: ServerGoalHandle) -> CancelResponse:
        asked.append(bytes(handle.goal_id.uuid))
        if len(asked) in (1, 2):
            handle.succeed()  # at this very moment
        return CancelResponse.ACCEPT

    def accept(handle: ServerGoalHandle) -> None:
        handle._update_state(GoalEvent.EXECUTE)
        handles.append(handle)

    server = client.wait_for(
        client.run(
            lambda: _Server(
                node,
                TrackByLanguage,
                "all_cancelled",
                lambda _: TrackByLanguage.Result(),
                handle_accepted_callback=accept,
                cancel_callback=cancel,
            )
        ),
        30.0,
    )
    asking = ActionClient(node, TrackByLanguage, "all_cancelled")
    try:
        assert asking.wait_for_server(60.0)
        for _ in range(5):
            client.run(lambda: asking.send_goal_async(TrackByLanguage.Goal()))
        wait_until(lambda: len(handles) == 5, "the goals to be accepted")
        service = node.create_client(CancelGoal, "all_cancelled/_action/cancel_goal")
        assert service.wait_for_service(60.0)
        answer = client.wait_for(service.call_async(CancelGoal.Request()), 30.0)
        assert len(asked) == 5
        assert len(answer.goals_canceling) == 3
    finally:
        client.wait_for(client.run(server.destroy), 30.0)
        client.wait_for(client.run(asking.destroy), 30.0)
