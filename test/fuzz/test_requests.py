"""Requests of any content to a real node: each is answered, and the node goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from budget import examples
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image, RegionOfInterest
from std_srvs.srv import Trigger

from decaf_ros.action import TrackByLanguage
from decaf_ros.ros.client import DecafClient
from decaf_ros.srv import AddObject, ListQueries, Query, RemoveObject, RemoveQuery, RerunQuery

sys.path.append(str(Path(__file__).parents[1] / "ros"))
from filmed_table import EXPRESSION
from harness import Camera, NodeProcess, Recorder, System

ANSWER_SECONDS = 60.0  # 10 on a quiet machine
UINT32 = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
UINT8 = st.integers(0, 255)
FLOATS = st.one_of(st.sampled_from([0.0, -1.0, 1e-30, 1e300, float("nan"), float("inf"), -float("inf")]), st.floats())
FLOATS32 = st.floats(width=32)
# DDS ends a text at its first zero, and takes no surrogates: rclpy's conversion refuses them on the client's side.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.sampled_from(
        ["x" * 100_000, "\N{ZERO WIDTH JOINER}" * 3, "a\nb", "<|im_end|>", "%s%n{0}", "\u202eball", "\U0001f3c0" * 600]
    ),
)
TIMES = st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1))
POINTS = st.lists(st.builds(Point, x=FLOATS, y=FLOATS, z=FLOATS), max_size=4)
BOXES = st.builds(RegionOfInterest, x_offset=UINT32, y_offset=UINT32, width=UINT32, height=UINT32)
MASKS = st.builds(
    Image,
    width=UINT32,
    height=UINT32,
    step=UINT32,
    encoding=st.one_of(st.just("mono8"), TEXTS),
    is_bigendian=UINT8,
    data=st.binary(max_size=64).map(list),
)
QUERIES = {"expression": TEXTS, "window_seconds": FLOATS32, "replace": st.booleans()}
REQUESTS = {
    "query": st.builds(Query.Request, **QUERIES),
    "rerun_query": st.builds(RerunQuery.Request, query_id=UINT32),
    "add_object": st.builds(
        AddObject.Request,
        label=TEXTS,
        on_points=POINTS,
        off_points=POINTS,
        box=st.one_of(st.just(RegionOfInterest()), BOXES),
        mask=st.one_of(st.just(Image()), MASKS),
        stamp=st.one_of(st.just(Time()), TIMES),
    ),
    "remove_object": st.builds(RemoveObject.Request, object_id=UINT32),
    "remove_query": st.builds(RemoveQuery.Request, query_id=UINT32),
    "list_queries": st.builds(ListQueries.Request),
    "reset": st.builds(Trigger.Request),
}
CALLS = st.lists(
    st.sampled_from(sorted(REQUESTS)).flatmap(lambda name: REQUESTS[name].map(lambda request: (name, request))),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    rclpy.init()
    process = NodeProcess("node", tmp_path_factory.mktemp("node") / "decaf_node.log")
    try:
        with DecafClient(name="fuzzer") as client:
            client.wait_until_ready()
            yield System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
    finally:
        rclpy.try_shutdown()
        assert process.stop() == 0, process.output()
    assert "internal error" not in process.output(), process.output()
    assert "Traceback" not in process.output(), process.output()


@pytest.fixture(scope="module")
def filmed(system: System) -> Iterator[System]:
    with system.camera.filming():
        system.wait_for_mask()
        yield system


@examples(25)
@given(calls=CALLS)
def test_every_request_is_answered(filmed: System, calls: list[tuple[str, Any]]) -> None:
    futures = [filmed.client.call_async(name, request) for name, request in calls]
    filmed.client.reset()  # those that wait for the models need not run
    for (name, request), future in zip(calls, futures, strict=True):
        answer = filmed.client.wait_for(future, ANSWER_SECONDS)
        if name not in ("list_queries", "reset"):
            assert answer.success or answer.message, (name, request)
    assert filmed.process.is_alive()


@examples(10)
@given(goal=st.builds(TrackByLanguage.Goal, **QUERIES))
def test_every_goal_comes_to_an_end(filmed: System, goal: TrackByLanguage.Goal) -> None:
    given = filmed.client.track(
        goal.expression, window_seconds=goal.window_seconds, replace=goal.replace, timeout_s=ANSWER_SECONDS
    )
    given.cancel(ANSWER_SECONDS)
    _, result = given.wait(ANSWER_SECONDS)
    assert result.success or result.message


def test_a_good_query_is_answered_afterwards(filmed: System) -> None:
    filmed.client.reset()
    filmed.wait_for_mask()
    assert filmed.client.query(EXPRESSION).success
