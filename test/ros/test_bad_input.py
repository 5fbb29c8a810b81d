"""Whatever comes in, the node names the cause, lives on, and answers a good query afterwards."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from filmed_table import EXPRESSION, OTHER_EXPRESSION, SCENE, FilmedTable
from geometry_msgs.msg import Point
from harness import Camera, NodeProcess, Recorder, System, stamps_of, wait_until
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, RegionOfInterest
from tiny_qwen2_vl import tiny_qwen2, tiny_qwen2_processor

from decaf_ros.msg import QueryInfo, TrackedObjectArray
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.parameters import SETTINGS
from decaf_ros.srv import Query

SECOND_NS = 1_000_000_000
BOX = RegionOfInterest(width=10, height=10)
SMALL = FilmedTable(SCENE, (144, 192))


def test_query_before_any_frame(system: System) -> None:
    answer = system.refused_before_any_frame(lambda: system.client.query(EXPRESSION))
    assert "no camera frame" in answer.message
    assert "/image" in answer.message
    system.require_good_answer()


def test_questions_that_are_none(system: System) -> None:
    questions: list[tuple[dict[str, Any], str]] = [
        ({"expression": ""}, "empty"),
        ({"expression": " \t\n"}, "empty"),
        ({"expression": "x" * 10_000}, "10000 characters"),
        ({"expression": "the red\x07 ball"}, r"'\x07'"),
        *(({"expression": EXPRESSION, "window_seconds": bad}, "window_seconds") for bad in (-1.0, 1e6, float("nan"))),
    ]
    with system.camera.filming():
        system.wait_for_mask()
        for question, cause in questions:
            answer = system.client.query(**question)
            assert not answer.success, question
            assert cause in answer.message
            assert answer.query_id == 0
    system.require_good_answer()


@pytest.mark.parametrize(
    ("prompt", "cause"),
    [
        ({"on_points": [Point()] * 100_000}, "the request has 100000 points, at most 64 are allowed (limit max_points)"),
        ({"on_points": [Point(x=5.0, y=5.0)] * 40, "off_points": [Point()] * 25}, "has 65 points, at most 64"),
        ({"label": "x" * 1_000_000, "box": BOX}, "the label has 1000000 characters, at most 500"),
        ({"mask": Image(width=1 << 20, height=1 << 20, encoding="mono8")}, "1099511627776 pixels, at most 12582912"),
        ({"mask": Image(width=4, height=4, step=4, encoding="\x1b" * 100_000)}, "must be mono8, got '\\x1b"),
        ({"box": BOX, "stamp": Time(sec=-1)}, "stamp of the request is negative"),
        ({"box": BOX, "stamp": Time(nanosec=1 << 31)}, "2147483648 nanoseconds, at most 999999999"),
        ({"on_points": [Point(x=float("inf"))]}, "outside the image"),
    ],
)  # fmt: skip
def test_requests_without_measure_are_refused_at_once(running: System, prompt: dict[str, Any], cause: str) -> None:
    known = {query.query_id for query in _listed(running)}
    answer = running.client.add_object(**prompt)
    assert not answer.success
    assert cause in answer.message
    assert len(answer.message) < 1000
    assert answer.query_id == 0
    assert {query.query_id for query in _listed(running)} == known


def test_parameters_without_measure_are_refused(running: System) -> None:
    client = running.client
    for name, value, cause in (
        ("mllm_model", "x" * 1_000_000, "mllm_model has 1000000 characters, at most 1024 are allowed (limit max_text_length)"),
        ("tracker_model", "a\x1b[2Jb", r"must be one line that can be printed, got 'a\x1b[2Jb'"),
        ("paths", "both\n", "must be one line"),
        ("camera_timeout_seconds", float("nan"), "camera_timeout_seconds out of range"),
        ("x" * 100_000, 1, "there is no parameter xxx"),
    ):
        accepted, reason = client.set_parameter(name, value)
        assert not accepted
        assert cause in reason
        assert len(reason) < 1000


def test_services_for_parameters_take_no_more_names_than_there_could_be(running: System) -> None:
    client = running.client

    def answer(kind: type, name: str, **request: Any) -> Any:
        service = client.node.create_client(kind, f"{client.target}/{name}")
        assert service.wait_for_service(30.0)
        return client.wait_for(service.call_async(kind.Request(**request)), 60.0)

    names = [setting.name for setting in SETTINGS]
    assert len(answer(GetParameters, "get_parameters", names=names).values) == len(names)
    many = [Parameter("jpeg_quality", value=90).to_parameter_msg()] * 10_000
    refusal = "the request has 10000 parameters, at most 256 are allowed (limit max_parameters)"
    (result,) = answer(SetParameters, "set_parameters", parameters=many).results
    assert (result.successful, result.reason) == (False, refusal)
    result = answer(SetParametersAtomically, "set_parameters_atomically", parameters=many).result
    assert (result.successful, result.reason) == (False, refusal)
    assert answer(GetParameters, "get_parameters", names=["device"] * 10_000).values == []
    assert answer(GetParameterTypes, "get_parameter_types", names=["device"] * 10_000).types == array("B")
    assert answer(DescribeParameters, "describe_parameters", names=["device"] * 10_000).descriptors == []
    assert answer(ListParameters, "list_parameters", prefixes=["device"] * 10_000).result.names == []


def test_a_parameter_of_no_type_is_refused_and_ends_no_node(running: System) -> None:
    client = running.client
    nothing = Parameter("seeds", value=[1]).to_parameter_msg()
    nothing.value.type = 200
    filming = NodeProcess("sim_camera", running.process.log.with_name("filming.log"), name="filming")
    try:
        for node in (client.target, client.target, "/filming", "/filming"):
            service = client.node.create_client(SetParameters, f"{node}/set_parameters")
            assert service.wait_for_service(60.0)
            (result,) = client.wait_for(service.call_async(SetParameters.Request(parameters=[nothing])), 60.0).results
            assert (result.successful, result.reason) == (False, "parameter seeds has a value of type 200, which is none")
    finally:
        filming.stop()


def _unknown_encoding(image: Image) -> None:
    image.encoding = "yuv422_yuy2"


def _short_data(image: Image) -> None:
    image.data = array("B", image.data[:-1])


def _no_pixels(image: Image) -> None:
    image.height = 0


def _short_step(image: Image) -> None:
    image.step = image.width


def test_images_that_cannot_be_decoded(system: System) -> None:
    for spoil, cause in (
        (_unknown_encoding, "yuv422_yuy2"),
        (_short_data, "bytes of data"),
        (_no_pixels, "no pixels"),
        (_short_step, "step is"),
    ):

        def spoilt(spoil: Callable[[Image], None] = spoil) -> Image:
            image = system.camera.image()
            spoil(image)
            return image

        def told(cause: str = cause) -> bool:
            return cause in system.client.diagnostic_values("camera").get("last_rejection", "")

        system.camera.publish_until(spoilt, told, f"the reason in diagnostics: {cause}")
    wait_until(lambda: system.count("rejected") >= 4, "the frames to be counted")
    system.camera.publish_until(spoilt, lambda: _is_blind(system, cause), "a warning that none can be followed")
    answer = system.refused_before_any_frame(lambda: system.client.query(EXPRESSION))
    assert "no camera frame" in answer.message
    assert cause in answer.message, "rather than where the images should come from"
    system.require_good_answer()


def test_resolution_changes_while_an_object_is_tracked(system: System) -> None:
    object_id = system.require_good_answer().objects[0].id
    objects = Recorder(system.client, "~/objects", TrackedObjectArray)
    before = system.count("discontinuities")
    with system.camera.filming(table=SMALL):
        wait_until(lambda: system.masks.messages[-1].height == 144, "masks of the new size")
        wait_until(lambda: objects.messages, "objects")
        wait_until(lambda: system.count("discontinuities") > before, "the change to be counted")
    assert [tracked.id for tracked in objects.messages[-1].objects] == [object_id]
    system.require_good_answer()


def test_resolution_changes_while_a_query_runs(system: System) -> None:
    def change() -> None:
        before = system.count("discontinuities")
        with system.camera.filming(table=SMALL):
            wait_until(lambda: system.count("discontinuities") > before, "the change to be counted")

    assert "image size changed" in system.query_that_fails(change).message
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
        mask = system.wait_for_mask()
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


def test_driver_that_sets_no_stamp(system: System) -> None:
    system.camera.publish_until(
        lambda: system.camera.image(0), lambda: _is_blind(system, "does the driver set header.stamp?"), "a warning"
    )
    with system.camera.filming():
        wait_until(lambda: system.client.diagnostics("camera").level == DiagnosticStatus.OK, "the all-clear")


def _is_blind(system: System, cause: str) -> bool:
    status = system.client.diagnostics("camera")
    return (
        status.level == DiagnosticStatus.WARN and "no image could be followed for" in status.message and cause in status.message
    )


def test_camera_that_stops(system: System) -> None:
    with system.camera.filming():
        system.wait_for_mask()
    wait_until(lambda: system.client.diagnostics("camera").level == DiagnosticStatus.WARN, "a warning")
    message = system.client.diagnostics("camera").message
    assert "no image for" in message
    assert "/image" in message
    assert "best effort" in message
    with system.camera.filming():
        wait_until(lambda: system.client.diagnostics("camera").level == DiagnosticStatus.OK, "the all-clear")
    system.require_good_answer()


def test_models_that_do_not_exist_are_refused(system: System, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    missing = str(tmp_path / "nowhere")
    for parameter, path, cause in (
        ("mllm_model", missing, missing),
        ("tracker_model", missing, missing),
        ("tracker_model", str(tmp_path), "model.safetensors"),  # the weights are not there
    ):
        accepted, reason = system.client.set_parameter(parameter, path)
        assert not accepted
        assert cause in reason
    system.require_good_answer()


def test_a_model_that_was_not_taught_boxes_and_a_grounder_that_asks_for_them_refuse_each_other(
    system: System, tmp_path: Path
) -> None:
    processor, client = tiny_qwen2_processor(), system.client
    tiny_qwen2(processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    reason = "models of the family qwen2_vl were not taught to answer with boxes"
    try:
        assert client.set_parameter("grounder", "both") == (True, "")
        accepted, why = client.set_parameter("mllm_model", str(tmp_path))
        assert (accepted, reason in why) == (False, True), why
        assert client.set_parameter("grounder", "decaf") == (True, "")
        assert client.set_parameter("mllm_model", str(tmp_path)) == (True, "")
        accepted, why = client.set_parameter("grounder", "box")
        assert (accepted, reason in why) == (False, True), why
        refused = system.ask(grounder="box")
        assert (refused.success, reason in refused.message) == (False, True), refused.message
    finally:
        assert client.set_parameter("grounder", "decaf") == (True, "")
        assert client.set_parameter("mllm_model", "embedded") == (True, "")
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


def test_service_calls_while_queries_run(system: System) -> None:
    """Three queries, so that the last one has surely not ended when the calls are answered, unless they wait for it."""
    with system.camera.filming():
        system.wait_for_mask()
        running = [
            system.client.call_async("query", Query.Request(expression=expression, replace=False))
            for expression in (EXPRESSION, OTHER_EXPRESSION, EXPRESSION)
        ]
        wait_until(lambda: len(_states(system)) == 3, "the queries to queue")
        cancelled = system.client.call_async("query", Query.Request(expression="the box", replace=False))
        queued = wait_until(lambda: [each for each in _listed(system) if each.expression == "the box"], "one more to queue")
        assert system.client.remove_query(queued[0].query_id).success
        assert not system.client.remove_object(9999).success
        accepted, _ = system.client.set_parameter("point_threshold", 0.8)
        assert accepted
        assert not all(each.done() for each in running), "none of these calls waited for the queries"
        *answers, given_up = (system.client.wait_for(future, 120.0) for future in (*running, cancelled))
    assert all(each.success for each in answers), [each.message for each in answers]
    assert not given_up.success
    assert "cancelled" in given_up.message
    assert _states(system) == [QueryInfo.ACTIVE] * 3, "what was removed is forgotten"
    system.require_good_answer()


def test_reset_while_a_query_runs(system: System) -> None:
    def reset() -> None:
        assert system.client.reset().success

    assert "reset" in system.query_that_fails(reset).message
    system.require_good_answer()


def test_client_that_goes_away_while_its_query_runs(system: System) -> None:
    with system.camera.filming():
        system.wait_for_mask()
        with DecafClient(name="short_lived") as short_lived:
            request = Query.Request(expression=EXPRESSION, replace=True)
            system.seen_running(lambda: short_lived.call_async("query", request))
        wait_until(lambda: _states(system) == [QueryInfo.ACTIVE], "the query to be answered", 120.0)
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
                requests = [Query.Request(expression=EXPRESSION, replace=False) for _ in range(3)]  # not answered in no time
                futures = [client.call_async("query", request) for request in requests]
                wait_until(lambda: len(_states(repaired)) >= 3, "the queries to be known", 60.0)
                process.stop()
                messages = [client.wait_for(future, 10.0).message for future in futures]
                assert any("shut down" in message for message in messages)
    finally:
        assert process.stop() == 0, process.output()
    assert "no_mllm" in process.output()
    assert "did you mean key_frames" in process.output()


@pytest.mark.parametrize(("name", "value"), [("key_frames", 9999), ("refresh_hz", 60.00001)])
def test_parameter_out_of_range_at_the_start(tmp_path: Path, name: str, value: float) -> None:
    process = NodeProcess("node", tmp_path / "node.log", {name: value})
    assert process.process.wait(timeout=60) == 1
    assert name in process.output()
    assert str(value) in process.output()
    assert "Traceback" not in process.output()


def test_name_that_ros_does_not_take(tmp_path: Path) -> None:
    process = NodeProcess("node", tmp_path / "node.log", name="x" * 300)
    assert process.process.wait(timeout=60) == 1
    assert "check its names and remappings" in process.output()
    assert "Traceback" not in process.output()


def _states(system: System) -> list[int]:
    return [query.state for query in _listed(system)]


def _listed(system: System) -> list[QueryInfo]:
    return list(system.client.list_queries().queries)
