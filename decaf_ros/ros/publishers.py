"""What the node tells the world about every frame. Nothing is computed for a topic that nobody listens to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from decaf_ros.datatypes import Float32Array, Frame, HeatMap, Segmentation
from decaf_ros.drawing import colour_heat, draw_overlay
from decaf_ros.msg import TrackedObjectArray
from decaf_ros.ros.conversions import image_from_array, make_header, mask_image, tracked_objects

# RViz subscribes reliable by default, and gets nothing from a publisher that offers less.
OUTPUT_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class ResultPublisher:
    """Publishes masks and heat maps, each under the header of the frame it was computed from. Any thread may call it."""

    def __init__(self, node: Node) -> None:
        def image_topic(name: str) -> Publisher[Image]:
            return node.create_publisher(Image, f"~/{name}", OUTPUT_QOS)

        self._mask, self._labels, self._overlay = image_topic("mask"), image_topic("labels"), image_topic("overlay")
        self._heatmap, self._attention = image_topic("heatmap"), image_topic("attention")
        self._objects = node.create_publisher(TrackedObjectArray, "~/objects", OUTPUT_QOS)

    def publish_segmentation(self, segmentation: Segmentation, captions: Mapping[int, str]) -> None:
        """Publish ``~/objects``, ``~/mask``, ``~/labels`` and ``~/overlay``.

        Args:
            segmentation: a frame and its objects.
            captions: the sentence of each query by its id, for the overlay.
        """
        frame = segmentation.frame
        _publish(self._objects, lambda: tracked_objects(segmentation))
        _publish(self._mask, lambda: mask_image(segmentation.union_hw(), _header(frame)))
        _publish(self._labels, lambda: image_from_array(segmentation.labels_hw(), "mono16", _header(frame)))
        _publish(self._overlay, lambda: image_from_array(draw_overlay(segmentation, captions), "rgb8", _header(frame)))

    def publish_heat_map(self, heat: HeatMap) -> None:
        """Publish ``~/attention`` and ``~/heatmap``, both at the size of the camera image."""
        frame = heat.frame
        _publish(self._attention, lambda: image_from_array(attention_hw(heat), "32FC1", _header(frame)))
        _publish(self._heatmap, lambda: image_from_array(colour_heat(heat), "rgb8", _header(frame)))


def attention_hw(heat: HeatMap) -> Float32Array:
    """``(H, W)`` float32 in [0, 1]: the heat map at the size of its frame, bilinear between the centres of its cells."""
    height, width = heat.frame.size_hw
    resized = cv2.resize(heat.values_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)


def _header(frame: Frame) -> Header:
    return make_header(frame.stamp_ns, frame.frame_id)


def _publish(publisher: Publisher, make_message: Callable[[], object]) -> None:
    if publisher.get_subscription_count() > 0:
        publisher.publish(make_message())
