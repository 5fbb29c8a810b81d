"""States of decaf_node: what each of them offers, what it costs, and the ways out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from filmed_table import EXPRESSION
from harness import Camera, NodeProcess, Recorder, System, stamps_of, wait_until
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from decaf_ros.ros.client import DecafClient

MANAGED = {"autostart": False}


@pytest.fixture
def managed(ros: None, tmp_path: Path) -> Iterator[System]:
    """A node that nobody has configured yet."""
    process = NodeProcess("node", tmp_path / "node.log", MANAGED, name="managed_node")
    try:
        with DecafClient("/managed_node", name="manager") as client:
            wait_until(lambda: client.diagnostics("queries"), "the node to start", 60.0)
            yield System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
    finally:
        assert process.stop() == 0, process.output()


def _go(system: System, *transitions: str) -> None:
    for transition in transitions:
        assert system.client.change_state(transition), f"{transition}:\n{system.process.output()}"


def _hears_camera(system: System) -> bool:
    return bool(system.client.node.count_subscribers("/image"))


def _offers_queries(system: System) -> bool:
    offered = system.client.node.get_service_names_and_types_by_node("managed_node", "/")
    return "/managed_node/query" in dict(offered)


def _says(system: System, text: str, level: bytes) -> bool:
    status = system.client.diagnostics("queries")
    return status is not None and text in status.message and status.level == level


def test_each_state_offers_what_it_should(managed: System) -> None:
    client = managed.client
    assert client.state() == "unconfigured"
    wait_until(
        lambda: _says(managed, "unconfigured: configure and activate", DiagnosticStatus.WARN), "the state in diagnostics"
    )
    assert not _offers_queries(managed)

    _go(managed, "configure")
    wait_until(lambda: _says(managed, "inactive: activate", DiagnosticStatus.WARN), "the state in diagnostics")
    for refused in (client.query(EXPRESSION), client.remove_object(1), client.remove_query(1), client.reset()):
        assert not refused.success
        assert "inactive: activate it" in refused.message
    assert client.list_queries().queries == []
    assert not _hears_camera(managed)

    _go(managed, "activate")
    client.wait_until_ready()
    first = managed.require_good_answer()

    _go(managed, "deactivate")
    wait_until(lambda: not _hears_camera(managed), "the camera to be left alone")
    assert "inactive" in client.query(EXPRESSION).message
    assert client.list_queries().queries == []
    unheard = {managed.camera.publish(managed.camera.image()) for _ in range(3)}

    _go(managed, "activate")
    client.wait_until_ready()
    second = managed.require_good_answer()
    assert not unheard & set(stamps_of(managed.masks.messages)), "nothing is published while inactive"
    assert min(each.id for each in second.objects) > max(each.id for each in first.objects)
    assert second.query_id > first.query_id

    _go(managed, "deactivate", "cleanup")
    wait_until(lambda: not _offers_queries(managed), "the services to go")
    assert not client.change_state("activate"), "there is no such way"
    assert client.state() == "unconfigured"


@pytest.fixture
def one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads of a process share one heap: with one for each, its fragments would hide what leaks."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")


@pytest.mark.usefixtures("one_arena")
def test_cycles_leak_neither_threads_nor_memory(managed: System) -> None:
    process = psutil.Process(managed.process.process.pid)
    threads, memory = [], []
    for _ in range(5):
        _go(managed, "configure", "activate")
        managed.require_good_answer()
        _go(managed, "deactivate", "cleanup")
        threads.append(process.num_threads())
        memory.append(process.memory_info().rss / 2**20)
    # The executor starts up to 3 more when they are needed; a thread that is left behind by each cycle makes 4.
    assert threads[-1] - threads[0] <= 3, threads
    # One set of embedded models takes 20 MiB: left behind by each cycle, that makes 60 here.
    assert memory[-1] - memory[1] < 40, memory


def test_model_that_cannot_be_had_makes_activation_fail(managed: System, tmp_path: Path) -> None:
    client, missing = managed.client, str(tmp_path / "nowhere")
    _go(managed, "configure")
    accepted, reason = client.set_parameter("tracker_model", missing)
    assert accepted, f"nothing is loaded while inactive: {reason}"
    assert not client.change_state("activate")
    assert client.state() == "inactive"
    wait_until(lambda: _says(managed, missing, DiagnosticStatus.ERROR), "the reason in diagnostics")
    assert missing in client.query(EXPRESSION).message
    assert missing in managed.process.output()

    assert client.set_parameter("tracker_model", "embedded")[0]
    _go(managed, "activate")
    client.wait_until_ready()
    managed.require_good_answer()


def test_device_that_is_not_there(ros: None, tmp_path: Path) -> None:
    process = NodeProcess("node", tmp_path / "node.log", {"device": "cuda:99"}, name="managed_node")
    try:
        with DecafClient("/managed_node", name="repairing_client") as client:
            node = System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
            wait_until(lambda: _says(node, "cuda:99", DiagnosticStatus.ERROR), "the reason in diagnostics", 60.0)
            assert client.state() == "unconfigured"
            assert client.set_parameter("device", "cpu")[0]
            _go(node, "configure", "activate")
            client.wait_until_ready()
    finally:
        assert process.stop() == 0, process.output()


@pytest.fixture
def silent_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub that takes the call and never answers: the longest load there is."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "3600")
    with socket.create_server(("127.0.0.1", 0)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        hub.settimeout(60.0)
        yield hub


MODEL_OF_THE_HUB = "facebook/sam2.1-hiera-tiny"


def _device(client: DecafClient) -> str:
    """A parameter of the node, as it is now."""
    parameters = client.node.create_client(GetParameters, "/managed_node/get_parameters")
    values = client.wait_for(parameters.call_async(GetParameters.Request(names=["device"])), 30.0).values
    return values[0].string_value


def test_loading_blocks_nothing_and_can_be_interrupted(ros: None, tmp_path: Path, silent_hub: socket.socket) -> None:
    process = NodeProcess("node", tmp_path / "node.log", {"tracker_model": MODEL_OF_THE_HUB}, name="managed_node")
    try:
        with DecafClient("/managed_node", name="impatient_client") as client:
            silent_hub.accept()
            assert client.state() == "activating"
            assert "still being loaded" in client.query(EXPRESSION).message
            assert client.list_queries().queries == []
            assert _device(client) == "auto"
            assert client.set_parameter("point_threshold", 0.7)[0]
            assert not client.change_state("shutdown"), "one transition at a time"
            wait_until(lambda: client.diagnostic_values("queries").get("state") == "activating", "the state in diagnostics")
            assert "still being loaded" in client.diagnostics("queries").message
    finally:
        assert process.stop() == 0, process.output()


def test_a_new_model_that_is_being_loaded_holds_up_nothing(ros: None, tmp_path: Path, silent_hub: socket.socket) -> None:
    def is_loading() -> bool:
        return client.diagnostic_values("queries")["stage"] == "loading tracker_model"

    process = NodeProcess("node", tmp_path / "node.log", name="managed_node")
    try:
        with DecafClient("/managed_node", name="impatient_client") as client:
            client.wait_until_ready()
            changes = client.node.create_client(SetParameters, "/managed_node/set_parameters")
            request = SetParameters.Request(parameters=[Parameter("tracker_model", value=MODEL_OF_THE_HUB).to_parameter_msg()])
            assert changes.wait_for_service(30.0)
            change = changes.call_async(request)
            silent_hub.accept()
            assert _device(client) == "auto"
            assert not change.done()
            assert client.state() == "active"
            wait_until(is_loading, "the stage", 60.0)
            assert client.change_state("deactivate")
            (result,) = client.wait_for(change, 60.0).results
            assert not result.successful
            assert "the node is being deactivated" in result.reason
            assert client.change_state("activate")
            client.wait_until_ready()
            changes.call_async(request)
            wait_until(is_loading, "the stage", 60.0)
    finally:
        assert process.stop() == 0, process.output()


@pytest.mark.parametrize("way", [(), ("configure",), ("shutdown",), ("configure", "activate", "shutdown")])
def test_interrupt_ends_any_state_well(managed: System, way: tuple[str, ...]) -> None:
    _go(managed, *way)
    state = {"configure": "inactive", "shutdown": "finalized"}.get(way[-1], "") if way else "unconfigured"
    assert managed.client.state() == state
    assert managed.process.stop() == 0
    assert "Traceback" not in managed.process.output()
    assert "failed" not in managed.process.output()
