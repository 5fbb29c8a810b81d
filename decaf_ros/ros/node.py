"""decaf_node: camera images and sentences in, tracked masks and heat maps out. The wiring; the work is done elsewhere."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, TypeVar

import rclpy
import rclpy.task
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.datatypes import HeatMap, Segmentation
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.ros import replies
from decaf_ros.ros.conversions import frame_from_image
from decaf_ros.ros.diagnostics import CameraStatistics, NodeDiagnostics
from decaf_ros.ros.logs import forward_logs
from decaf_ros.ros.models import MODEL_PARAMETERS, Models
from decaf_ros.ros.parameters import (
    ParameterError,
    check_values,
    current_values,
    declare_parameters,
    settings_for,
    unknown_names,
)
from decaf_ros.ros.publishers import ResultPublisher
from decaf_ros.session.engine import Engine
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.session import NoFramesError, SessionError, TrackingSession
from decaf_ros.srv import ListQueries, Query, RemoveObject, RemoveQuery

T = TypeVar("T")

# Latest frame wins: a queue of images would only make masks late.
CAMERA_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_EXECUTOR_THREADS = 4
_WARNING_PERIOD_SECONDS = 5.0
_LAST_ANSWERS_SECONDS = 0.3


class DecafNode(Node):
    """Subscribes ``image``; offers ``~/query``, ``~/remove_object``, ``~/remove_query``, ``~/list_queries`` and ``~/reset``.

    Callbacks only store, ask and answer: frames are followed on the engine's live thread, queries run on its worker. Models are
    loaded on a thread of their own, so that the node answers from the start. Implements the engine's ``Listener``.

    Raises:
        ParameterError: a parameter was given a value that it cannot have.
    """

    def __init__(self) -> None:
        super().__init__("decaf_node")
        forward_logs(self.get_logger())
        values = declare_parameters(self)
        for name, meant in unknown_names(self._parameter_overrides).items():
            hint = f": did you mean {meant}?" if meant else ""
            self.get_logger().warning(f"there is no parameter {name}{hint}")
        # For the whole process: each of the two model threads may use so many. They must not fight over the same cores.
        torch.set_num_threads(int(values["cpu_threads"]) or max(1, (os.cpu_count() or 1) // 2))

        self._camera = CameraStatistics()
        self._models = Models()
        self._staged: dict[str, Any] = {}
        self._results = ResultPublisher(self)
        self._engine = Engine(TrackingSession(None, settings_for(SessionConfig, values)), None, self)
        self._create_interfaces()
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

    def _create_interfaces(self) -> None:
        images, services, timers = (MutuallyExclusiveCallbackGroup() for _ in range(3))
        self._images = self.create_subscription(Image, "image", self._on_image, CAMERA_QOS, callback_group=images)
        # Reentrant: a query that waits for its result must not keep the next one from queueing.
        self.create_service(Query, "~/query", self._on_query, callback_group=ReentrantCallbackGroup())
        self.create_service(RemoveObject, "~/remove_object", self._on_remove_object, callback_group=services)
        self.create_service(RemoveQuery, "~/remove_query", self._on_remove_query, callback_group=services)
        self.create_service(ListQueries, "~/list_queries", self._on_list_queries, callback_group=services)
        self.create_service(Trigger, "~/reset", self._on_reset, callback_group=services)
        self._diagnostics = NodeDiagnostics(self, self._camera, self._engine, self._models, self._images)
        self._diagnostics_topic = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._report, callback_group=timers)

    def start(self) -> None:
        """Start to follow frames, and to load the models."""
        self._engine.start()
        threading.Thread(target=self._load_models, name="decaf-loader", daemon=True).start()

    def stop(self) -> None:
        """Take no more images, give up running queries and stop the engine's threads."""
        self.destroy_subscription(self._images)
        self._engine.stop()

    # --- models and parameters ---

    def _load_models(self) -> None:
        self._models.load_all(current_values(self))
        self._use_models(MODEL_PARAMETERS)
        if not self._models.problems:
            self.get_logger().info("ready: both models are loaded")

    def _use_models(self, changed: Collection[str]) -> None:
        mllm, tracker = self._models.mllm, self._models.tracker
        if "tracker_model" in changed and tracker is not None:
            self._engine.session.set_tracker(tracker)
        if mllm is not None and tracker is not None:
            config = settings_for(GroundingConfig, current_values(self))
            self._engine.set_grounder(Grounder(mllm, tracker, config))

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Load models that are asked for anew before anything changes: when one cannot be had, the old one stays."""
        self._staged = {}
        changes = {parameter.name: parameter.value for parameter in parameters}
        values = current_values(self)
        asked = [name for name in MODEL_PARAMETERS if name in changes]
        needed = [name for name in asked if changes[name] != values[name] or name in self._models.problems]
        try:
            check_values(changes)
            self._staged = {name: self._models.load(name, values | changes) for name in needed}
        except (ModelNotFound, ValueError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        staged, self._staged = self._staged, {}
        self._models.adopt(staged)
        self._use_models(staged)

    # --- callbacks ---

    def _on_image(self, message: Image) -> None:
        self._camera.note_arrival()
        if self._models.tracker is not None:
            self._engine.submit(lambda: frame_from_image(message))

    async def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        arrived = time.monotonic()
        try:
            if self._models.problem:
                raise SessionError(self._models.problem)
            window_seconds = request.window_seconds if request.window_seconds != 0 else None
            result = await self._completed(self._engine.query(request.expression, window_seconds, request.replace))
        except NoFramesError as error:
            response.message = f"{error}: {self._diagnostics.camera_hint()}"
        except SessionError as error:
            response.message = str(error)
        else:
            replies.fill_query(response, result, total_ms=(time.monotonic() - arrived) * 1e3)
        return response

    async def _completed(self, job: Future[T]) -> T:
        """The result of another thread's work, without a thread of the executor waiting for it."""
        assert self.executor is not None, "callbacks run on an executor"
        executor = self.executor
        done: rclpy.task.Future[None] = rclpy.task.Future(executor=executor)

        def finish(_: Future[T]) -> None:
            done.set_result(None)
            executor.wake()  # it does not look at futures that other threads complete, until something happens

        job.add_done_callback(finish)
        await done
        return job.result()

    def _on_remove_object(self, request: RemoveObject.Request, response: RemoveObject.Response) -> RemoveObject.Response:
        try:
            self._engine.session.remove_object(request.object_id)
            response.success = True
        except SessionError as error:
            response.message = str(error)
        return response

    def _on_remove_query(self, request: RemoveQuery.Request, response: RemoveQuery.Response) -> RemoveQuery.Response:
        try:
            response.removed_object_ids = self._engine.remove_query(request.query_id)
            response.success = True
        except SessionError as error:
            response.message = str(error)
        return response

    def _on_list_queries(self, request: ListQueries.Request, response: ListQueries.Response) -> ListQueries.Response:
        response.queries = [replies.query_info(query) for query in self._engine.queries()]
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._engine.reset()
        response.success = True
        response.message = "all queries, objects and frames are forgotten"
        return response

    # --- results, on the engine's threads ---

    def on_segmentation(self, segmentation: Segmentation) -> None:
        """Publish the masks of a frame."""
        captions = {record.query_id: record.expression for record in self._engine.session.queries}
        self._results.publish_segmentation(segmentation, captions)
        self._camera.note_mask((self.get_clock().now().nanoseconds - segmentation.frame.stamp_ns) * 1e-6)

    def on_heat_map(self, heat: HeatMap) -> None:
        """Publish a heat map."""
        self._results.publish_heat_map(heat)

    def on_rejected_frame(self, reason: str) -> None:
        """Count the frame, and warn now and then."""
        self._camera.note_rejection(reason)
        self.get_logger().warning(f"frame rejected: {reason}", throttle_duration_sec=_WARNING_PERIOD_SECONDS)

    def _report(self) -> None:
        self._diagnostics_topic.publish(self._diagnostics.message())
        if problem := self._diagnostics.camera_problem():
            self.get_logger().warning(problem, throttle_duration_sec=_WARNING_PERIOD_SECONDS)


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    # rclpy's own handlers end the ROS context at once, under the hands of threads that publish.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    try:
        node = DecafNode()
    except ParameterError as error:
        rclpy.logging.get_logger("decaf_node").fatal(str(error))
        raise SystemExit(1) from error
    executor = MultiThreadedExecutor(num_threads=_EXECUTOR_THREADS)
    executor.add_node(node)
    node.start()
    try:
        _spin(executor, node, interrupted.is_set)
    finally:
        node.stop()
        deadline = time.monotonic() + _LAST_ANSWERS_SECONDS
        _spin(executor, node, lambda: time.monotonic() > deadline)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: MultiThreadedExecutor, node: Node, until: Callable[[], bool]) -> None:
    """Run callbacks until a condition holds. An error in one, such as a client that went away, ends only that one."""
    while not until():
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            return
        except Exception as error:
            node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
