"""What the node tells the world about every frame. Nothing is computed for a topic that nobody listens to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache, partial
from typing import Any

import cv2
import numpy as np
from rclpy.action.server import RCLError
from rclpy.exceptions import InvalidHandle
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from decaf_ros.datatypes import EventKind, Float32Array, HeatMap, Segmentation, TrackEvent
from decaf_ros.drawing import colour_heat, draw_overlay
from decaf_ros.msg import TrackedObjectArray
from decaf_ros.msg import TrackEvent as TrackEventMessage
from decaf_ros.ros.conversions import (
    frame_header,
    image_from_array,
    jpeg_from_rgb,
    make_header,
    mask_pixels,
    png_from_array,
    tracked_objects,
)
from decaf_ros.ros.painter import Painter
from decaf_ros.text import brief

# RViz subscribes reliable by default, and gets nothing from a publisher that offers less. "Keep last" lets a new message take
# the place of one that a slow subscriber has not acknowledged; "keep all" would wait for it.
OUTPUT_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
# One frame may bring an event for every object.
EVENTS_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)

_WARNING_PERIOD_SECONDS = 5.0
_logger = get_logger("decaf_ros")

_EVENT_KINDS = {
    EventKind.FOUND: TrackEventMessage.FOUND,
    EventKind.LOST: TrackEventMessage.LOST,
    EventKind.SEEN_AGAIN: TrackEventMessage.SEEN_AGAIN,
    EventKind.REACQUIRED: TrackEventMessage.REACQUIRED,
    EventKind.REMOVED: TrackEventMessage.REMOVED,
}


def publish_asynchronously() -> None:
    """Have Fast DDS send on a thread of its own; to be called before ``rclpy.init``. Other middlewares take no notice.

    By default ``publish`` itself sends to every subscriber, and a process that is suspended while it subscribes holds it up,
    for a second at worst. A value of ``RMW_FASTRTPS_PUBLICATION_MODE`` that is set already stays.
    """
    os.environ.setdefault("RMW_FASTRTPS_PUBLICATION_MODE", "ASYNCHRONOUS")


class ResultPublisher:
    """Publishes masks, events and heat maps, each under the header of the frame it is about. Any thread may call it.

    Args:
        node: whose topics they are.
        painter: makes what takes several times as long as the rest of a frame: the overlay, and masks and labels as files.

    Attributes:
        jpeg_quality: of ``~/overlay/compressed`` and ``~/heatmap/compressed``, 1 to 100.
    """

    def __init__(self, node: Node, painter: Painter, jpeg_quality: int = 90) -> None:
        def topic(name: str, kind: type) -> Publisher[Any]:
            return node.create_publisher(kind, f"~/{name}", OUTPUT_QOS)

        self.jpeg_quality = jpeg_quality
        self._painter = painter
        self._objects = topic("objects", TrackedObjectArray)
        self._mask, self._mask_png = topic("mask", Image), topic("mask/compressed", CompressedImage)
        self._labels, self._labels_png = topic("labels", Image), topic("labels/compressed", CompressedImage)
        self._overlay, self._overlay_jpeg = topic("overlay", Image), topic("overlay/compressed", CompressedImage)
        self._heat_map = _HeatMapTopics(node, "~")
        self._events = node.create_publisher(TrackEventMessage, "~/events", EVENTS_QOS)

    def publish_segmentation(self, segmentation: Segmentation, captions: Mapping[int, str]) -> None:
        """Publish ``~/objects``, ``~/mask`` and ``~/labels``; the painter follows with ``~/overlay`` and what is compressed.

        Args:
            segmentation: a frame and its objects.
            captions: the sentence of each query by its id, for the overlay.
        """
        header = frame_header(segmentation.frame)
        mask = cache(lambda: mask_pixels(segmentation.union_hw()))
        labels = cache(lambda: segmentation.labels_hw())
        publish_heard(
            (self._objects, lambda: tracked_objects(segmentation)),
            (self._mask, lambda: image_from_array(mask(), "mono8", header)),
            (self._labels, lambda: image_from_array(labels(), "mono16", header)),
        )
        overlay = cache(lambda: draw_overlay(segmentation, captions))
        pictures = (
            (self._mask_png, lambda: png_from_array(mask(), header)),
            (self._labels_png, lambda: png_from_array(labels(), header)),
            (self._overlay, lambda: image_from_array(overlay(), "rgb8", header)),
            (self._overlay_jpeg, lambda: jpeg_from_rgb(overlay(), header, self.jpeg_quality)),
        )
        if is_heard(*(publisher for publisher, _ in pictures)):
            self._painter.submit(lambda: publish_heard(*pictures))

    def publish_heat_map(self, heat: HeatMap) -> None:
        """Publish ``~/attention`` and ``~/heatmap``, both at the size of the camera image, the latter compressed as well."""
        self._heat_map.publish(heat, self.jpeg_quality)

    def publish_events(self, events: Sequence[TrackEvent]) -> None:
        """Publish ``~/events``, one message for each."""
        publish_heard(*((self._events, partial(_event_message, event)) for event in events))


class QueryHeatMaps:
    """``~/query_<id>/attention`` and ``~/query_<id>/heatmap``: topics that each query has while it is active. Thread-safe.

    Args:
        node: whose topics they are.
        active: ids of the active queries.
    """

    def __init__(self, node: Node, active: Callable[[], Collection[int]]) -> None:
        self._node = node
        self._active = active
        self._topics: dict[int, _HeatMapTopics] = {}
        self._lock = threading.Lock()

    def update(self) -> None:
        """Create the topics of queries that became active, and destroy those of queries that are no more."""
        with self._lock:
            active = set(self._active())
            for query_id in self._topics.keys() - active:
                self._topics.pop(query_id).destroy()
            for query_id in active - self._topics.keys():
                self._topics[query_id] = _HeatMapTopics(self._node, f"~/query_{query_id}")

    def publish(self, heat: HeatMap, jpeg_quality: int) -> None:
        """Publish a heat map on its query's topics, if it has any."""
        topics = self._topics.get(heat.query_id)
        if topics is not None:
            topics.publish(heat, jpeg_quality)


