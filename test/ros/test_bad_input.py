"""Whatever comes in, the node names the cause, lives on, and answers a good query afterwards."""

from __future__ import annotations

import time
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from harness import EXPRESSION, SCENE, Camera, NodeProcess, Recorder, System, stamps_of, wait_until
from sensor_msgs.msg import Image

from decaf_ros.msg import QueryInfo, TrackedObjectArray
from decaf_ros.ros.client import DecafClient
from decaf_ros.srv import Query

SECOND_NS = 1_000_000_000


def test_query_before_any_frame(system: System) -> None:
    answer = system.client.query(EXPRESSION)
    assert not answer.success
    assert "no camera frame" in answer.message
    assert "/image" in answer.message
    system.require_good_answer()


@pytest.mark.parametrize(
    ("expression", "cause"),
    [("", "empty"), (" \t\n", "empty"), ("x" * 10_000, "10000 characters"), ("the red\x07 ball", r"'\x07'")],
    ids=["empty", "blank", "10,000 characters", "non-printing"],
)
def test_expression_that_is_none(system: System, expression: str, cause: str) -> None:
    answer = system.ask(expression)
    assert not answer.success
    assert cause in answer.message
    assert answer.query_id == 0
    system.require_good_answer()


@pytest.mark.parametrize("window_seconds", [-1.0, 1e6, float("nan")])
def test_window_that_is_none(system: System, window_seconds: float) -> None:
    answer = system.ask(window_seconds=window_seconds)
    assert not answer.success
    assert "window_seconds" in answer.message


def _unknown_encoding(image: Image) -> None:
    image.encoding = "yuv422_yuy2"


def _short_data(image: Image) -> None:
    image.data = array("B", image.data[:-1])


def _no_pixels(image: Image) -> None:
    image.height = 0


def _short_step(image: Image) -> None:
    image.step = image.width


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (_unknown_encoding, "yuv422_yuy2"),
        (_short_data, "bytes of data"),
        (_no_pixels, "no pixels"),
        (_short_step, "step"),
    ],
)
def test_image_that_cannot_be_decoded(system: System, spoil, cause: str) -> None:  # type: ignore[no-untyped-def]
    before = system.count("rejected")

    def spoilt() -> Image:
        image = system.camera.image()
        spoil(image)
        return image

    system.camera.publish_until(spoilt, lambda: system.count("rejected") > before, "the frame to be counted as rejected")
    assert cause in system.client.diagnostic_values("camera")["last_rejection"]
    system.require_good_answer()


def test_resolution_changes_while_an_object_is_tracked(system: System) -> None:
    object_id = system.require_good_answer().objects[0].id
    objects = Recorder(system.client, "~/objects", TrackedObjectArray)
    before = system.count("discontinuities")
    with system.camera.filming(scene=replace(SCENE, size_hw=(144, 192), _ground=[])):
        wait_until(lambda: system.masks.messages[-1].height == 144, "masks of the new size")
        wait_until(lambda: objects.messages, "objects")
        wait_until(lambda: system.count("discontinuities") > before, "the change to be counted")
    assert [tracked.id for tracked in objects.messages[-1].objects] == [object_id]
    system.require_good_answer()


def test_resolution_changes_while_a_query_runs(system: System) -> None:
    with system.camera.filming():
        system.masks.next()
        future = system.client.call_async("query", Query.Request(expression=EXPRESSION, replace=True))
        wait_until(lambda: _states(system) == [QueryInfo.RUNNING], "the query to run")
    with system.camera.filming(scene=replace(SCENE, size_hw=(144, 192), _ground=[])):
        answer = system.client.wait_for(future, 60.0)
    assert not answer.success
    assert "image size changed" in answer.message
    system.require_good_answer()


def test_stamps_jump_back_as_when_a_bag_loops(system: System) -> None:
    object_id = system.require_good_answer().objects[0].id
    objects = Recorder(system.client, "~/objects", TrackedObjectArray)
    loop_start_ns = system.camera.now_ns() - 3600 * SECOND_NS
    offset_ns = system.camera.now_ns() - loop_start_ns

    def again() -> Image:
        return system.camera.image(system.camera.now_ns() - offset_ns)

    recent = loop_start_ns + 60 * SECOND_NS
    system.camera.publish_until(
        again, lambda: objects.messages and stamps_of(objects.messages)[-1] < recent, "masks under the old stamps"
    )
    assert [tracked.id for tracked in objects.messages[-1].objects] == [object_id]
    system.require_good_answer()


