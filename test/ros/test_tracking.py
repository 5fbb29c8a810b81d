"""The whole way with real processes: simulated camera, decaf_node, and a client that asks and listens."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from filmed_table import BOX, EXPRESSION, OTHER_EXPRESSION, SCENE
from harness import NodeProcess, Recorder, System, pixels, stamps_of, wait_until
from rcl_interfaces.srv import DescribeParameters
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image

from decaf_ros.imaging import stamp_to_ns
from decaf_ros.msg import QueryInfo, TrackedObject, TrackedObjectArray
from decaf_ros.srv import Query

OUTPUTS = {"mask": "mono8", "labels": "mono16", "overlay": "rgb8", "heatmap": "rgb8", "attention": "32FC1"}


@dataclass
class Ears:
    """Recorders of everything there is to hear."""

    images: Recorder
    truths: Recorder
    objects: Recorder
    outputs: dict[str, Recorder]


@pytest.fixture(scope="module")
def ears(running: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ears]:
    """A simulated camera that films all the while, heard together with the node."""
    client = running.client
    folder = tmp_path_factory.mktemp("camera")
    (folder / "scene.json").write_text(SCENE.to_json())
    parameters = {"scene_file": folder / "scene.json", "reliability": "reliable"}  # so that no image is missing here
    camera = NodeProcess("sim_camera", folder / "sim_camera.log", parameters)
    try:
        ears = Ears(
            Recorder(client, "image", Image),
            Recorder(client, "ground_truth", Image),
            Recorder(client, "~/objects", TrackedObjectArray),
            {name: Recorder(client, f"~/{name}", Image) for name in OUTPUTS},
        )
        heard = (ears.images, ears.truths, ears.objects)
        wait_until(lambda: all(recorder.messages for recorder in heard), "the camera and the node that follows it", 60.0)
        yield ears
    finally:
        assert camera.stop() == 0, camera.output()


@pytest.fixture(scope="module")
def answer(running: System, ears: Ears) -> Query.Response:
    """The answer to a query about the scene, whose objects are followed from then on."""
    heard = len(ears.objects.messages)
    wait_until(lambda: len(ears.objects.messages) >= heard + 5, "some frames in the window", 60.0)
    answer = running.client.query(OTHER_EXPRESSION)
    assert answer.success, answer.message
    return answer


def test_outputs_carry_the_header_of_the_frame_they_are_from(ears: Ears, answer: Query.Response) -> None:
    for name, encoding in OUTPUTS.items():
        message = ears.outputs[name].next(f"~/{name}", 30.0)
        assert message.encoding == encoding
        assert (message.height, message.width) == (192, 256)
        assert message.header.frame_id == "camera"
    for name, heard in {**ears.outputs, "objects": ears.objects}.items():
        stamps = set(stamps_of(heard.messages[-20:]))
        # The images themselves may come last, when this process is busy.
        wait_until(lambda stamps=stamps: stamps <= set(stamps_of(ears.images.messages)), f"the images of {name}")


def test_mask_labels_and_objects_agree(ears: Ears, answer: Query.Response) -> None:
    stamp_ns = stamp_to_ns(ears.objects.next().header.stamp)
    array, mask, labels = (
        wait_until(lambda heard=heard: _at(heard, stamp_ns), "the same frame on every topic")
        for heard in (ears.objects, ears.outputs["mask"], ears.outputs["labels"])
    )
    assert set(np.unique(pixels(mask))) <= {0, 255}
    assert np.array_equal(pixels(mask) == 255, pixels(labels) > 0)
    for tracked in array.objects:
        own = pixels(labels) == tracked.id
        assert own.sum() == tracked.pixel_count
        if tracked.state == TrackedObject.VISIBLE:
            rows, columns = np.nonzero(own)
            box = tracked.box
            assert (box.x_offset, box.y_offset) == (columns.min(), rows.min())
            assert (box.width, box.height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_answer_of_a_query(ears: Ears, answer: Query.Response) -> None:
    sources = set(stamps_of(ears.images.messages))
    assert stamp_to_ns(answer.stamp) in sources
    assert stamp_to_ns(answer.reference_stamp) in sources
    assert stamp_to_ns(answer.reference_stamp) <= stamp_to_ns(answer.stamp)
    for tracked, mask in zip(answer.objects, answer.masks, strict=True):
        assert tracked.query_id == answer.query_id
        assert np.count_nonzero(pixels(mask)) == tracked.pixel_count
        assert mask.header.stamp == answer.stamp
    latency = answer.latency
    stages = (latency.prefill_ms, latency.rollout_ms, latency.fusion_ms, latency.prompting_ms, latency.catch_up_ms)
    assert all(stage > 0 for stage in stages)
    assert sum(stages) <= latency.total_ms


def test_masks_follow_what_the_expression_says(ears: Ears, answer: Query.Response) -> None:
    start = len(ears.objects.messages)
    wait_until(lambda: len(ears.objects.messages) >= start + 30, "three seconds of masks", 120.0)
    scores = []
    for mask in ears.outputs["mask"].messages[-25:]:
        truth = _at(ears.truths, stamp_to_ns(mask.header.stamp))
        if truth is not None:
            scores.append(_iou(pixels(mask) > 0, pixels(truth) == BOX + 1))
    assert len(scores) >= 10
    assert np.median(scores) >= 0.5


def test_heat_map_is_refreshed_between_queries(ears: Ears, answer: Query.Response) -> None:
    maps = ears.outputs["attention"]
    count = len(maps.messages)
    wait_until(lambda: len(maps.messages) >= count + 3, "three new heat maps", 60.0)
    stamps = stamps_of(maps.messages[count:])
    assert stamps == sorted(set(stamps))
    assert stamps[0] > stamp_to_ns(answer.reference_stamp)
    assert set(stamps) <= set(stamps_of(ears.images.messages))
    for message in maps.messages[count:]:
        values = pixels(message)
        assert 0.0 <= values.min() <= values.max() <= 1.0
        assert values.max() > 0.5, "normalised, but for what interpolation takes off the peak"
    consistency = [tracked.attention_consistency for tracked in ears.objects.next().objects]
    assert all(math.isfinite(value) and value <= 1.0 for value in consistency)


def test_qualities_of_service(running: System, ears: Ears) -> None:
    node = running.client.node
    (subscription,) = [info for info in node.get_subscriptions_info_by_topic("/image") if info.node_name == "decaf_node"]
    assert subscription.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    for name in (*OUTPUTS, "objects"):
        (publisher,) = node.get_publishers_info_by_topic(f"/decaf_node/{name}")
        assert publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_diagnostics(running: System, ears: Ears, answer: Query.Response) -> None:
    wait_until(lambda: running.client.diagnostic_values("tracking").get("objects") == str(len(answer.objects)), "the objects")
    camera, tracking = running.client.diagnostic_values("camera"), running.client.diagnostic_values("tracking")
    queries = running.client.diagnostic_values("queries")
    wait_until(lambda: float(running.client.diagnostic_values("camera")["input_rate_hz"]) > 0.0, "a rate")
    assert int(camera["received"]) >= int(camera["processed"]) > 0
    assert 0.0 < float(tracking["mask_age_p50_ms"]) <= float(tracking["mask_age_p95_ms"])
    assert 100 < float(tracking["memory_rss_mib"]) < 4000
    assert queries["newest_expression"] == OTHER_EXPRESSION


def test_frames_keep_flowing_while_queries_run(running: System, ears: Ears, answer: Query.Response) -> None:
    ids = {tracked.id for tracked in answer.objects}
    start = len(ears.objects.messages)
    # A stall of the machine makes a gap, too, but not in every attempt.
    gaps = itertools.islice((_longest_gap(running, ears) for _ in itertools.count()), 10)
    assert any(gap < 0.5 for gap in gaps), "no frame came for most of each query"
    assert all(ids <= {tracked.id for tracked in message.objects} for message in ears.objects.messages[start:])


def _longest_gap(running: System, ears: Ears) -> float:
    """The longest time without a frame while a query ran, as a part of that query's time."""
    start = time.monotonic()
    answer = running.client.query(EXPRESSION, replace=False)
    end = time.monotonic()
    assert answer.success, answer.message
    assert running.client.remove_query(answer.query_id).success
    arrivals = [arrival for arrival in ears.objects.arrivals_s if start < arrival < end]
    return max(later - earlier for earlier, later in itertools.pairwise([start, *arrivals, end])) / (end - start)


