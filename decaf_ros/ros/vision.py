"""Objects as vision_msgs, the types that other perception packages share. They are published where vision_msgs is installed."""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import Header

from decaf_ros.datatypes import ObjectMask, Segmentation, Visibility
from decaf_ros.ros.conversions import frame_header
from decaf_ros.ros.publishers import OUTPUT_QOS, publish_heard

try:
    from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True


class VisionPublisher:
    """Publishes ``~/detections`` (Detection2DArray) and ``~/label_info`` (LabelInfo, the names to the pixels of ``~/labels``).

    Both under the header of the camera image, and only while somebody listens. Any thread may call it.

    Args:
        node: whose topics they are; vision_msgs must be :data:`INSTALLED`.
    """

    def __init__(self, node: Node) -> None:
        self._detections = node.create_publisher(Detection2DArray, "~/detections", OUTPUT_QOS)
        self._label_info = node.create_publisher(LabelInfo, "~/label_info", OUTPUT_QOS)

    def publish(self, segmentation: Segmentation) -> None:
        """Publish the objects of a frame."""
        header = frame_header(segmentation.frame)
        publish_heard(
            (self._detections, lambda: detections(segmentation, header)),
            (self._label_info, lambda: label_info(segmentation, header)),
        )


def detections(segmentation: Segmentation, header: Header) -> Detection2DArray:
    """The visible objects: the id of the object, its name as class, its score, and the box around its mask."""
    visible = [each for each in segmentation.objects if each.visibility is Visibility.VISIBLE]
    return Detection2DArray(header=header, detections=[_detection(each, header) for each in visible])


def label_info(segmentation: Segmentation, header: Header) -> LabelInfo:
    """Which name belongs to which pixel of the label image, lost objects included."""
    classes = [VisionClass(class_id=each.object_id, class_name=each.label) for each in segmentation.objects]
    return LabelInfo(header=header, class_map=classes)


def _detection(tracked: ObjectMask, header: Header) -> Detection2D:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = tracked.label, float(tracked.score)
    detection = Detection2D(header=header, id=str(tracked.object_id), results=[hypothesis])
    x_min, y_min, x_max, y_max = tracked.box_xyxy
    # The box reaches from the first pixel's outer edge to the last one's; pixel centres are at integers.
    detection.bbox.center.position.x, detection.bbox.center.position.y = (x_min + x_max - 1) / 2, (y_min + y_max - 1) / 2
    detection.bbox.size_x, detection.bbox.size_y = float(x_max - x_min), float(y_max - y_min)
    return detection