def test_stamps_stand_still_or_come_late(system: System) -> None:
    with system.camera.filming():
        mask = system.masks.next()
    newest_ns = max(system.camera.stamps())
    repeated, late = system.count("dropped_repeated"), system.count("dropped_late")
    system.camera.publish_until(
        lambda: system.camera.image(newest_ns), lambda: system.count("dropped_repeated") > repeated, "repeated frames"
    )
    system.camera.publish_until(
        lambda: system.camera.image(newest_ns - SECOND_NS // 2), lambda: system.count("dropped_late") > late, "late frames"
    )
    assert newest_ns - SECOND_NS // 2 not in stamps_of(system.masks.messages), "a late frame must not be published"
    assert mask.header.frame_id == "test_camera"
    system.require_good_answer()


def test_camera_that_stops(system: System) -> None:
    with system.camera.filming():
        system.masks.next()
    wait_until(lambda: system.client.diagnostics("camera").level == DiagnosticStatus.WARN, "a warning")
    message = system.client.diagnostics("camera").message
    assert "no image for" in message
    assert "/image" in message
    assert "best effort" in message
    with system.camera.filming():
        wait_until(lambda: system.client.diagnostics("camera").level == DiagnosticStatus.OK, "the all-clear")
    system.require_good_answer()


@pytest.mark.parametrize("parameter", ["mllm_model", "tracker_model"])
def test_model_that_does_not_exist_is_refused(system: System, parameter: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    accepted, reason = system.client.set_parameter(parameter, missing)
    assert not accepted
    assert missing in reason
    system.require_good_answer()


def test_weights_file_that_does_not_exist_is_refused(system: System, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    accepted, reason = system.client.set_parameter("tracker_model", str(tmp_path))
    assert not accepted
    assert "model.safetensors" in reason
    system.require_good_answer()


def test_ids_that_do_not_exist(system: System) -> None:
    answer = system.require_good_answer()
    no_object = system.client.remove_object(9999)
    assert not no_object.success
    assert "9999" in no_object.message
    assert str(answer.objects[0].id) in no_object.message
    no_query = system.client.remove_query(9999)
    assert not no_query.success
    assert "9999" in no_query.message
    assert str(answer.query_id) in no_query.message
    system.require_good_answer()


def test_service_calls_while_a_query_runs(system: System) -> None:
    with system.camera.filming():
        system.masks.next()
        running = system.client.call_async("query", Query.Request(expression=EXPRESSION, replace=True))
        wait_until(lambda: _states(system) == [QueryInfo.RUNNING], "the query to run")
        waiting = system.client.call_async("query", Query.Request(expression="the yellow box", replace=False))
        wait_until(lambda: _states(system) == [QueryInfo.RUNNING, QueryInfo.QUEUED], "the second query to queue")
        cancelled = system.client.call_async("query", Query.Request(expression="the box", replace=False))
        wait_until(lambda: len(_states(system)) == 3, "the third query to queue")
        assert system.client.remove_query(system.client.list_queries().queries[-1].query_id).success
        assert not system.client.remove_object(9999).success
        accepted, _ = system.client.set_parameter("point_threshold", 0.8)
        assert accepted
        assert not running.done(), "none of these calls waited for the query"
        first, second, third = (system.client.wait_for(future, 120.0) for future in (running, waiting, cancelled))
    assert first.success, first.message
    assert second.success, second.message
    assert second.query_id == first.query_id + 1
    assert not third.success
    assert "cancelled" in third.message
    assert sorted(_states(system)) == [QueryInfo.ACTIVE, QueryInfo.ACTIVE, QueryInfo.FAILED]
    system.require_good_answer()


def test_reset_while_a_query_runs(system: System) -> None:
    with system.camera.filming():
        system.masks.next()
        future = system.client.call_async("query", Query.Request(expression=EXPRESSION, replace=True))
        wait_until(lambda: _states(system) == [QueryInfo.RUNNING], "the query to run")
        assert system.client.reset().success
        answer = system.client.wait_for(future, 60.0)
    assert not answer.success
    assert "reset" in answer.message
    system.require_good_answer()


def test_client_that_goes_away_while_its_query_runs(system: System) -> None:
    with system.camera.filming():
        system.masks.next()
        with DecafClient(name="short_lived") as short_lived:
            short_lived.call_async("query", Query.Request(expression=EXPRESSION, replace=True))
            wait_until(lambda: _states(system) == [QueryInfo.RUNNING], "the query to run")
        wait_until(lambda: _states(system) == [QueryInfo.ACTIVE], "the query to be answered", 60.0)
        time.sleep(0.5)
    system.require_good_answer()


def test_node_starts_without_models_and_is_repaired(ros: None, tmp_path: Path) -> None:
    given = {"mllm_model": tmp_path / "no_mllm", "tracker_model": tmp_path / "no_tracker", "key_frame": 3}
    process = NodeProcess("node", tmp_path / "node.log", given, name="broken_node")
    try:
        with DecafClient("/broken_node", name="repairing_client") as client:
            wait_until(lambda: client.diagnostics("queries"), "diagnostics", 60.0)
            wait_until(lambda: "no_tracker" in client.diagnostics("queries").message, "the cause in diagnostics", 60.0)
            assert client.diagnostics("queries").level == DiagnosticStatus.ERROR
            answer = client.query(EXPRESSION)
            assert not answer.success
            assert "no_mllm" in answer.message
            for parameter in ("mllm_model", "tracker_model"):
                accepted, reason = client.set_parameter(parameter, "embedded")
                assert accepted, reason
            client.wait_until_ready()
            repaired = System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
            repaired.require_good_answer()
            with repaired.camera.filming():
                future = client.call_async("query", Query.Request(expression=EXPRESSION, replace=True))
                wait_until(lambda: QueryInfo.RUNNING in _states(repaired), "the query to run")
                process.stop()
                assert "shut down" in client.wait_for(future, 10.0).message
    finally:
        assert process.stop() == 0, process.output()
    assert "no_mllm" in process.output()
    assert "did you mean key_frames" in process.output()


def test_parameter_out_of_range_at_the_start(tmp_path: Path) -> None:
    process = NodeProcess("node", tmp_path / "node.log", {"key_frames": 9999})
    assert process.process.wait(timeout=60) == 1
    assert "key_frames" in process.output()
    assert "9999" in process.output()
    assert "Traceback" not in process.output()


def _states(system: System) -> list[int]:
    return [query.state for query in system.client.list_queries().queries]
