"""Objects in space: as messages, as markers for RViz, and as a point cloud."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Vector3
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from decaf_ros.datatypes import Segmentation, UInt8Array
from decaf_ros.drawing import object_colour
from decaf_ros.geometry import DepthView, Float64Array, LocatedObject, colours_of, locate_objects
from decaf_ros.msg import TrackedObject3D, TrackedObject3DArray
from decaf_ros.ros.conversions import byte_array, frame_header
from decaf_ros.ros.depth import DepthCamera
from decaf_ros.ros.publishers import OUTPUT_QOS, is_heard, publish_heard

_BOX_OPACITY = 0.35
_LABEL_METRES = 0.05
# Frames that may wait for depth: a tenth of a second at 30 Hz, by which drivers register it later than they send colour.
_LONGEST_WAIT = 3
# Markers vanish when the camera stops.
_MARKER_LIFETIME = Duration(sec=2)

# One point of the cloud. PCL's convention: colour is packed into the four bytes of a float32, blue first.
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "u1", 4), ("label", "<u4")])
_FIELD_TYPES = {"x": PointField.FLOAT32, "y": PointField.FLOAT32, "z": PointField.FLOAT32, "rgb": PointField.FLOAT32}


class SpacePublisher:
    """Publishes ``~/objects_3d``, ``~/markers`` and ``~/points`` under the header of the camera image.

    Nothing is computed while nobody listens, and nothing is published for a frame without depth. A frame whose depth is late is
    published together with one of the next three; masks do not wait for that. One thread may call it at a time.

    Args:
        node: whose topics they are.
        depth: the depth of the frames.
    """

    def __init__(self, node: Node, depth: DepthCamera) -> None:
        self._depth = depth
        self._waiting: deque[Segmentation] = deque()
        self._objects = node.create_publisher(TrackedObject3DArray, "~/objects_3d", OUTPUT_QOS)
        self._markers = node.create_publisher(MarkerArray, "~/markers", OUTPUT_QOS)
        self._points = node.create_publisher(PointCloud2, "~/points", OUTPUT_QOS)

    def publish(self, segmentation: Segmentation) -> None:
        """Publish where the objects of a frame, and of earlier ones that waited, are: those whose depth is there by now."""
        if not is_heard(self._objects, self._markers, self._points):
            self.forget()
            self._depth.forget_problem()
            return
        self._waiting.append(segmentation)
        # Depth comes in order: a frame before one that has its depth will not get any.
        due = max((count for count, each in enumerate(self._waiting, start=1) if self._depth.is_there(each.frame)), default=0)
        for _ in range(max(due, len(self._waiting) - _LONGEST_WAIT)):
            self._publish_now(self._waiting.popleft())

    def forget(self) -> None:
        """Wait for the depth of no frame any more."""
        self._waiting.clear()

    def _publish_now(self, segmentation: Segmentation) -> None:
        frame = segmentation.frame
        view = self._depth.view_of(frame)
        if view is None:
            return
        located, header = locate_objects(segmentation, view), frame_header(frame)
        publish_heard(
            (self._objects, lambda: objects_message(located, header)),
            (self._markers, lambda: marker_array(located, header)),
            (self._points, lambda: point_cloud(located, frame.image_rgb, view, header)),
        )


def objects_message(located: Sequence[LocatedObject], header: Header) -> TrackedObject3DArray:
    """All objects of a frame as a message."""
    return TrackedObject3DArray(header=header, objects=[object_message(each) for each in located])


def object_message(located: LocatedObject) -> TrackedObject3D:
    """One object as a message."""
    tracked, placement = located.tracked, located.placement
    return TrackedObject3D(
        id=tracked.object_id,
        query_id=tracked.query_id,
        label=tracked.label,
        position=_point(placement.centroid_xyz),
        covariance=placement.covariance.ravel(),
        box_center=_point(placement.box_center_xyz),
        box_size=_vector(placement.box_size_xyz),
        point_count=placement.point_count,
    )


def marker_array(located: Sequence[LocatedObject], header: Header) -> MarkerArray:
    """A translucent box and a label for each object. The first marker removes those of earlier frames."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for each in located:
        tracked, placement = each.tracked, each.placement
        red, green, blue = (value / 255 for value in object_colour(tracked.object_id, tracked.query_id))
        common = {"header": header, "id": tracked.object_id, "lifetime": _MARKER_LIFETIME}
        box = Marker(ns="box", type=Marker.CUBE, pose=Pose(position=_point(placement.box_center_xyz)), **common)
        box.scale = _vector(np.maximum(placement.box_size_xyz, 1e-3))  # RViz complains about boxes without thickness
        box.color = ColorRGBA(r=red, g=green, b=blue, a=_BOX_OPACITY)
        # Above the box: y points down.
        top = placement.box_center_xyz - [0, placement.box_size_xyz[1] / 2 + _LABEL_METRES, 0]
        label = Marker(ns="label", type=Marker.TEXT_VIEW_FACING, pose=Pose(position=_point(top)), **common)
        label.scale.z = _LABEL_METRES
        label.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        label.text = f"{tracked.label} #{tracked.object_id}"
        markers += [box, label]
    return MarkerArray(markers=markers)


def point_cloud(located: Sequence[LocatedObject], image_rgb: UInt8Array, view: DepthView, header: Header) -> PointCloud2:
    """All objects' points with colour (``rgb``) and object id (``label``), object after object.

    Args:
        located: the objects.
        image_rgb: ``(H, W, 3)``, where the colours are from.
        view: the depth image that the objects were located in.
        header: of the camera image.
    """
    points = np.zeros(sum(len(each.points.xyz) for each in located), dtype=_POINT)
    start = 0
    for each in located:
        own = points[start : start + len(each.points.xyz)]
        own["x"], own["y"], own["z"] = each.points.xyz.T
        own["rgb"][:, :3] = colours_of(each.points, image_rgb, view)[:, ::-1]
        own["label"] = each.tracked.object_id
        start += len(own)
    cloud = PointCloud2(header=header, height=1, width=len(points), is_dense=True, fields=_point_fields())
    cloud.point_step, cloud.row_step = _POINT.itemsize, points.nbytes
    cloud.data = byte_array(points.view(np.uint8))
    return cloud


def _point_fields() -> list[PointField]:
    offsets = {name: offset for name, (_, offset, *_) in (_POINT.fields or {}).items()}
    return [
        PointField(name=name, offset=offset, datatype=_FIELD_TYPES.get(name, PointField.UINT32), count=1)
        for name, offset in offsets.items()
    ]


def _point(xyz: Float64Array) -> Point:
    x, y, z = map(float, xyz)
    return Point(x=x, y=y, z=z)


def _vector(xyz: Float64Array) -> Vector3:
    x, y, z = map(float, xyz)
    return Vector3(x=x, y=y, z=z)
