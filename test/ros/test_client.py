"""The client alone: what it does about callbacks that fail, news that are old, and services that are none."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import wait_until
from rclpy.action import ActionServer
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from decaf_ros.action import TrackByLanguage
from decaf_ros.ros.client import DecafClient


@pytest.fixture
def alone(ros: None) -> Iterator[DecafClient]:
    """A client of a node that is not there."""
    with DecafClient("/absent_node", "client_test") as client:
        yield client


def test_a_callback_that_fails_does_not_silence_the_client(alone: DecafClient) -> None:
    heard: list[int] = []

    def fail(message: Int32) -> None:
        heard.append(message.data)
        raise RuntimeError("the callback's own")

    alone.subscribe("~/number", Int32, fail)
    publisher = alone.node.create_publisher(Int32, "/absent_node/number", 10)
    numbers = iter(range(1000))
    wait_until(lambda: publisher.publish(Int32(data=next(numbers))) or len(heard) > 2, "messages after the first failure")


def test_ready_is_who_says_so_now(alone: DecafClient) -> None:
    publisher = alone.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    ready = DiagnosticArray(status=[DiagnosticStatus(name="/absent_node: queries", level=DiagnosticStatus.OK)])
    wait_until(lambda: publisher.publish(ready) or alone.diagnostics("queries"), "diagnostics")
    wait_until(lambda: alone.diagnostics("queries", max_age_s=0.5) is None, "the last of them to be old")
    with pytest.raises(TimeoutError, match="is not ready"):  # the node was killed since
        alone.wait_until_ready(timeout_s=0.5)
    timer = alone.node.create_timer(0.1, lambda: publisher.publish(ready))
    alone.wait_until_ready(timeout_s=30.0)
    timer.cancel()


def test_nobody_waits_for_a_node_that_went_away(alone: DecafClient) -> None:
    other = rclpy.create_node("went_away")
    service = other.create_service(Trigger, "/absent_node/reset", lambda request, response: response)  # nobody spins it
    leaving = threading.Timer(2.0, lambda: other.destroy_service(service))
    try:
        future = alone.call_async("reset", Trigger.Request())
        leaving.start()
        with pytest.raises(TimeoutError, match="/absent_node went away before it answered"):
            alone.call("reset", Trigger.Request(), timeout_s=60.0)
        with pytest.raises(TimeoutError, match=r"did not answer within 0\.1 s"):
            alone.wait_for(future, timeout_s=0.1)
    finally:
        leaving.join()
        other.destroy_node()


def test_services_that_are_none_are_named(alone: DecafClient) -> None:
    with pytest.raises(ValueError, match=r"decaf_node has no service 'querry'; it has add_object, .*query"):
        alone.call("querry", None)
    with pytest.raises(TimeoutError, match="there is no service /absent_node/reset: is the node running"):
        alone.call("reset", None, timeout_s=0.1)


def test_closing_twice_is_closing_once(ros: None) -> None:
    with DecafClient("/absent_node", "client_closed_twice") as client:
        client.close()


def test_diagnostics_of_others_are_not_kept(alone: DecafClient) -> None:
    """A robot's programs all send theirs to one topic, and so may anybody."""
    publisher = alone.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    own = "/absent_node: depth"
    names = [*(f"/other: {number}" for number in range(100)), *(f"/absent_node: {number}" for number in range(100)), own]
    array = DiagnosticArray(status=[DiagnosticStatus(name=name) for name in names])
    wait_until(lambda: publisher.publish(array) or alone.diagnostics("depth"), "diagnostics")
    assert list(alone._diagnostics) == [own]


def test_nothing_is_kept_of_what_nobody_waits_for(alone: DecafClient) -> None:
    other = rclpy.create_node("never_answers")  # nobody spins it
    server = ActionServer(other, TrackByLanguage, "/absent_node/track_by_language", lambda _: TrackByLanguage.Result())
    service = other.create_service(Trigger, "/absent_node/reset", lambda request, response: response)

    class Ears:
        def hear(self, feedback: object) -> None: ...

    ears = Ears()
    heard = weakref.ref(ears)
    try:
        names = ("track_by_language/_action/send_goal", "reset")
        wait_until(lambda: all(alone.node.count_services(f"/absent_node/{each}") for each in names), "the services")
        with pytest.raises(TimeoutError, match=r"did not answer within 0\.2 s"):
            alone.track("the mug", on_feedback=ears.hear, timeout_s=0.2)
        with pytest.raises(TimeoutError, match=r"did not answer within 0\.2 s"):
            alone.call("reset", Trigger.Request(), timeout_s=0.2)
        del ears
        wait_until(lambda: (gc.collect(), heard())[1] is None, "the listener to be forgotten")
    finally:
        server.destroy()
        other.destroy_service(service)
        other.destroy_node()
