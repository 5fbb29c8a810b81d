"""What is published, and that nothing is computed for a topic that nobody listens to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
from harness import Recorder, pixels, wait_until
from rclpy.action.server import RCLError
from rclpy.exceptions import InvalidTopicNameException
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image

from decaf_ros.datatypes import EventKind, Frame, HeatMap, ObjectMask, Segmentation, TrackEvent, Visibility
from decaf_ros.drawing import colour_heat
from decaf_ros.imaging import frame_from_compressed
from decaf_ros.msg import TrackEvent as TrackEventMessage
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.painter import Painter
from decaf_ros.ros.publishers import QueryHeatMaps, ResultPublisher, attention_hw

FRAME = Frame(stamp_ns=1_500_000_000, frame_id="camera", image_rgb=np.full((4, 6, 3), 90, dtype=np.uint8))


@pytest.fixture
def painter() -> Iterator[Painter]:
    painter = Painter()
    painter.start()
    yield painter
    painter.close()


def _object(object_id: int, columns: slice) -> ObjectMask:
    mask = np.zeros((4, 6), dtype=np.bool_)
    mask[:, columns] = True
    return ObjectMask(object_id, 1, "box", mask, 0.9, 0.8, Visibility.VISIBLE)


class _Unread:
    """Stands for a frame's result; using it in any way is an error."""

    def __getattr__(self, name: str) -> object:
        if name == "frame":
            return FRAME
        raise AssertionError(f"{name} was computed although nobody listens")


def test_only_topics_with_a_subscriber_are_computed(client: DecafClient, painter: Painter) -> None:
    results = ResultPublisher(client.node, painter)
    results.publish_segmentation(_Unread(), {})  # type: ignore[arg-type]
    results.publish_heat_map(_Unread())  # type: ignore[arg-type]

    masks = Recorder(client, f"{client.node.get_fully_qualified_name()}/mask", Image)
    wait_until(lambda: client.node.count_subscribers(f"{client.node.get_fully_qualified_name()}/mask"), "the subscription")
    with pytest.raises(AssertionError, match="union_hw was computed"):
        wait_until(lambda: results.publish_segmentation(_Unread(), {}), "the mask to be asked for", 5.0)  # type: ignore[arg-type]

    segmentation = Segmentation(FRAME, (_object(3, slice(0, 2)), _object(5, slice(1, 4))))
    results.publish_segmentation(segmentation, {})
    mask = wait_until(lambda: masks.messages and masks.messages[-1], "the mask")
    assert mask.encoding == "mono8"
    assert np.array_equal(pixels(mask)[0], [255, 255, 255, 255, 0, 0])
    assert (mask.header.stamp.sec, mask.header.stamp.nanosec, mask.header.frame_id) == (1, 500_000_000, "camera")


def test_compressed_topics_carry_what_the_raw_ones_do(client: DecafClient, painter: Painter) -> None:
    results = ResultPublisher(client.node, painter, jpeg_quality=95)
    name = client.node.get_fully_qualified_name()
    kinds = {"mask": Image, "mask/compressed": CompressedImage, "labels/compressed": CompressedImage}
    kinds |= {"overlay/compressed": CompressedImage, "heatmap/compressed": CompressedImage}
    heard = {topic: Recorder(client, f"{name}/{topic}", kind) for topic, kind in kinds.items()}
    segmentation = Segmentation(FRAME, (_object(3, slice(0, 2)), _object(500, slice(3, 4))))
    heat = HeatMap(FRAME, 1, np.zeros((2, 2), dtype=np.float32))

    def publish() -> bool:
        results.publish_segmentation(segmentation, {})
        results.publish_heat_map(heat)
        return all(each.messages for each in heard.values())

    wait_until(publish, "a message on every topic")
    messages = {topic: each.messages[-1] for topic, each in heard.items()}
    assert all(message.header == messages["mask"].header for message in messages.values())
    assert np.array_equal(_file(messages["mask/compressed"]), pixels(messages["mask"]))
    assert _file(messages["labels/compressed"])[0].tolist() == [3, 3, 0, 500, 0, 0]
    overlay, heatmap = (frame_from_compressed(messages[f"{topic}/compressed"]).image_rgb for topic in ("overlay", "heatmap"))
    assert overlay.shape == heatmap.shape == FRAME.image_rgb.shape
    assert np.abs(heatmap.astype(int) - colour_heat(heat)).max() < 12


def _file(message: CompressedImage) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_masks_do_not_wait_for_pictures_and_pictures_of_frames_passed_by_are_counted(
    client: DecafClient, painter: Painter
) -> None:
    results = ResultPublisher(client.node, painter)
    name = client.node.get_fully_qualified_name()
    masks, overlays = (Recorder(client, f"{name}/{topic}", Image) for topic in ("mask", "overlay"))
    wait_until(lambda: all(client.node.count_subscribers(f"{name}/{topic}") for topic in ("mask", "overlay")), "subscriptions")
    busy, go_on = threading.Event(), threading.Event()
    painter.submit(lambda: (busy.set(), go_on.wait(30.0)))
    assert busy.wait(5.0)
    for stamp in (1, 2, 3):
        results.publish_segmentation(Segmentation(replace(FRAME, stamp_ns=stamp), ()), {})
    wait_until(lambda: len(masks.messages) == 3, "the masks")
    assert not overlays.messages
    go_on.set()
    overlay = wait_until(lambda: overlays.messages and overlays.messages[-1], "the newest picture")
    assert overlay.header.stamp.nanosec == 3
    assert len(overlays.messages) == 1
    assert painter.skipped == 2


