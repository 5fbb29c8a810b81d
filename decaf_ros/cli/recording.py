"""What a camera and decaf_node publish, kept by stamp for scoring and for pictures."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, TimeReference

from decaf_ros.datatypes import Frame, UInt16Array
from decaf_ros.imaging import frame_from_image, stamp_to_ns
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.qos import LATCHED_QOS

_LOOK_SECONDS = 0.02
_CAMERA_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True, eq=False)
class Recording:
    """Messages by the stamp of the camera image that they belong to, in nanoseconds.

    Attributes:
        camera: images as the camera sent them.
        truth: ``(H, W)`` uint16, ``i + 1`` on thing ``i``.
        labels: ``(H, W)`` uint16, object ids.
        overlay: masks over the image.
        heat: heat maps over the image; not every image has one.
    """

    camera: dict[int, Frame] = field(default_factory=dict)
    truth: dict[int, UInt16Array] = field(default_factory=dict)
    labels: dict[int, UInt16Array] = field(default_factory=dict)
    overlay: dict[int, Frame] = field(default_factory=dict)
    heat: dict[int, Frame] = field(default_factory=dict)


class Recorder:
    """Subscribes to the camera, its ground truth and the node's pictures, and keeps all that came since the last start."""

    def __init__(self, client: DecafClient) -> None:
        self._lock = threading.Lock()
        self._recording = Recording()
        self._scene: TimeReference | None = None
        client.node.create_subscription(TimeReference, "scene", self._on_scene, LATCHED_QOS)
        client.node.create_subscription(Image, "image", self._on_camera, _CAMERA_QOS)
        client.subscribe("ground_truth", Image, self._on_truth)
        client.subscribe("~/labels", Image, self._on_labels)
        client.subscribe("~/overlay", Image, self._on_overlay)
        client.subscribe("~/heatmap", Image, self._on_heat)

    def start(self) -> None:
        """Begin a new recording."""
        with self._lock:
            self._recording = Recording()

    def stop(self) -> Recording:
        """End the recording, and hand it over."""
        with self._lock:
            recording, self._recording = self._recording, Recording()
            return recording

    @property
    def scene_name(self) -> str:
        """Of what the camera shows, as far as it is known."""
        with self._lock:
            return "" if self._scene is None else str(self._scene.source)

    def wait_for_scene(self, source: str, time_s: float, since_ns: int, timeout_s: float) -> int:
        """Wait for an image of a scene.

        Args:
            source: what the scene is called.
            time_s: of the scene, from which on.
            since_ns: of the clock; the scene may have been shown before, and this is another time.
            timeout_s: how long to wait.

        Returns:
            The image's stamp.

        Raises:
            TimeoutError: none came in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._lock:
                scene, stamp_ns = self._scene, max(self._recording.camera, default=0)
            if scene is not None and scene.source == source and stamp_to_ns(scene.header.stamp) >= since_ns:
                start_ns = stamp_to_ns(scene.header.stamp) - stamp_to_ns(scene.time_ref)
                if stamp_ns >= start_ns + time_s * 1e9:
                    return stamp_ns
            time.sleep(_LOOK_SECONDS)
        raise TimeoutError(
            f"no image of {source} at {time_s:.1f} s came from the camera within {timeout_s:.1f} s; "
            f"it shows {self.scene_name or 'no scene'}"
        )

    def _on_scene(self, message: TimeReference) -> None:
        with self._lock:
            self._scene = message

    def _on_camera(self, message: Image) -> None:
        with self._lock:
            self._recording.camera[stamp_to_ns(message.header.stamp)] = frame_from_image(message)

    def _on_truth(self, message: Image) -> None:
        with self._lock:
            self._recording.truth[stamp_to_ns(message.header.stamp)] = _decode_labels(message)

    def _on_labels(self, message: Image) -> None:
        with self._lock:
            self._recording.labels[stamp_to_ns(message.header.stamp)] = _decode_labels(message)

    def _on_overlay(self, message: Image) -> None:
        with self._lock:
            self._recording.overlay[stamp_to_ns(message.header.stamp)] = frame_from_image(message)

    def _on_heat(self, message: Image) -> None:
        with self._lock:
            self._recording.heat[stamp_to_ns(message.header.stamp)] = frame_from_image(message)


def _decode_labels(message: Image) -> UInt16Array:
    order = ">" if message.is_bigendian else "<"
    rows = np.frombuffer(message.data, dtype=f"{order}u2").reshape(message.height, message.step // 2)
    return rows[:, : message.width].astype(np.uint16)
