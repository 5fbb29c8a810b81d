"""Objects as vision_msgs, where that is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import Recorder, wait_until

from decaf_ros.datatypes import Frame, ObjectMask, Segmentation, Visibility
from decaf_ros.ros import vision
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import make_header

vision_msgs: Any = pytest.importorskip("vision_msgs.msg", reason="vision_msgs comes with a ROS distribution")


def test_detections_and_names_of_labels(client: DecafClient) -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:4, 2:7] = True
    frame = Frame(3_000_000_004, "camera", np.zeros((6, 8, 3), np.uint8))
    seen = ObjectMask(7, 2, "mug", mask, 0.5, 0.9, Visibility.VISIBLE)
    lost = ObjectMask(3, 1, "ball", np.zeros_like(mask), 0.8, 0.0, Visibility.LOST)
    publisher = vision.VisionPublisher(client.node)
    name = client.node.get_fully_qualified_name()
    detections = Recorder(client, f"{name}/detections", vision_msgs.Detection2DArray)
    labels = Recorder(client, f"{name}/label_info", vision_msgs.LabelInfo)

    def attempt() -> bool:
        publisher.publish(Segmentation(frame, (seen, lost)))
        return bool(detections.messages and labels.messages)

    wait_until(attempt, "both messages", 60.0)
    array, info = detections.messages[0], labels.messages[0]
    assert array.header == info.header == make_header(3_000_000_004, "camera")
    (detection,) = array.detections
    (result,) = detection.results
    assert (detection.id, detection.header) == ("7", array.header)
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("mug", 0.5)
    # Columns 2 to 6 and rows 1 to 3.
    box = detection.bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (4.0, 2.0, 5.0, 3.0)
    assert {each.class_id: each.class_name for each in info.class_map} == {7: "mug", 3: "ball"}
