"""decaf_web over HTTP beside a real decaf_node: access, bad input, and processes that are killed and come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from filmed_table import EXPRESSION
from geometry_msgs.msg import Point
from harness import Camera, NodeProcess, Recorder, System, wait_until
from page_process import TIMEOUT_S, PageProcess
from sensor_msgs.msg import Image

from decaf_ros.config import GroundingConfig
from decaf_ros.ros.client import DecafClient
from decaf_ros.web.main import main

TOKEN = "a-token-of-the-test"


@pytest.fixture(scope="module")
def system(client: DecafClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    process = NodeProcess("node", tmp_path_factory.mktemp("node") / "decaf_node.log")
    system = System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
    try:
        client.wait_until_ready()
        yield system
    finally:
        status = system.process.stop()
    assert status == 0, system.process.output()


@pytest.fixture(scope="module")
def page(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """The page, with the node in view."""
    with PageProcess(tmp_path_factory.mktemp("page") / "decaf_web.log") as page:
        page.state(lambda state: state["node"]["presence"] == "online" and state["diagnostics"], "the node")
        yield page
        assert page.stop() == 0, page.output()
        assert "Traceback" not in page.output(), page.output()


def test_without_a_node_the_page_says_so(tmp_path: Path) -> None:
    with PageProcess(tmp_path / "log", "--node", "nowhere", "--ros-args", "-r", "__ns:=/robot") as page:
        seen: list[dict] = []
        state = page.state(lambda state: seen.append(state) or len(seen) > 1, "a second state")
        assert seen[0] == state, "the same again is a sign of life"
        assert state["node"] == {"name": "/robot/nowhere", "presence": "waiting", "restarts": 0}
        assert state["queries"] == state["diagnostics"] == []
        reply = page.post("query", expression=EXPRESSION, replace=True)
        assert reply.status == 503
        assert "nowhere/query" in reply.json()["message"]
        assert page.request("GET", "/").status == 200
        assert page.stop() == 0


def test_services_and_state(page: PageProcess, system: System) -> None:
    system.client.reset()
    with system.camera.filming():
        system.wait_for_mask("a mask before the query", TIMEOUT_S)
        answer = page.post("query", expression=EXPRESSION, replace=True).json()
        assert answer["success"], answer
        assert sum(stage["ms"] for stage in answer["stages"]) <= answer["total_ms"]
        state = page.state(lambda state: tracked(state), "an object on an image")
    (query,) = state["queries"]
    assert (query["expression"], query["state"]) == (EXPRESSION, "active")
    assert state["answer"] == answer
    assert {status["part"] for status in state["diagnostics"]} >= {"camera", "tracking", "queries"}
    first = query["objects"][0]
    assert 0 <= first["score"] <= 1
    assert first["colour"].startswith("#")

    refused = page.post("remove_object", object_id=9999).json()
    assert refused == {"success": False, "message": system.client.remove_object(9999).message}
    assert page.post("remove_object", object_id=first["id"]).json()["success"]
    page.state(lambda state: first["id"] not in [each["id"] for each in tracked(state)], "the object to go")
    assert page.post("remove_query", query_id=query["id"]).json()["success"]
    assert system.client.list_queries().queries == []
    assert page.post("reset").json()["success"]
    assert page.state(lambda state: not state["queries"], "nothing")["answer"] is None


def test_what_is_not_there_is_shown_and_followed_on_request(page: PageProcess, system: System) -> None:
    system.client.reset()
    assert system.client.set_parameter("min_presence", 1.0) == (True, "")  # that nothing has
    try:
        with system.camera.filming():
            system.wait_for_mask("a mask before the query", TIMEOUT_S)
            refused = page.post("query", expression=EXPRESSION, replace=True).json()
            assert (refused["success"], 0 < refused["presence"] < 1) == (False, True)
            (query,) = page.state(lambda state: state["queries"], "the query that failed")["queries"]
            assert (query["state"], query["objects"]) == ("failed", [])
            assert query["presence"] == refused["presence"]
            assert page.post("query", expression=EXPRESSION, replace=True, accept_doubtful=True).json()["success"]
    finally:
        assert system.client.set_parameter("min_presence", GroundingConfig.min_presence) == (True, "")


def test_the_first_state_is_that_of_now(page: PageProcess, system: System) -> None:
    """Whatever changed while nobody watched, unless the node takes too long to tell."""

    def attempt() -> bool:
        assert not system.client.add_object(on_points=[Point(x=1e6)]).success
        page.state(lambda state: state["queries"], "the query that failed")
        system.client.reset()
        return page.state(lambda state: True, "any state")["queries"] == []

    assert any(attempt() for _ in range(3))


def test_whoever_asks_need_not_wait(page: PageProcess, system: System) -> None:
    """The outcome comes with the state, also when the node hangs for a moment."""
    expressions = ("", "x" * 501)
    system.process.process.send_signal(signal.SIGSTOP)
    try:
        asked = [page.post("ask", expression=expression, replace=True) for expression in expressions]
        assert {reply.status for reply in asked} == {202}
        ids = [reply.json()["id"] for reply in asked]
        assert [outcomes(page.state(outcomes, "the questions"))[each] for each in ids] == [{"done": False}] * 2
    finally:
        system.process.process.send_signal(signal.SIGCONT)
    state = page.state(lambda state: all(each["done"] for each in outcomes(state).values()), "the outcomes")
    for each, expression in zip(ids, expressions, strict=True):
        message = system.client.query(expression).message
        assert outcomes(state)[each] == {"done": True, "success": False, "message": message}


def outcomes(state: dict) -> dict[str, dict]:
    """What became of each question."""
    return {each["id"]: {name: value for name, value in each.items() if name != "id"} for each in state["questions"]}


def test_every_state_of_the_node_is_told_and_none_is_a_restart(page: PageProcess, system: System) -> None:
    seen: list[dict] = []

    def wait(presence: str) -> None:
        page.state(lambda state: seen.append(state) or state["node"]["presence"] == presence, presence)

    wait("online")
    for transition, presence in (("deactivate", "inactive"), ("cleanup", "unconfigured")):
        assert system.client.change_state(transition)
        wait(presence)
    count = len(seen)
    reported = system.client.diagnostics("queries")
    page.state(lambda state: seen.append(state) or system.client.diagnostics("queries") is not reported, "a second report")
    assert {state["node"]["presence"] for state in seen[count:]} == {"unconfigured"}
    assert page.post("query", expression=EXPRESSION, replace=True).status == 503
    for transition in ("configure", "activate"):
        assert system.client.change_state(transition)
    wait("online")
    assert {state["node"]["restarts"] for state in seen} == {0}
    assert all(state["diagnostics"] for state in seen), "a node that is there has diagnostics"
    page.state(lambda state: levels(state).get("queries") == "ok", "its models")


def test_questions_end_in_time_and_have_a_bound(system: System, tmp_path: Path) -> None:
    """Though the node hangs, and says nothing."""
    with PageProcess(tmp_path / "log", "--answer-seconds", "3", "--max-questions", "2") as page:
        page.state(lambda state: state["node"]["presence"] == "online", "the node")
        system.process.process.send_signal(signal.SIGSTOP)
        try:
            asked = [page.post("ask", expression=EXPRESSION, replace=True) for _ in range(5)]
            refused = [reply.json() for reply in asked if reply.status == 429]
            assert len(refused) >= 1
            assert all(not reply["success"] and "--max-questions" in reply["message"] for reply in refused)
            ended = page.state(lambda state: state["questions"] and all(each["done"] for each in state["questions"]), "the end")
            assert {each["message"] for each in ended["questions"]} == {"/decaf_node did not answer within 3 s"}
            late = page.post("query", expression=EXPRESSION, replace=True)
            assert (late.status, late.json()["message"]) == (503, "/decaf_node did not answer within 3 s")
        finally:
            system.process.process.send_signal(signal.SIGCONT)
        assert page.stop() == 0
    wait_until(lambda: system.client.reset().success, "the node to go on", TIMEOUT_S)


def tracked(state: dict) -> list[dict]:
    """Objects that were on an image."""
    return [each for query in state["queries"] for each in query["objects"] if "state" in each]


@pytest.mark.parametrize(
    ("body", "status", "cause"),
    [
        (b"", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"{" * 5000, 400, "not JSON"),
        (b"[]", 400, "expression, replace"),
        (b'{"expression": "x"}', 400, "expression, replace"),
        (b'{"expression": "x", "replace": true, "more": 1}', 400, "expression, replace"),
        (b'{"expression": 1, "replace": true}', 400, "must be text"),
        (b'{"expression": "\\ud800", "replace": true}', 400, "must be text"),
        (b'{"expression": "the mug\\u0000 and more", "replace": true}', 400, "NUL"),
        (b'{"expression": NaN, "replace": true}', 400, "NaN"),
        (b'{"expression": "x", "replace": "yes"}', 400, "true or false"),
        (b'{"expression": "' + b"x" * 100_000 + b'", "replace": true}', 413, ""),
    ],
)
def test_bad_bodies(page: PageProcess, body: bytes, status: int, cause: str) -> None:
    reply = page.request("POST", "/api/query", body, {"Content-Type": "application/json"})
    assert (reply.status, cause in reply.text) == (status, True), reply


def test_a_body_that_does_not_come_is_not_waited_for(page: PageProcess) -> None:
    with socket.create_connection(("127.0.0.1", page.port), TIMEOUT_S) as connection:
        headers = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 2"
        connection.sendall(f"POST /api/reset HTTP/1.1\r\n{headers}\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(65536)


@pytest.mark.parametrize("object_id", [-1, 2**32, 1.5, True, "1", None])
def test_bad_ids(page: PageProcess, object_id: object) -> None:
    reply = page.post("remove_object", object_id=object_id)
    assert reply.status == 400
    assert "whole number" in reply.text


UPGRADE = {"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/api/reset", {"Content-Type": "text/plain"}, 415),
        ("POST", "/api/reset", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/api/reset", {"Content-Type": "application/json; charset=foo"}, 415),
        ("POST", "/api/reset", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ("GET", "/api/reset", {}, 405),
        ("GET", "/", {"Host": "127.0.0.1:abc"}, 403),
        ("GET", "/live/state", {}, 400),
        ("POST", "/api/reset", {"Expect": "\x80"}, 400),
        ("GET", "/live/state", {**UPGRADE, "Sec-WebSocket-Version": "\x80"}, 400),
        ("GET", "/live/state", {**UPGRADE, "Sec-WebSocket-Key": "\x80"}, 400),
        ("GET", "/live/../../../etc/passwd", {}, 404),
        ("GET", "/%2e%2e/access.py", {}, 404),
        ("GET", "/", {"Host": "rebound.example"}, 403),
        ("GET", "/live/state", {"Origin": "https://evil.example", "Connection": "Upgrade", "Upgrade": "websocket"}, 403),
    ],
)
def test_bad_requests(page: PageProcess, method: str, path: str, headers: dict[str, str], status: int) -> None:
    assert page.request(method, path, b"{}" if method == "POST" else None, headers).status == status


@pytest.mark.parametrize("expression", ["", "   ", "x" * 501])
def test_errors_of_the_node_come_as_they_are(page: PageProcess, system: System, expression: str) -> None:
    reply = page.post("query", expression=expression, replace=True)
    direct = system.client.query(expression)
    assert not direct.success
    assert (reply.status, reply.json()["message"]) == (200, direct.message)


def test_a_viewer_gets_an_image_only_when_it_asks(page: PageProcess, system: System) -> None:
    """So nothing piles up for one that is slow, and the others do not notice it."""

    async def check() -> None:
        async with page.socket("overlay") as slow, page.socket("overlay") as quick:
            await slow.send_str("next")
            assert (await slow.receive_bytes(timeout=TIMEOUT_S)).startswith(b"\xff\xd8")
            for _ in range(10):
                await quick.send_str("next")
                await quick.receive_bytes(timeout=TIMEOUT_S)
            with pytest.raises(asyncio.TimeoutError):
                await slow.receive(timeout=0.2)
            await slow.send_str("next")
            assert (await slow.receive_bytes(timeout=TIMEOUT_S)).startswith(b"\xff\xd8")

    with system.camera.filming():
        asyncio.run(check())
    wait_until(lambda: system.client.node.count_subscribers("/decaf_node/overlay") == 0, "the page to unsubscribe", TIMEOUT_S)


def test_a_token_is_demanded_of_other_machines_and_never_logged(tmp_path: Path) -> None:
    with PageProcess(tmp_path / "made", "--host", "0.0.0.0") as page:
        assert page.request("GET", "/").status == 401
        assert page.request("POST", "/api/reset", b"{}", {"Content-Type": "application/json"}).status == 401
        entered = page.request("GET", f"/?token={page.printed_token}")
        assert entered.status == 200
        cookie = entered.headers["Set-Cookie"].partition(";")[0]
        assert page.request("GET", "/", headers={"Cookie": cookie}).status == 200
        assert page.stop() == 0
        assert page.output().count(page.printed_token) == 1
    with PageProcess(tmp_path / "chosen", token=TOKEN) as page:
        assert page.request("GET", "/", headers={"Accept": "*/*"}).status == 401
        assert page.request("GET", f"/?token={TOKEN}").status == 200
        assert page.request("GET", "/nothing").status == 404
        assert page.stop() == 0
        assert TOKEN not in page.output()


def test_what_keeps_it_from_starting_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, cause in (
            (["--port", str(taken.getsockname()[1])], "--port"),
            (["--port", "65536"], "--port"),
            (["--host", "\u00e4" * 100], "--host"),
            (["--token-file", str(tmp_path / "none")], "cannot be read"),
        ):
            command = [sys.executable, "-m", "decaf_ros.web.main", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            assert done.returncode == 1
            assert cause in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--node", value) for value in ("", "/", "bad name!", "a//b", "a/", "9a", "ä", "~", "long" * 50)),
        ("--host", ""),
        *(("--answer-seconds", value) for value in ("", "0", "-1", "nan", "inf", "soon")),
        *(("--max-questions", value) for value in ("", "0", "-1", "1.5", "many", "9" * 5000)),
        *(("--allow-host", value) for value in ("", "robot.lan:8642", "http://robot.lan", "robot.lan/", "two words", "ä.lan")),
    ],
)
def test_options_that_cannot_work_are_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option, value])
    assert ended.value.code == 2
    assert f"error: argument {option}" in capsys.readouterr().err


def test_the_page_survives_a_crash(tmp_path: Path) -> None:
    """As a malformed message causes it: the token that was made up and the port stay, and nobody is refused meanwhile."""
    with PageProcess(tmp_path / "log", "--host", "0.0.0.0") as page:
        page.token = page.printed_token
        assert psutil.Process(page.process.pid).num_threads() == 1, "it forks"
        assert page.state(bool, "a state")["remark"] == ""
        for _ in range(2):
            serving = page.child
            serving.send_signal(signal.SIGSEGV)
            serving.wait(TIMEOUT_S)
            assert page.request("GET", "/").status == 200
            remark = page.state(bool, "a state")["remark"]
            assert remark == "decaf_web was restarted, it crashed: signal 11 (Segmentation fault)"
            assert page.request("GET", "/", headers={"Accept": "*/*"}).status == 401
        assert page.output().count("it crashed: signal 11") == 2
        serving = page.child
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(TIMEOUT_S) == 0
        assert not serving.is_running()


def test_ros_that_cannot_start_is_said_in_a_line(tmp_path: Path) -> None:
    for extra, environment in (([], {"ROS_LOG_DIR": "/proc/none"}), (["--ros-args", "-r", "no remapping"], {})):
        done = subprocess.run(
            [sys.executable, "-m", "decaf_ros.web.main", "--port", "0", *extra],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 1
        assert "decaf_web: ROS cannot start" in done.stderr
        assert "Traceback" not in done.stderr


def test_kill_and_restart_of_the_page_in_mid_query(system: System, tmp_path: Path) -> None:
    """Twice: the node goes on, and the next page finds it as it is."""
    with system.camera.filming():
        for _ in range(2):
            with PageProcess(tmp_path / "log") as page:
                page.state(lambda state: state["node"]["presence"] == "online", "the node")
                asking = threading.Thread(target=post_in_vain, args=(page,))
                asking.start()
                page.state(lambda state: state["queries"], "the query to begin")
                page.kill()
                asking.join()
            system.wait_for_mask("a mask after the page was killed", TIMEOUT_S)
        assert system.process.is_alive()
        assert system.client.query(EXPRESSION, timeout_s=TIMEOUT_S).success
        with PageProcess(tmp_path / "log") as page:
            state = page.state(lambda state: tracked(state), "what is tracked")
            assert [query["expression"] for query in state["queries"]] == [EXPRESSION]
    assert "Traceback" not in system.process.output()


def post_in_vain(page: PageProcess) -> None:
    with contextlib.suppress(ConnectionError):  # unless the answer was quicker
        page.post("query", expression=EXPRESSION, replace=True)


def test_kill_and_restart_of_the_node_in_mid_query(system: System, page: PageProcess, tmp_path: Path) -> None:
    """Whoever asked is told, and the page shows the new node without the old one's queries."""
    with system.camera.filming():
        assert page.post("query", expression=EXPRESSION, replace=True).json()["success"]
    replies = []
    system.process.process.send_signal(signal.SIGSTOP)  # so that it cannot answer before it is killed
    asking = threading.Thread(target=lambda: replies.append(page.post("query", expression=EXPRESSION, replace=False)))
    asking.start()
    page.state(lambda state: state["node"]["presence"] != "online", "the node to be missed")
    system.process.process.kill()
    system.process.process.wait()
    system.process = NodeProcess("node", tmp_path / "decaf_node.log")
    page.state(lambda state: state["node"] == {**state["node"], "presence": "online", "restarts": 1}, "the new node")
    assert page.state(lambda state: state["diagnostics"], "its diagnostics")["queries"] == []
    asking.join(TIMEOUT_S)
    (reply,) = replies
    assert reply.status == 503
    assert not reply.json()["success"]
    page.state(lambda state: levels(state).get("queries") == "ok", "its models")
    with system.camera.filming():
        system.wait_for_mask("a mask of the new node", TIMEOUT_S)
        assert page.post("query", expression=EXPRESSION, replace=True).json()["success"]


def levels(state: dict) -> dict[str, str]:
    """What diagnostics think of each part."""
    return {status["part"]: status["level"] for status in state["diagnostics"]}