def test_a_picture_that_fails_costs_only_itself(painter: Painter) -> None:
    begun, painted = threading.Event(), threading.Event()
    painter.submit(lambda: (begun.set(), 1 / 0))
    assert begun.wait(5.0)
    painter.submit(painted.set)
    assert painted.wait(5.0)


def test_a_painter_that_is_closed_paints_nothing_until_it_is_started_again(painter: Painter) -> None:
    begun, go_on, painted = threading.Event(), threading.Event(), threading.Event()
    painter.submit(lambda: (begun.set(), go_on.wait(30.0)))
    assert begun.wait(5.0)
    painter.submit(painted.set)
    threading.Timer(0.2, go_on.set).start()
    painter.close()
    assert go_on.is_set(), "the picture at hand is finished"
    painter.submit(painted.set)
    painter.start()
    assert not painted.wait(0.3)
    painter.submit(painted.set)
    assert painted.wait(5.0)


def test_events_carry_what_happened_and_on_which_frame(client: DecafClient, painter: Painter) -> None:
    results = ResultPublisher(client.node, painter)
    topic = f"{client.node.get_fully_qualified_name()}/events"
    heard = Recorder(client, topic, TrackEventMessage)
    events = [TrackEvent(kind, 3, 2, "box", 1_500_000_000 + number, "camera") for number, kind in enumerate(EventKind)]
    wait_until(lambda: client.node.count_subscribers(topic), "the subscription")

    def publish() -> bool:
        results.publish_events(events)
        return len(heard.messages) >= len(events)

    wait_until(publish, "events")
    received = {message.header.stamp.nanosec - 500_000_000: message for message in heard.messages}
    for number, event in enumerate(events):
        assert received[number].kind == getattr(TrackEventMessage, event.kind.name)
    message = received[0]
    assert (message.object_id, message.query_id, message.label, message.header.frame_id) == (3, 2, "box", "camera")


def test_topics_of_a_query_come_and_go_with_it(client: DecafClient) -> None:
    active: list[int] = []
    heat_maps = QueryHeatMaps(client.node, lambda: active)
    name = client.node.get_fully_qualified_name()

    def offered() -> set[str]:
        topics = dict(client.node.get_publisher_names_and_types_by_node(client.node.get_name(), "/"))
        return {topic.removeprefix(f"{name}/") for topic in topics if "/query_" in topic}

    heat_maps.publish(HeatMap(FRAME, 1, np.zeros((2, 2), dtype=np.float32)), 90)  # of a query that has just gone: no error
    for active[:], expected in (([1], {1}), ([1, 12], {1, 12}), ([12], {12}), ([], set())):
        heat_maps.update()
        topics = ("attention", "heatmap", "heatmap/compressed")
        assert offered() == {f"query_{query_id}/{topic}" for query_id in expected for topic in topics}


def test_of_a_querys_topics_there_are_all_or_none(client: DecafClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(client.node.publishers)
    create = client.node.create_publisher
    monkeypatch.setattr(
        client.node, "create_publisher", lambda kind, name, qos: create(kind, name.replace("heatmap", "/"), qos)
    )
    with pytest.raises(InvalidTopicNameException):
        QueryHeatMaps(client.node, lambda: [1]).update()
    assert list(client.node.publishers) == before


def test_message_that_the_middleware_refuses_costs_only_itself(
    client: DecafClient, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ResultPublisher(client.node, painter)
    name = client.node.get_fully_qualified_name()
    labels = Recorder(client, f"{name}/labels", Image)
    Recorder(client, f"{name}/mask", Image)
    publish = Publisher.publish

    def fail_for_masks(publisher: Publisher, message: object) -> None:
        if publisher.topic_name.endswith("/mask"):
            raise RCLError("cannot publish data")
        publish(publisher, message)

    monkeypatch.setattr(Publisher, "publish", fail_for_masks)
    wait_until(lambda: client.node.count_subscribers(f"{name}/mask"), "the subscription")
    wait_until(lambda: results.publish_segmentation(Segmentation(FRAME, ()), {}) or labels.messages, "the other topics")


def test_attention_is_bilinear_between_the_centres_of_its_cells() -> None:
    frame = Frame(stamp_ns=1, frame_id="camera", image_rgb=np.zeros((1, 4, 3), dtype=np.uint8))
    # Cell centres lie at 1/4 and 3/4 of the width, pixel centres at 1/8, 3/8, 5/8 and 7/8.
    heat = HeatMap(frame, 1, np.array([[0.0, 1.0]], dtype=np.float32))
    assert attention_hw(heat).tolist() == [[0.0, 0.25, 0.75, 1.0]]
