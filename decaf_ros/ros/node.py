"""decaf_node: camera images and sentences in, tracked masks and heat maps out. The wiring; the work is done elsewhere."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import cv2
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.action.server import RCLError
from rclpy.callback_groups import CallbackGroup, ReentrantCallbackGroup
from rclpy.clock import ROSClock
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.datatypes import HeatMap, Segmentation, TrackEvent
from decaf_ros.models.devices import resolve_device
from decaf_ros.models.errors import ModelNotFound, NoBoxesError
from decaf_ros.ros import vision
from decaf_ros.ros.action import TrackAction
from decaf_ros.ros.arguments import check_arguments
from decaf_ros.ros.camera import Camera
from decaf_ros.ros.depth import DepthCamera
from decaf_ros.ros.diagnostics import Health, NodeDiagnostics
from decaf_ros.ros.dispatcher import Dispatcher
from decaf_ros.ros.ending import Ending
from decaf_ros.ros.entities import EntityGroup, IndependentCallbackGroup
from decaf_ros.ros.executor import CameraFirstExecutor
from decaf_ros.ros.images import ImageInput
from decaf_ros.ros.logs import forward_logs
from decaf_ros.ros.models import MODEL_PARAMETERS, LoadedModel, Models
from decaf_ros.ros.objects_3d import SpacePublisher
from decaf_ros.ros.painter import Painter
from decaf_ros.ros.parameter_services import LimitedParameterService
from decaf_ros.ros.parameters import (
    ParameterError,
    Value,
    check_values,
    current_values,
    declare_parameters,
    settings_for,
    unknown_parameters,
)
from decaf_ros.ros.publishers import QueryHeatMaps, ResultPublisher, publish_asynchronously
from decaf_ros.ros.services import Services
from decaf_ros.ros.shared_memory import shared_memory_problem
from decaf_ros.ros.startup import REFUSALS, refusal, start_ros
from decaf_ros.ros.statistics import CameraStatistics
from decaf_ros.session.attention import MllmAttention
from decaf_ros.session.engine import Engine
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.session import TrackingSession
from decaf_ros.session.tasks.task import Activity
from decaf_ros.text import brief, with_kind

_CALLBACK_THREADS = 4
_WARNING_PERIOD_SECONDS = 5.0
_LAST_ANSWERS_SECONDS = 1.0
_LAST_MESSAGES_SECONDS = 0.3
_WAY_OUT = {
    "unconfigured": "configure and activate it with ros2 lifecycle set",
    "inactive": "activate it with ros2 lifecycle set",
    "finalized": "start it anew",
}
_STATES_TO_LEAVE = ("unconfigured", "inactive", "active", "finalized")


class DecafNode(LifecycleNodeMixin, Node):
    """A lifecycle node. Diagnostics and parameters are there from the start; what the states add:

    - inactive: publishers and services, which answer why nothing happens;
    - active: models on their device, the engine's threads, and the camera's topic, subscribed.

    Loading is a part of activation, so that *active* means ready. It blocks no other callback: while the state is *activating*,
    services and diagnostics answer. A model that cannot be had makes activation fail, with the reason in the log and in
    diagnostics; with ``autostart`` the node becomes active all the same and waits for the parameter that repairs it.

    Callbacks only store, ask and answer: frames are followed on the engine's live thread, queries run on its worker. Engine and
    session live as long as the node, so that ids are never used twice. Implements the engine's ``Listener``.

    Raises:
        ParameterError: a parameter was given a value that it cannot have.
    """

    def __init__(self) -> None:
        self._group_of_rclpy = IndependentCallbackGroup()
        Node.__init__(self, "decaf_node", start_parameter_services=False)
        self._parameter_services = LimitedParameterService(self)
        # Reentrant: the state can be asked for during a transition. (The state machine allows one transition at a time.)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._setting = threading.RLock()
        forward_logs(self.get_logger())
        values = declare_parameters(self)
        for problem in unknown_parameters(self._parameter_overrides):
            self.get_logger().warning(problem)
        # For the whole process: each of the two model threads may use so many. They must not fight over the same cores.
        torch.set_num_threads(int(values["cpu_threads"]) or max(1, (os.cpu_count() or 1) // 2))

        self.models = Models()
        self._failure = ""
        self._following = False
        self._space: SpacePublisher | None = None
        self._staged: dict[str, LoadedModel] = {}
        self._engine = Engine(TrackingSession(None, settings_for(SessionConfig, values)), None, self)
        self._statistics = CameraStatistics(cast(ROSClock, self.get_clock()))
        self._depth = DepthCamera(self) if values["depth"] else None
        images = ImageInput(self, str(values["image_transport"]), int(values["max_image_pixels"]))
        self._camera = Camera(self, images, self._engine, self._statistics, self._depth)
        self._interfaces = EntityGroup(self)
        self._painter = Painter()
        self._dispatcher = Dispatcher(self, self._engine, lambda: self.health().problem, self._camera.hint)
        self._query_heat_maps = QueryHeatMaps(self, self._asked_queries)
        NodeDiagnostics(
            self, self.health, self.activity, self._camera, self._statistics, self._engine, self._painter, self._depth
        )
        self.add_on_set_parameters_callback(self._check_parameters)
        if hasattr(self, "add_post_set_parameters_callback"):  # since Iron
            self.add_post_set_parameters_callback(self._apply_parameters)

    # --- states ---

    def state(self) -> str:
        """Lifecycle state: "unconfigured", "inactive", "active", "finalized", or that of a transition, such as "activating"."""
        return self._state_machine.current_state[1]

    def health(self) -> Health:
        """Whether queries can be answered now, and if not, why."""
        state = self.state()
        if state == "active":
            return Health(state, self.models.problem, DiagnosticStatus.ERROR)
        if state == "activating" and self.models.problem:
            return Health(state, self.models.problem, DiagnosticStatus.ERROR)
        problem = f"{self.get_fully_qualified_name()} is {state}: {_WAY_OUT.get(state, 'try again in a moment')}"
        if self._failure:
            return Health(state, f"{problem}; {self._failure}", DiagnosticStatus.ERROR)
        return Health(state, problem, DiagnosticStatus.WARN)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the device; offer publishers and services."""
        return self._attempt(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the models, then listen to the camera."""
        return self._attempt(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop following, forget objects and queries, and free the models' memory."""
        self.models.give_up_loading("the node is being deactivated")  # for a parameter that is being changed
        return self._attempt(self._release)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Remove publishers and services."""
        return self._attempt(self._withdraw)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what there is. Publishers and services stay until the node goes, for answers that are on their way."""
        self.models.give_up_loading("the node is shutting down")
        return self._attempt(self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to the beginning."""
        return self._attempt(self._withdraw)

    def _attempt(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        """A failure leads back to the state before, any other error to error processing; rclpy would drop the cause of both."""
        try:
            with self.models.turn:
                step()
        except (ModelNotFound, ValueError) as error:
            return self._note_failure(brief(error), TransitionCallbackReturn.FAILURE)
        except Exception as error:
            return self._note_failure(with_kind(error), TransitionCallbackReturn.ERROR)
        return TransitionCallbackReturn.SUCCESS

    def _note_failure(self, cause: str, outcome: TransitionCallbackReturn) -> TransitionCallbackReturn:
        self._failure = f"{self.state()} failed: {cause}"
        self.get_logger().error(self._failure)
        return outcome

    def _configure(self) -> None:
        self._failure = ""
        resolve_device(str(self.get_parameter("device").value))
        with self._interfaces.collecting():
            self._results = ResultPublisher(self, self._painter)
            self._space = SpacePublisher(self, self._depth) if self._depth else None
            self._vision = vision.VisionPublisher(self) if vision.INSTALLED else None
            Services(self._dispatcher)
            TrackAction(self._dispatcher)

    def _activate(self) -> None:
        self._failure = ""
        self.models.load_all(current_values(self))
        problem = self.models.problem
        if problem and not self.get_parameter("autostart").value:
            self.models.release()
            raise ModelNotFound(problem)
        with contextlib.ExitStack() as undo:
            undo.callback(self._release)
            self._following = True  # whoever changes a parameter from now on waits, and applies it then
            values = current_values(self)
            self._results.jpeg_quality = int(values["jpeg_quality"])
            self._use_models(MODEL_PARAMETERS, values)
            self._painter.start()
            self._engine.start()
            self._camera.subscribe()
            undo.pop_all()
        if not problem:
            self.get_logger().info("ready: both models are loaded")
        try:
            self._require_boxes(values, {})
        except NoBoxesError as error:
            self.get_logger().error(f"queries will be refused: {error}")

    def _release(self) -> None:
        self._following = False
        self._camera.unsubscribe()
        self._engine.stop()
        self._painter.close()
        if self._space is not None:
            self._space.forget()
        self._query_heat_maps.update()
        self._engine.set_grounder(None)
        self._engine.session.set_tracker(None)
        self.models.release()

    def _withdraw(self) -> None:
        self._release()
        self._interfaces.destroy()

    def activity(self) -> Activity:
        """What the worker is at, or, when it has nothing to do, which model is being loaded."""
        activity, loading = self._engine.activity, self.models.loading
        return activity if loading is None or activity.stage != "idle" else Activity(f"loading {loading[0]}", loading[1])

    def whereabouts(self) -> str:
        """What the node and its worker are at, in a line."""
        activity = self.activity()
        whose = f" of query {activity.query_id}" if activity.query_id else ""
        since = f" for {time.monotonic() - activity.since:.1f} s" if activity.stage != "idle" else ""
        return f"the state is {self.state()}, the worker's stage: {activity.stage}{whose}{since}"

    @property
    def has_unanswered(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._dispatcher.unanswered)

    # --- models and parameters ---

    @property
    def default_callback_group(self) -> CallbackGroup:
        """Of what rclpy itself creates: /clock, and whoever reads parameters, do not wait while a change loads a model."""
        return self._group_of_rclpy

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """As rclpy's, one change at a time, whichever service it comes from; a parameter that is none is named."""
        unknown = unknown_parameters(each.name for each in parameter_list if not self.has_parameter(each.name))
        if unknown:
            return SetParametersResult(successful=False, reason="; ".join(unknown))
        with self._setting:
            return super().set_parameters_atomically(parameter_list)

    def _use_models(self, changed: Collection[str], values: dict[str, Value]) -> None:
        mllm, tracker = self.models.mllm, self.models.tracker
        if "tracker_model" in changed and tracker is not None:
            self._engine.session.set_tracker(tracker)
        if mllm is not None and tracker is not None:
            config = settings_for(GroundingConfig, values)
            self._engine.set_grounder(Grounder(MllmAttention(mllm, config), tracker, config))

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Load models that are asked for anew before anything changes: when one cannot be had, the old one stays."""
        changes = {parameter.name: parameter.value for parameter in parameters}
        try:
            check_values(current_values(self) | changes)
            staged = self._stage_models(changes)
            if "grounder" in changes or "mllm_model" in changes:
                self._require_boxes(current_values(self) | changes, staged)
            self._staged = staged
        except (ModelNotFound, ValueError) as error:
            return SetParametersResult(successful=False, reason=brief(error))
        if not hasattr(self, "add_post_set_parameters_callback"):
            self._apply_parameters(parameters)
        return SetParametersResult(successful=True)

    def _require_boxes(self, values: Mapping[str, Value], staged: Mapping[str, LoadedModel]) -> None:
        """Raise ``NoBoxesError`` if boxes are to be asked for of a language model that was not taught to answer with any."""
        mllm = staged["mllm_model"].model if "mllm_model" in staged else self.models.mllm
        if mllm is not None and values["grounder"] != "decaf":
            mllm.box_format()

    def _stage_models(self, changes: dict[str, Any]) -> dict[str, LoadedModel]:
        """Models in use that are made from a parameter that changes, and those missing that are asked for again."""
        if not any(each in changes for inputs in MODEL_PARAMETERS.values() for each in inputs):
            return {}
        with self.models.turn:
            values = current_values(self)
            needed = [
                name
                for name, inputs in MODEL_PARAMETERS.items()
                if any(each in changes and (changes[each] != values[each] or name in self.models.problems) for each in inputs)
            ]
            return {name: self.models.load(name, values | changes) for name in needed if self._following}

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        values = current_values(self) | {each.name: each.value for each in parameters}
        staged, self._staged = self._staged, {}
        self._engine.session.config = settings_for(SessionConfig, values)
        if self._following:  # else activation will read the values
            with self.models.turn:
                if self._following:
                    self._results.jpeg_quality = int(values["jpeg_quality"])
                    self.models.adopt(staged)
                    self._use_models(staged, values)

    # --- results, on the engine's threads ---

    def on_segmentation(self, segmentation: Segmentation) -> None:
        """Publish the masks of a frame."""
        queries = self._engine.session.queries
        captions = {record.query_id: record.expression or record.object_name for record in queries}
        self._results.publish_segmentation(segmentation, captions)
        self._query_heat_maps.update()
        self._statistics.note_mask(segmentation.frame.stamp_ns)
        for more in (self._space, self._vision):
            if more is not None:
                more.publish(segmentation)

    def on_heat_map(self, heat: HeatMap) -> None:
        """Publish a heat map of a query, and that of the newest query under its own name as well."""
        self._query_heat_maps.update()
        self._query_heat_maps.publish(heat, self._results.jpeg_quality)
        if heat.query_id == max(self._asked_queries(), default=0):
            self._results.publish_heat_map(heat)

    def on_events(self, events: Sequence[TrackEvent]) -> None:
        """Publish what happened to objects."""
        self._results.publish_events(events)
        self._query_heat_maps.update()

    def _asked_queries(self) -> list[int]:
        """Ids of the active queries that heat maps can be made of."""
        return [record.query_id for record in self._engine.session.queries if record.expression]

    def on_rejected_frame(self, reason: str) -> None:
        """Count the frame, and warn now and then."""
        self._statistics.note_rejection(reason)
        self.get_logger().warning(f"frame rejected: {reason}", throttle_duration_sec=_WARNING_PERIOD_SECONDS)


def main(args: list[str] | None = None, ending: Ending | None = None) -> None:
    """Run the node until it is interrupted, and end the process."""
    ending = ending or Ending("decaf_node")
    ending.expendable = False
    words = check_arguments("decaf_node", "Tracks what a sentence refers to.", "docs/parameters.md and docs/topics.md", args)
    publish_asynchronously()
    shortage = shared_memory_problem()
    cv2.setNumThreads(1)  # images are drawn and encoded beside the models, which have all cores
    # rclpy's own handlers end the ROS context at once, under the hands of threads that publish.
    start_ros("decaf_node", words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = DecafNode()
    except (ParameterError, ParameterException) as error:  # the latter of those that are ROS's own, such as use_sim_time
        rclpy.logging.get_logger("decaf_node").fatal(brief(error))
        raise SystemExit(1) from error
    except REFUSALS as error:
        rclpy.logging.get_logger("decaf_node").fatal(refusal(error))
        raise SystemExit(1) from error
    if shortage:
        node.get_logger().warning(shortage)
    run(node, ending)


def run(node: DecafNode, ending: Ending) -> None:
    """Run a node until the process is to end, and end the process, with status 0 if all went well."""
    ending.whereabouts = node.whereabouts
    ending.stage = "running"
    executor = CameraFirstExecutor(_CALLBACK_THREADS)
    executor.add_node(node)
    if node.get_parameter("autostart").value and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
        executor.create_task(node.trigger_activate)
    try:
        _spin(executor, node, ending.asked.is_set)
    finally:
        ending.begin("the end of the ROS context")  # if it was not a signal
        _end(executor, node, ending)
    # Python would take seconds to clear what torch brought along, while launch waits for 5 before it kills; and a thread that
    # still reads a model, which nobody can stop, would crash on the way.
    sys.stdout.flush()
    os._exit(0)


def _end(executor: CameraFirstExecutor, node: DecafNode, ending: Ending) -> None:
    """Leave whatever state the node is in, and answer who still waits."""
    node.get_logger().info(f"ending, from the state {node.state()}")
    node.models.interrupt()
    for _ in range(2):  # a second time for a transition that begins in the very moment between
        ending.stage = "waiting for a transition to come to its end"
        _spin(executor, node, lambda: node.state() in _STATES_TO_LEAVE)
        if node.state() != "finalized":
            ending.stage = "stopping its threads"
            with contextlib.suppress(RCLError):
                node.trigger_shutdown()
    ending.stage = "answering who still waits"
    _spin(executor, node, lambda: not node.has_unanswered, _LAST_ANSWERS_SECONDS)
    _spin(executor, node, lambda: False, _LAST_MESSAGES_SECONDS)  # results of goals follow their answers, and DDS sends
    ending.stage = "waiting for callbacks that run"
    executor.shutdown()
    ending.stage = "leaving ROS"
    node.destroy_node()
    rclpy.try_shutdown()


def _spin(executor: CameraFirstExecutor, node: Node, until: Callable[[], bool], seconds: float = math.inf) -> None:
    """Run callbacks until a condition holds, or for so long. An error in one, as of a client that went away, ends that one."""
    start = time.monotonic()
    while not until() and time.monotonic() - start < seconds:
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            return
        except Exception as error:
            node.get_logger().error(f"a callback failed: {with_kind(error)}")


if __name__ == "__main__":
    main()
