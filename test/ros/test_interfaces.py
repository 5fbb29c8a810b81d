"""The generated interfaces, from one process to another, started the way a user starts programs."""

import os
import subprocess
import sys

import pytest
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image, RegionOfInterest

from decaf_ros.action import TrackByLanguage
from decaf_ros.msg import QueryInfo, StageLatency, TrackedObject
from decaf_ros.srv import ListQueries, Query, RerunQuery

SERVER = """
import array, rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image, RegionOfInterest
from decaf_ros.msg import StageLatency, TrackedObject
from decaf_ros.srv import Query

def answer(request, response):
    response.success, response.query_id, response.object_name = True, 7, request.expression.upper()
    response.message = f"{request.window_seconds} {request.replace}"
    response.objects = [TrackedObject(id=1, label="mug", box=RegionOfInterest(x_offset=2, width=3), pixel_count=4)]
    response.masks = [Image(height=1, width=2, encoding="mono8", step=2, data=array.array("B", [0, 255]))]
    response.latency = StageLatency(prefill_ms=1.5, total_ms=2.5)
    return response

rclpy.init()
node = rclpy.create_node("interface_test_server")
node.create_service(Query, "interface_test_query", answer)
try:
    rclpy.spin(node)
except ExternalShutdownException:
    pass
"""


@pytest.fixture
def server():
    """A process with the service. Where ROS comes as wheels it needs none of the variables that a ROS distribution sets."""
    environment = dict(os.environ)
    if "ROS_DISTRO" not in environment:
        inherited = ("PATH", "HOME", "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "PYTHONPATH")
        environment = {name: environment[name] for name in inherited if name in environment}
    with subprocess.Popen([sys.executable, "-c", SERVER], env=environment) as process:
        yield process
        process.kill()  # rclpy.spin does not always come to an end when terminated


@pytest.fixture
def executor():
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(rclpy.create_node("interface_test_client", context=context))
    yield executor
    for node in executor.get_nodes():
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_query_goes_to_another_process_and_back(server, executor):
    (node,) = executor.get_nodes()
    client = node.create_client(Query, "interface_test_query")
    assert client.wait_for_service(timeout_sec=20.0), f"no service; the server's status is {server.poll()}"
    future = client.call_async(Query.Request(expression="the red mug", window_seconds=1.5, replace=True))
    executor.spin_until_future_complete(future, timeout_sec=20.0)
    reply = future.result()
    assert (reply.success, reply.query_id, reply.object_name, reply.message) == (True, 7, "THE RED MUG", "1.5 True")
    assert reply.objects == [TrackedObject(id=1, label="mug", box=RegionOfInterest(x_offset=2, width=3), pixel_count=4)]
    assert [bytes(mask.data) for mask in reply.masks] == [b"\x00\xff"]
    assert reply.latency == StageLatency(prefill_ms=1.5, total_ms=2.5)


def test_the_types_that_carry_the_contract():
    """Fields that users rely on by name and type; a change here breaks their programs."""
    assert TrackedObject.get_fields_and_field_types() == {
        "id": "uint32",
        "query_id": "uint32",
        "label": "string",
        "state": "uint8",
        "score": "float",
        "presence": "float",
        "attention_consistency": "float",
        "box": "sensor_msgs/RegionOfInterest",
        "pixel_count": "uint32",
    }
    assert (TrackedObject.VISIBLE, TrackedObject.LOST) == (1, 2)
    states = (QueryInfo.QUEUED, QueryInfo.RUNNING, QueryInfo.ACTIVE, QueryInfo.FAILED)
    assert states == (1, 2, 3, 4)
    assert isinstance(Query.Response().reference_stamp, Time)
    assert isinstance(Query.Response(masks=[Image()]).masks[0], Image)
    assert ListQueries.Response(queries=[QueryInfo(query_id=1)]).queries[0].query_id == 1


def test_every_way_to_ask_has_the_same_answer():
    fields = Query.Response.get_fields_and_field_types()
    assert RerunQuery.Response.get_fields_and_field_types() == fields
    assert TrackByLanguage.Result.get_fields_and_field_types() == fields
    assert TrackByLanguage.Goal.get_fields_and_field_types() == Query.Request.get_fields_and_field_types()
