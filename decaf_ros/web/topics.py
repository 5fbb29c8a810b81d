"""The newest message of a topic for any number of viewers, subscribed to only while there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import cv2
import numpy as np
from sensor_msgs.msg import Image

from decaf_ros.imaging import frame_from_image
from decaf_ros.ros.client import DecafClient, Listening
from decaf_ros.ros.conversions import jpeg_file

MessageT = TypeVar("MessageT")

_MAX_WIDTH_PX = 1280
_JPEG_QUALITY = 80


class LazyTopic(Generic[MessageT]):
    """Keeps the newest message and no other. Belongs to the event loop that it is made in.

    Args:
        client: whose thread receives the messages.
        name: of the topic; ``~`` stands for the node that the client talks to.
        kind: message class.
    """

    def __init__(self, client: DecafClient, name: str, kind: type[MessageT]) -> None:
        self._client = client
        self._name = name
        self._kind = kind
        self._loop = asyncio.get_running_loop()
        self._listening: Listening | None = None
        self._viewers = 0
        self._arrival = asyncio.Event()
        self.newest: MessageT | None = None
        self.count = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Subscribe for as long as anybody is within this block."""
        self._viewers += 1
        if self._viewers == 1:
            # A depth of 1 bounds what may wait.
            self._listening = self._client.subscribe(self._name, self._kind, self._receive, depth=1)
        try:
            yield
        finally:
            self._viewers -= 1
            if self._viewers == 0:
                self._unsubscribe()

    def forget(self) -> None:
        """Drop the newest message."""
        self.newest = None

    async def next(self, after: int) -> int:
        """Wait until ``newest`` is a later message than number ``after``; its own number."""
        while self.count <= after or self.newest is None:
            await self._arrival.wait()
        return self.count

    def _unsubscribe(self) -> None:
        listening, self._listening = self._listening, None
        self.forget()
        assert listening is not None
        listening.unsubscribe()

    def _receive(self, message: MessageT) -> None:
        """On the client's thread."""
        self._loop.call_soon_threadsafe(self._keep, message)

    def _keep(self, message: MessageT) -> None:
        if self._listening is None:
            return
        self.newest = message
        self.count += 1
        self._arrival.set()
        self._arrival = asyncio.Event()


class ImageFeed:
    """An image topic as JPEGs. Each is made once, and only if somebody asks for it.

    Args:
        client: of the node.
        name: of the topic, as for :class:`LazyTopic`.
    """

    def __init__(self, client: DecafClient, name: str) -> None:
        self.topic = LazyTopic(client, name, Image)
        self._encoding = asyncio.Lock()
        self._jpeg = b""
        self._encoded = 0

    async def next_jpeg(self, after: int) -> tuple[int, bytes]:
        """Wait for an image later than number ``after``: the number and the JPEG of the newest one.

        Raises:
            ValueError: the image cannot be decoded.
        """
        while True:
            await self.topic.next(after)
            async with self._encoding:
                image, number = self.topic.newest, self.topic.count
                if image is None:  # forgotten while another viewer had it encoded
                    continue
                if self._encoded < number:
                    self._jpeg = await asyncio.to_thread(encode_jpeg, image)
                    self._encoded = number
                return self._encoded, self._jpeg


def encode_jpeg(image: Image) -> bytes:
    """A camera image as JPEG, scaled down to 1280 columns if it has more.

    Raises:
        ValueError: see :func:`decaf_ros.imaging.frame_from_image`.
    """
    rgb = frame_from_image(image).image_rgb
    if image.width > _MAX_WIDTH_PX:
        scale = _MAX_WIDTH_PX / image.width
        rgb = np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return jpeg_file(rgb, _JPEG_QUALITY).tobytes()
