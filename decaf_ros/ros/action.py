"""The node's action: a query with feedback, which can be cancelled."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import Any

from action_msgs.msg import GoalInfo
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import GoalEvent, RCLError, ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from decaf_ros.action import TrackByLanguage
from decaf_ros.ros import replies
from decaf_ros.ros.conversions import stamp_from_ns
from decaf_ros.ros.dispatcher import Dispatcher
from decaf_ros.ros.qos import SERVICE_QOS
from decaf_ros.session.jobs import Job, Look
from decaf_ros.session.stages import STAGES

# rclpy's own depth is 1: a status that comes while the last one is still being sent then fails, and takes its goal with it.
_STATUS_QOS = QoSProfile(depth=64, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TrackAction:
    """``~/track_by_language``. A goal is a query in the engine's queue; no thread waits for it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._goals: dict[bytes, _Goal] = {}
        _Server(
            dispatcher.node,
            TrackByLanguage,
            "~/track_by_language",
            self._execute,
            handle_accepted_callback=self._accept,
            cancel_callback=self._cancel,
            callback_group=MutuallyExclusiveCallbackGroup(),  # goals queue in the order they came
            goal_service_qos_profile=SERVICE_QOS,
            result_service_qos_profile=SERVICE_QOS,
            cancel_service_qos_profile=SERVICE_QOS,
            feedback_pub_qos_profile=SERVICE_QOS,
            status_pub_qos_profile=_STATUS_QOS,
        )

    def _accept(self, handle: ServerGoalHandle) -> None:
        self._goals[_key(handle)] = _Goal(handle, self._dispatcher)
        handle.execute()

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if (goal := self._goals.get(_key(handle))) is not None:
            goal.cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> TrackByLanguage.Result:
        goal, result = self._goals[_key(handle)], TrackByLanguage.Result()
        try:
            await self._dispatcher.answer(goal.request, result, replies.fill_query, replies.refuse_query)
        finally:
            del self._goals[_key(handle)]
        goal.end(result.success)
        return result


class _Server(ActionServer):
    """rclpy's, but that it cancels every goal that it is asked to cancel."""

    async def _execute_cancel_request(self, request_header_and_message: tuple[Any, Any]) -> None:
        """rclpy removes goals that have just ended from the very list that it walks along, and so skips those behind them."""
        header, request = request_header_and_message
        with self._lock:
            response = self._handle.process_cancel_request(request, self.action_type.Impl.CancelGoalService.Response)
        response.goals_canceling = [each for each in response.goals_canceling if self._cancels(each)]
        try:
            with self._lock:
                self._handle.send_cancel_response(header, response)
        except RCLError as error:
            self._node.get_logger().warning(f"whoever cancelled a goal was not answered: {error}")

    def _cancels(self, goal: GoalInfo) -> bool:
        """Whether it was not too late."""
        handle = self._goal_handles.get(bytes(goal.goal_id.uuid))
        if handle is None or self._cancel_callback(handle) != CancelResponse.ACCEPT:
            return False
        with contextlib.suppress(RCLError):
            handle._update_state(GoalEvent.CANCEL_GOAL)
            return True
        return False


class _Goal:
    """One goal, which is asked for when this is made. Thread-safe: the executor's threads and the worker use it."""

    def __init__(self, handle: ServerGoalHandle, dispatcher: Dispatcher) -> None:
        self._handle = handle
        self._engine = dispatcher.engine
        self._accepted = time.monotonic()
        self._query_id = 0
        self._cancelled = False
        self._lock = threading.Lock()
        self.request = dispatcher.ask(self._submit)

    def _submit(self) -> Job:
        with self._lock:  # so that the first stage is not told before the query is known to be queued
            job = self._engine.query(replies.query_request(self._handle.request), self._note_stage, self._note_look)
            self._query_id = job.query_id
            self._publish(TrackByLanguage.Feedback(state=TrackByLanguage.Feedback.QUEUED))
        return job

    def cancel(self) -> None:
        """Stop the work, at its next step."""
        self._cancelled = True
        self._engine.cancel(self._query_id)

    def end(self, success: bool) -> None:
        """Tell the client how the goal ended."""
        with contextlib.suppress(RCLError, InvalidHandle):  # when the node itself ends, its topics may be gone
            if success:
                self._handle.succeed()
            elif self._cancelled:
                self._await_cancellation()
                self._handle.canceled()
            else:
                self._handle.abort()

    def _await_cancellation(self) -> None:
        """rclpy asks whether a goal may be cancelled, and notes only then that it is to end so: a moment in another thread."""
        while self._handle.is_active and not self._handle.is_cancel_requested:
            time.sleep(0.001)

    def _note_stage(self, stage: str) -> None:
        """On the worker."""
        done = STAGES.index(stage)
        running = TrackByLanguage.Feedback(state=TrackByLanguage.Feedback.RUNNING, stage=stage, stage_number=done + 1)
        running.progress = done / len(STAGES)
        with self._lock:
            self._publish(running)

    def _note_look(self, look: Look) -> None:
        """On the worker."""
        waiting = TrackByLanguage.Feedback(state=TrackByLanguage.Feedback.WAITING)
        waiting.last_look, waiting.presence = stamp_from_ns(look.stamp_ns), look.presence
        with self._lock, contextlib.suppress(RCLError, InvalidHandle):  # nobody may want it any more
            self._publish(waiting)

    def _publish(self, feedback: TrackByLanguage.Feedback) -> None:
        feedback.query_id = self._query_id
        feedback.stage_count = len(STAGES)
        if feedback.state != feedback.WAITING:
            feedback.presence = math.nan
        feedback.elapsed_seconds = time.monotonic() - self._accepted
        self._handle.publish_feedback(feedback)


def _key(handle: ServerGoalHandle) -> bytes:
    return bytes(handle.goal_id.uuid)
