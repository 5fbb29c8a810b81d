"""How camera images arrive: raw, or compressed as image_transport sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from decaf_ros.datatypes import Frame
from decaf_ros.imaging import frame_from_compressed, frame_from_image

# Type of the messages, what the transport adds to the topic's name, decoder.
_TRANSPORTS: dict[str, tuple[type, str, Callable[[Any, int | None], Frame]]] = {
    "raw": (Image, "", frame_from_image),
    "compressed": (CompressedImage, "/compressed", frame_from_compressed),
}
IMAGE_TRANSPORTS = tuple(_TRANSPORTS)
# A 12-megapixel camera.
DEFAULT_MAX_PIXELS = 4096 * 3072


class ImageInput:
    """An image topic under one transport.

    Args:
        node: subscribes.
        transport: one of ``IMAGE_TRANSPORTS``.
        max_pixels: larger images are refused before they are decoded.
        name: of the topic as for raw images. As with image_transport, remapping applies to this name, and the transport's
            suffix follows: ``-r image:=/camera/image_raw`` listens to ``/camera/image_raw/compressed``.
    """

    def __init__(self, node: Node, transport: str, max_pixels: int = DEFAULT_MAX_PIXELS, name: str = "image") -> None:
        self.kind, suffix, self._decode = _TRANSPORTS[transport]
        self.topic: str = node.resolve_topic_name(name) + suffix
        self._node = node
        self._max_pixels = max_pixels

    def subscribe(self, callback: Callable[[Any], None], qos: QoSProfile, group: CallbackGroup) -> Subscription[Any]:
        """Call back with every message, undecoded; see :meth:`frame`."""
        return self._node.create_subscription(self.kind, self.topic, callback, qos, callback_group=group)

    def frame(self, message: Any) -> Frame:
        """Decode a message of this topic.

        Raises:
            ValueError: it cannot be decoded, or is too large; the message names the cause.
        """
        return self._decode(message, self._max_pixels)
