"""TrackByLanguage with real processes: feedback, cancelling, queueing, clients that die, and the states of the node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from action_msgs.msg import GoalStatus
from filmed_table import EXPRESSION, OTHER_EXPRESSION
from harness import Camera, NodeProcess, Recorder, System, wait_until
from sensor_msgs.msg import Image

from decaf_ros.action import TrackByLanguage
from decaf_ros.msg import QueryInfo, TrackedObjectArray
from decaf_ros.ros.client import DecafClient, Goal
from decaf_ros.session.stages import STAGES

Feedback = TrackByLanguage.Feedback
_ATTEMPTS = 20
CLIENT = f"""
import time
import rclpy
from decaf_ros.ros.client import DecafClient

rclpy.init()
with DecafClient(name="doomed_client") as client:
    client.track({EXPRESSION!r}, timeout_s=60.0).wait(600.0)
"""


def _succeed(system: System, expression: str, feedback: list[Feedback], replace: bool = True) -> TrackByLanguage.Result:
    status, result = system.client.track(expression, replace=replace, on_feedback=feedback.append, timeout_s=60.0).wait()
    assert status == GoalStatus.STATUS_SUCCEEDED, result.message
    return result


def test_feedback_comes_by_stage_in_order(system: System) -> None:
    feedback: list[Feedback] = []
    with system.camera.filming():
        system.wait_for_mask()
        _succeed(system, EXPRESSION, feedback)  # by its end, client and node have certainly found each other's topics
        feedback.clear()
        result = _succeed(system, EXPRESSION, feedback)
    count = len(feedback)  # the result may overtake the last ones, and ends the listening
    assert count >= 3
    assert [each.state for each in feedback] == ([Feedback.QUEUED] + [Feedback.RUNNING] * 5)[:count]
    assert [each.stage for each in feedback] == ["", *STAGES][:count]
    assert [each.stage_number for each in feedback] == [0, 1, 2, 3, 4, 5][:count]
    assert {each.stage_count for each in feedback} == {5}
    assert [round(each.progress, 3) for each in feedback] == [0.0, 0.0, 0.2, 0.4, 0.6, 0.8][:count]
    seconds = [each.elapsed_seconds for each in feedback]
    assert seconds == sorted(seconds)
    assert seconds[-1] * 1e3 <= result.latency.total_ms
    assert {each.query_id for each in feedback} == {result.query_id}
    assert result.success
    assert len(result.objects) == len(result.masks) >= 1


def _cancelled_in_time(system: System, stage: str) -> TrackByLanguage.Result:
    """The result of a goal that was cancelled at a stage, or in the queue; one that ended before is given again."""
    for _ in range(_ATTEMPTS):
        heard: list[Feedback] = []
        goal = system.client.track(OTHER_EXPRESSION, replace=False, on_feedback=heard.append)
        wait_until(lambda heard=heard: stage in [each.stage for each in heard], f"feedback of the stage {stage!r}", 120.0)
        goal.cancel()
        status, result = goal.wait()
        if status == GoalStatus.STATUS_CANCELED:
            return result
        assert status == GoalStatus.STATUS_SUCCEEDED, "too late is the only way not to be cancelled"
        system.client.remove_query(result.query_id)
    raise AssertionError(f"{_ATTEMPTS} goals ended before they were cancelled")


def test_cancelling_a_goal_that_runs_leaves_the_tracks_as_they_were(system: System) -> None:
    objects = Recorder(system.client, "~/objects", TrackedObjectArray)
    with system.camera.filming():
        system.wait_for_mask()
        kept = {tracked.id for tracked in _succeed(system, EXPRESSION, []).objects}
        result = _cancelled_in_time(system, "prefill")
        assert not result.success
        assert "cancelled" in result.message
        assert result.query_id > 0
        assert result.objects == result.masks == []
        assert {tracked.id for tracked in objects.next("objects").objects} == kept
        active = [query for query in system.client.list_queries().queries if query.state == QueryInfo.ACTIVE]
        assert [query.expression for query in active] == [EXPRESSION]
        following = _succeed(system, OTHER_EXPRESSION, [], replace=False)
    assert kept.isdisjoint(tracked.id for tracked in following.objects)


def test_goals_queue_and_can_be_cancelled_there(system: System) -> None:
    feedback: list[Feedback] = []
    with system.camera.filming():
        system.wait_for_mask()
        _succeed(system, EXPRESSION, [])
        goals: list[Goal] = [
            system.client.track(expression, replace=False, on_feedback=feedback.append)
            for expression in (EXPRESSION, OTHER_EXPRESSION)
        ]
        result = _cancelled_in_time(system, "")
        assert "cancelled" in result.message
        ended = [goal.wait() for goal in goals]
    assert [status for status, _ in ended] == [GoalStatus.STATUS_SUCCEEDED] * 2
    ids = [result.query_id for _, result in ended]
    assert ids[0] < ids[1]
    running = [each.query_id for each in feedback if each.state == Feedback.RUNNING]
    assert running == sorted(running), "one after the other"


def test_many_goals_at_once_all_come_to_an_end(system: System) -> None:
    with system.camera.filming():
        system.wait_for_mask()
        for _ in range(25):
            goals = [system.client.track(EXPRESSION, timeout_s=60.0) for _ in range(4)]
            for goal in reversed(goals):
                goal.cancel(60.0)
            assert {goal.wait()[0] for goal in goals} <= {GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_SUCCEEDED}
    assert "a callback failed" not in system.process.output()


def test_goal_that_cannot_be_met_tells_the_reason(system: System) -> None:
    status, result = system.client.track("").wait()
    assert (status, result.success, result.query_id) == (GoalStatus.STATUS_ABORTED, False, 0)
    assert "expression is empty" in result.message
    result = system.refused_before_any_frame(lambda: system.client.track(EXPRESSION).wait()[1])
    assert "no camera frame" in result.message
    assert "/image" in result.message, "the camera's topic is named"


def test_client_dies_while_its_goal_runs(system: System) -> None:
    with system.camera.filming():
        system.wait_for_mask()
        client = system.seen_running(lambda: subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.DEVNULL))
        client.kill()
        client.wait(timeout=30)
        wait_until(lambda: _states(system) == [QueryInfo.ACTIVE], "the goal to be met for nobody", 60.0)
        _succeed(system, EXPRESSION, [])
    system.require_good_answer()


def _states(system: System) -> list[int]:
    return [query.state for query in system.client.list_queries().queries]


def test_goals_in_the_states_of_the_node(ros: None, tmp_path: Path) -> None:
    process = NodeProcess("node", tmp_path / "node.log", {"autostart": False}, name="managed_node")
    try:
        with DecafClient("/managed_node", name="goal_giver") as client:
            wait_until(lambda: client.diagnostics("queries"), "the node to start", 60.0)
            system = System(process, client, Camera(client.node), Recorder(client, "~/mask", Image))
            for _ in range(2):  # the action comes and goes with the node's other interfaces
                assert client.change_state("configure"), process.output()
                status, result = client.track(EXPRESSION, timeout_s=60.0).wait()
                assert status == GoalStatus.STATUS_ABORTED
                assert "inactive: activate it" in result.message
                assert client.change_state("activate"), process.output()
                client.wait_until_ready()
                with system.camera.filming():
                    system.wait_for_mask("a mask before the goals")
                    goals = _give_goals(system)
                    assert client.change_state("deactivate"), process.output()
                    status, result = goals[-1].wait()
                assert status == GoalStatus.STATUS_ABORTED
                assert "deactivated or shut down" in result.message
                assert client.change_state("cleanup"), process.output()
                wait_until(
                    lambda: not client.node.count_publishers("/managed_node/track_by_language/_action/status"), "its end"
                )
            assert client.change_state("configure")
            assert client.change_state("activate")
            client.wait_until_ready()
            with system.camera.filming():
                system.wait_for_mask("a mask before the goals")
                _give_goals(system)
                assert process.stop() == 0, process.output()
    finally:
        assert process.stop() == 0, process.output()
    assert "Traceback" not in process.output(), process.output()


def _give_goals(system: System) -> list[Goal]:
    """Goals that take their time."""
    goals = [system.client.track(EXPRESSION, replace=False, timeout_s=60.0) for _ in range(6)]
    wait_until(lambda: len(system.client.list_queries().queries) >= len(goals), "the goals to queue")
    return goals