def test_ids_are_stable_and_never_used_twice(running: System, ears: Ears) -> None:
    client = running.client
    ears.objects.next()
    answer = client.query(OTHER_EXPRESSION)
    first = {tracked.id for tracked in answer.objects}
    assert _followed(ears) == first

    added = client.query(EXPRESSION, replace=False)
    assert added.success, added.message
    second = {tracked.id for tracked in added.objects}
    assert not first & second
    assert _followed(ears) == first | second

    removed = min(second)
    assert client.remove_object(removed).success
    assert _followed(ears) == (first | second) - {removed}

    gone = client.remove_query(answer.query_id)
    assert gone.success
    assert set(gone.removed_object_ids) == first
    assert _followed(ears) == second - {removed}

    replacing = client.query(OTHER_EXPRESSION, replace=True)
    assert replacing.success, replacing.message
    third = {tracked.id for tracked in replacing.objects}
    assert _followed(ears) == third
    assert min(third) > max(first | second)
    assert [(query.query_id, query.state) for query in client.list_queries().queries] == [
        (replacing.query_id, QueryInfo.ACTIVE)
    ]

    assert client.reset().success
    assert _followed(ears) == set()
    assert client.list_queries().queries == []
    ears.objects.next()
    again = client.query(OTHER_EXPRESSION)
    assert min(tracked.id for tracked in again.objects) > max(third)
    assert again.query_id > replacing.query_id


