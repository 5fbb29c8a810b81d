"""Lazy topics against a real publisher."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import cv2
import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from decaf_ros.msg import QueryInfo, TrackedObject, TrackedObjectArray
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.conversions import image_from_array, make_header
from decaf_ros.srv import ListQueries
from decaf_ros.strict_json import from_json
from decaf_ros.web import topics
from decaf_ros.web.access import AccessPolicy
from decaf_ros.web.link import NodeLink
from decaf_ros.web.server import PageSettings, make_app
from decaf_ros.web.topics import ImageFeed, encode_jpeg

TIMEOUT_S = 120.0


def grey_image(level: int, width: int = 64) -> Image:
    return image_from_array(np.full((48, width, 3), level, np.uint8), "rgb8", make_header(level, "camera"))


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


async def wait_for(condition: Callable[[], Any], what: str) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.02)

    try:
        await asyncio.wait_for(poll(), TIMEOUT_S)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


@pytest.fixture(scope="module")
def publisher(client: DecafClient) -> Publisher:
    return client.node.create_publisher(Image, "/shown", 5)


def test_subscribed_only_while_somebody_watches(client: DecafClient, publisher: Publisher) -> None:
    async def check() -> None:
        topic = ImageFeed(client, "/shown").topic
        for _ in range(2):
            await wait_for(lambda: publisher.get_subscription_count() == 0, "no subscription")
            with topic.watched():
                with topic.watched():
                    await wait_for(lambda: publisher.get_subscription_count() == 1, "one subscription for two viewers")
                publisher.publish(grey_image(100))
                await wait_for(lambda: topic.newest, "an image for the viewer that stays")
            assert topic.newest is None, "the next viewer must not see an image of long ago"
        await wait_for(lambda: publisher.get_subscription_count() == 0, "no subscription")

    asyncio.run(check())


def test_the_newest_image_wins_and_is_encoded_once(client: DecafClient, publisher: Publisher) -> None:
    async def check() -> None:
        feed = ImageFeed(client, "/shown")
        with feed.topic.watched():
            await wait_for(lambda: publisher.get_subscription_count() == 1, "the subscription")
            for level in range(10, 201, 10):
                publisher.publish(grey_image(level))
            await wait_for(lambda: feed.topic.newest and feed.topic.newest.data[0] == 200, "the last image")
            (number, jpeg), (same_number, same_jpeg) = await asyncio.gather(feed.next_jpeg(0), feed.next_jpeg(0))
            assert np.abs(decoded(jpeg).astype(int) - 200).max() <= 2
            assert (number, jpeg) == (same_number, same_jpeg)
            assert jpeg is same_jpeg
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(feed.next_jpeg(number), 0.2)

    asyncio.run(check())


def test_a_picture_that_was_forgotten_is_not_waited_for_in_vain(
    client: DecafClient, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tabs wait; the one that the picture is made for is closed, and the node goes."""
    begun, go_on = threading.Event(), threading.Event()

    def encode_slowly(image: Image) -> bytes:
        begun.set()
        assert go_on.wait(TIMEOUT_S)
        return encode_jpeg(image)

    async def check() -> None:
        feed = ImageFeed(client, "/shown")
        with feed.topic.watched():
            closed, other = asyncio.create_task(feed.next_jpeg(0)), asyncio.create_task(feed.next_jpeg(0))
            await wait_for(lambda: publisher.get_subscription_count() == 1, "the subscription")
            publisher.publish(grey_image(50))
            await wait_for(begun.is_set, "the picture to be begun")
            feed.topic.forget()
            closed.cancel()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(other), 0.2)
            go_on.set()
            publisher.publish(grey_image(150))
            number, jpeg = await asyncio.wait_for(other, TIMEOUT_S)
            assert number == 2
            assert np.abs(decoded(jpeg).astype(int) - 150).max() <= 2

    monkeypatch.setattr(topics, "encode_jpeg", encode_slowly)
    asyncio.run(check())


@asynccontextmanager
async def live(client: DecafClient, name: str) -> AsyncIterator[ClientWebSocketResponse]:
    """A connection to a live view of a page in this process."""
    app = make_app(client, AccessPolicy(None), PageSettings(TIMEOUT_S, 2))
    async with TestClient(TestServer(app)) as browser, browser.ws_connect(f"/live/{name}") as socket:
        yield socket


def test_a_picture_that_cannot_be_made_does_not_end_the_view(client: DecafClient, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = client.node.create_publisher(Image, f"{client.target}/overlay", 5)

    def fail(_: Image) -> bytes:
        raise cv2.error("no memory")

    async def check() -> None:
        async with live(client, "overlay") as socket:
            await wait_for(lambda: publisher.get_subscription_count() == 1, "the subscription")
            with monkeypatch.context() as broken:
                broken.setattr(topics, "encode_jpeg", fail)
                await socket.send_str("next")
                publisher.publish(grey_image(50))
                assert await socket.receive_json(timeout=TIMEOUT_S) == {"error": "no memory"}
            await socket.send_str("next")
            publisher.publish(grey_image(150))
            assert np.abs(decoded(await socket.receive_bytes(timeout=TIMEOUT_S)).astype(int) - 150).max() <= 2

    asyncio.run(check())
    client.node.destroy_publisher(publisher)


def test_a_state_that_cannot_be_told_closes_the_connection(client: DecafClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser then says that something is wrong, and tries again."""

    async def check() -> None:
        async with live(client, "state") as socket:
            await socket.receive_json(timeout=TIMEOUT_S)
            monkeypatch.setattr(NodeLink, "snapshot", lambda link: {}["missing"])
            while (message := await socket.receive(timeout=TIMEOUT_S)).type is WSMsgType.TEXT:
                pass
            assert socket.closed, message

    asyncio.run(check())


def test_numbers_that_json_does_not_know_are_null(client: DecafClient) -> None:
    """Written as Python would, no browser could read anything of the state."""
    node, name = client.node, client.target
    objects = [TrackedObject(id=number, query_id=1, label="mug", score=math.nan, presence=math.inf) for number in (1, 2)]
    query = QueryInfo(query_id=1, expression="the mug", state=QueryInfo.ACTIVE, object_ids=[1, 2])
    answer = ListQueries.Response(queries=[query])
    service = node.create_service(ListQueries, f"{name}/list_queries", lambda *_: answer)
    publisher = node.create_publisher(TrackedObjectArray, f"{name}/objects", 5)

    async def check() -> None:
        async with live(client, "state") as socket:
            while True:
                publisher.publish(TrackedObjectArray(objects=objects))
                state = from_json(await socket.receive_str(timeout=TIMEOUT_S))
                shown = [each for query in state["queries"] for each in query["objects"] if "score" in each]
                if shown:
                    break
        assert [(each["score"], each["presence"]) for each in shown] == [(None, None)] * 2

    asyncio.run(check())
    node.destroy_service(service)
    node.destroy_publisher(publisher)


def test_large_images_are_scaled_down() -> None:
    assert decoded(encode_jpeg(grey_image(90, width=64))).shape == (48, 64, 3)
    assert decoded(encode_jpeg(grey_image(90, width=2560))).shape == (24, 1280, 3)


def test_red_stays_red() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    blue, green, reddish = decoded(encode_jpeg(image_from_array(red, "rgb8", make_header(0, "camera"))))[8, 8]
    assert reddish > 240
    assert max(blue, green) < 15