class _HeatMapTopics:
    """The topics ``attention`` and ``heatmap`` under a name, the latter compressed as well."""

    def __init__(self, node: Node, name: str) -> None:
        with ExitStack() as made:  # all of them or none

            def topic(part: str, kind: type) -> Publisher[Any]:
                publisher: Publisher[Any] = node.create_publisher(kind, f"{name}/{part}", OUTPUT_QOS)
                made.callback(node.destroy_publisher, publisher)
                return publisher

            self._attention = topic("attention", Image)
            self._heatmap, self._heatmap_jpeg = topic("heatmap", Image), topic("heatmap/compressed", CompressedImage)
            self._made = made.pop_all()

    def publish(self, heat: HeatMap, jpeg_quality: int) -> None:
        header = frame_header(heat.frame)
        coloured = cache(lambda: colour_heat(heat))
        publish_heard(
            (self._attention, lambda: image_from_array(attention_hw(heat), "32FC1", header)),
            (self._heatmap, lambda: image_from_array(coloured(), "rgb8", header)),
            (self._heatmap_jpeg, lambda: jpeg_from_rgb(coloured(), header, jpeg_quality)),
        )

    def destroy(self) -> None:
        self._made.close()


def attention_hw(heat: HeatMap) -> Float32Array:
    """``(H, W)`` float32 in [0, 1]: the heat map at the size of its frame, bilinear between the centres of its cells."""
    height, width = heat.frame.size_hw
    resized = cv2.resize(heat.values_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)


def _event_message(event: TrackEvent) -> TrackEventMessage:
    return TrackEventMessage(
        header=make_header(event.stamp_ns, event.frame_id),
        kind=_EVENT_KINDS[event.kind],
        object_id=event.object_id,
        query_id=event.query_id,
        label=event.label,
    )


def publish_heard(*outputs: tuple[Publisher[Any], Callable[[], object]]) -> None:
    """Make the message of every publisher that somebody subscribes to, then publish them in the order given.

    All are made before the first is sent: from then on the middleware's threads and the subscribers want the cores and caches,
    and drawing beside them takes twice as long. A message that the middleware does not take is lost, and nothing else.
    """
    heard = [(publisher, make_message()) for publisher, make_message in outputs if is_heard(publisher)]
    for publisher, message in heard:
        with suppress(InvalidHandle):  # the topic has gone, as that of a query may at any time
            try:
                publisher.publish(message)
            except RCLError as error:  # Fast DDS, when a subscriber holds up the sending for long
                _logger.warning(f"{publisher.topic_name}: {brief(error)}", throttle_duration_sec=_WARNING_PERIOD_SECONDS)


def is_heard(*publishers: Publisher[Any]) -> bool:
    """Whether somebody subscribes to any of them; nobody does to one that has gone."""
    for publisher in publishers:
        with suppress(InvalidHandle):
            if publisher.get_subscription_count() > 0:
                return True
    return False