def test_parameters_are_described_and_guarded(running: System) -> None:
    client = running.client
    describe = client.node.create_client(DescribeParameters, "/decaf_node/describe_parameters")
    request = DescribeParameters.Request(names=["mllm_model", "window_seconds", "max_queries"])
    model, window, queries = client.wait_for(describe.call_async(request), 10.0).descriptors
    assert all(each.description for each in (model, window, queries))
    assert (model.read_only, window.read_only, queries.read_only) == (False, True, False)
    assert (queries.integer_range[0].from_value, queries.integer_range[0].to_value) == (1, 1000)
    for name, value, cause in (
        ("point_threshold", 1.5, "out of range"),
        ("refresh_hz", 60.00001, "refresh_hz must lie in [0.0, 60.0]"),  # which ROS itself takes for 60
        ("point_threshold", "hot", "type"),
        ("window_seconds", 2.0, "read-only"),
        ("key_frame", 2, "there is no parameter key_frame: did you mean key_frames?"),
        ("tracker_image_size", 500, "step"),
        ("device", "cuda:99", "cuda:99"),
        ("paths", "sideways", "one of both, video, frame"),
    ):
        accepted, reason = client.set_parameter(name, value)
        assert not accepted
        assert cause in reason
    changes = (("paths", "frame", "both"), ("key_frames", 4, 16), ("refresh_hz", 5.0, 1.0), ("memory_gating", True, False))
    for name, other, usual in changes:
        assert client.set_parameter(name, other) == (True, "")
        assert client.set_parameter(name, usual) == (True, "")


def _followed(ears: Ears) -> set[int]:
    """Ids on a frame that came in after the call."""
    ears.objects.next()
    return {tracked.id for tracked in ears.objects.next().objects}


def _at(heard: Recorder, stamp_ns: int) -> object:
    return next((message for message in heard.messages if stamp_to_ns(message.header.stamp) == stamp_ns), None)


def _iou(a_hw: np.ndarray, b_hw: np.ndarray) -> float:
    union = np.count_nonzero(a_hw | b_hw)
    return float(np.count_nonzero(a_hw & b_hw) / union) if union else 1.0
