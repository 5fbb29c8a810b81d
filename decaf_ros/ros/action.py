"""The node's action: a query with feedback, which can be cancelled."""

from __future__ import annotations

import threading
import time

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from decaf_ros.action import TrackByLanguage
from decaf_ros.ros import replies
from decaf_ros.ros.dispatcher import Dispatcher
from decaf_ros.session.engine import Engine, Job
from decaf_ros.session.grounding import STAGES


class TrackAction:
    """``~/track_by_language``. A goal is a query in the engine's queue; no thread waits for it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._goals: dict[bytes, _Goal] = {}
        ActionServer(
            dispatcher.node,
            TrackByLanguage,
            "~/track_by_language",
            self._execute,
            handle_accepted_callback=self._accept,
            cancel_callback=self._cancel,
            callback_group=MutuallyExclusiveCallbackGroup(),  # goals are accepted in the order they came
        )

    def _accept(self, handle: ServerGoalHandle) -> None:
        self._goals[_key(handle)] = _Goal(handle, self._dispatcher.engine)
        handle.execute()

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if (goal := self._goals.get(_key(handle))) is not None:
            goal.cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> TrackByLanguage.Result:
        goal, result = self._goals[_key(handle)], TrackByLanguage.Result()
        try:
            await self._dispatcher.answer(result, goal.submit, replies.fill_query)
        finally:
            del self._goals[_key(handle)]
        goal.end(result.success)
        return result


class _Goal:
    """One goal, from its acceptance to its end. Thread-safe: the executor's threads and the worker use it."""

    def __init__(self, handle: ServerGoalHandle, engine: Engine) -> None:
        self._handle = handle
        self._engine = engine
        self._accepted = time.monotonic()
        self._job: Job | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    def submit(self) -> Job:
        """Queue the query; raises ``SessionError`` when the engine refuses it."""
        asked = self._handle.request
        with self._lock:  # so that the first stage is not told before the query is known to be queued
            job = self._engine.query(asked.expression, asked.window_seconds or None, asked.replace, self._note_stage)
            self._job = job
            self._publish(TrackByLanguage.Feedback(state=TrackByLanguage.Feedback.QUEUED))
        if self._cancelled:
            self._engine.cancel(job.query_id)
        return job

    def cancel(self) -> None:
        """Stop the work, now or as soon as it is queued."""
        self._cancelled = True
        if (job := self._job) is not None:
            self._engine.cancel(job.query_id)

    def end(self, success: bool) -> None:
        """Tell the client how the goal ended."""
        if success:
            self._handle.succeed()
        elif self._cancelled:
            # rclpy first asks whether the goal may be cancelled, and only then lets it end so.
            while self._handle.is_active and not self._handle.is_cancel_requested:
                time.sleep(0.001)
            self._handle.canceled()
        else:
            self._handle.abort()

    def _note_stage(self, stage: str) -> None:
        """On the worker."""
        with self._lock:
            number = STAGES.index(stage) + 1
            running = TrackByLanguage.Feedback.RUNNING
            self._publish(
                TrackByLanguage.Feedback(state=running, stage=stage, stage_number=number, progress=(number - 1) / len(STAGES))
            )

    def _publish(self, feedback: TrackByLanguage.Feedback) -> None:
        assert self._job is not None
        feedback.query_id = self._job.query_id
        feedback.stage_count = len(STAGES)
        feedback.elapsed_seconds = time.monotonic() - self._accepted
        self._handle.publish_feedback(feedback)


def _key(handle: ServerGoalHandle) -> bytes:
    return bytes(handle.goal_id.uuid)
