"""A client of decaf_node for programs and tests: service calls that wait, goals, topics, parameters, states and diagnostics."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import rclpy
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future
from std_srvs.srv import Trigger

from decaf_ros.action import TrackByLanguage
from decaf_ros.ros.qos import SERVICE_QOS
from decaf_ros.srv import AddObject, ListQueries, Query, RemoveObject, RemoveQuery, RerunQuery

MessageT = TypeVar("MessageT")

_SERVICES = {
    "query": Query,
    "rerun_query": RerunQuery,
    "add_object": AddObject,
    "remove_object": RemoveObject,
    "remove_query": RemoveQuery,
    "list_queries": ListQueries,
    "reset": Trigger,
}
PARTS = ("camera", "tracking", "queries", "depth")  # of the node, each with its own diagnostics
_LOOK_SECONDS = 0.5
# Made when they are first called: in an enclave, a client that only asks may not make them.
_MANAGEMENT_SERVICES = {"change_state": ChangeState, "get_state": GetState}


class DecafClient:
    """A node with a spinning thread of its own. Its methods may be called from any other thread, and block.

    ``rclpy.init`` comes first. Use it as a context manager, or call :meth:`close`.

    Args:
        target: name of the node to talk to, in this one's namespace unless it starts with /.
        name: of this node.
    """

    def __init__(self, target: str = "/decaf_node", name: str = "decaf_client") -> None:
        self.node = rclpy.create_node(name)
        self.target: str = self.node.resolve_topic_name(target)
        self._clients: dict[str, Client[Any, Any]] = {
            service: self._make_client(service, kind) for service, kind in _SERVICES.items()
        }
        self._clients_lock = threading.Lock()
        self._tracking = _TrackingClient(
            self.node,
            TrackByLanguage,
            f"{self.target}/track_by_language",
            goal_service_qos_profile=SERVICE_QOS,
            result_service_qos_profile=SERVICE_QOS,
            cancel_service_qos_profile=SERVICE_QOS,
            feedback_sub_qos_profile=SERVICE_QOS,
        )
        self._diagnostics: dict[str, tuple[float, DiagnosticStatus]] = {}
        self.subscribe("/diagnostics", DiagnosticArray, self._note_diagnostics)
        self._closed = False
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="decaf-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> DecafClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and remove the node, if that was not done before."""
        if self._closed:
            return
        self._closed = True
        self._executor.shutdown()
        self._thread.join()
        self._tracking.destroy()
        self.node.destroy_node()

    def subscribe(self, topic: str, kind: type[MessageT], callback: Callable[[MessageT], None], depth: int = 50) -> Listening:
        """Call back with every message of a topic, on the client's thread; ``~`` stands for the target node.

        What goes wrong in the callback is logged, and the client goes on.
        """
        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        subscription = self.node.create_subscription(kind, topic.replace("~", self.target, 1), callback, qos)
        return Listening(self, subscription)

    def run(self, work: Callable[[], Any]) -> Future[Any]:
        """Have the client's thread call a function, or run a coroutine; see :meth:`wait_for`."""
        return self._executor.create_task(work)

    def query(
        self,
        expression: str,
        *,
        window_seconds: float = 0.0,
        replace: bool = True,
        accept_doubtful: bool = False,
        grounder: str = "",
        wait_seconds: float = 0.0,
        timeout_s: float = 120.0,
    ) -> Query.Response:
        """Ask for what an expression refers to, and wait for the answer; a failure is told in the answer.

        Args:
            expression, window_seconds, replace, accept_doubtful, grounder, wait_seconds: see Query.
            timeout_s: for the answer, beside ``wait_seconds``.

        Raises:
            TimeoutError: no answer came.
        """
        request = Query.Request(
            expression=expression,
            window_seconds=window_seconds,
            replace=replace,
            accept_doubtful=accept_doubtful,
            grounder=grounder,
            wait_seconds=wait_seconds,
        )
        return self.call("query", request, timeout_s + wait_seconds)

    def track(
        self,
        expression: str,
        *,
        window_seconds: float = 0.0,
        replace: bool = True,
        accept_doubtful: bool = False,
        grounder: str = "",
        wait_seconds: float = 0.0,
        on_feedback: Callable[[TrackByLanguage.Feedback], None] = lambda feedback: None,
        timeout_s: float = 10.0,
    ) -> Goal:
        """Ask as :meth:`query` does, but as a goal, which tells how far it is, and can be cancelled.

        Args:
            expression, window_seconds, replace, accept_doubtful, grounder, wait_seconds: see TrackByLanguage.
            on_feedback: called on the client's thread as in :meth:`subscribe`; not for feedback that the result has overtaken.
            timeout_s: for the goal to be accepted.

        Raises:
            TimeoutError: there is no such action, or the goal was not accepted in time.
        """
        if not self._tracking.wait_for_server(timeout_s):
            raise TimeoutError(f"there is no action {self.target}/track_by_language: is the node running, and configured?")
        request = TrackByLanguage.Goal(
            expression=expression,
            window_seconds=window_seconds,
            replace=replace,
            accept_doubtful=accept_doubtful,
            grounder=grounder,
            wait_seconds=wait_seconds,
        )
        goal_id = self._tracking.new_goal_id()

        async def send() -> tuple[ClientGoalHandle[Any, Any, Any], Future[Any]]:
            handle = await self._tracking.send_goal_async(request, lambda message: on_feedback(message.feedback), goal_id)
            assert handle is not None
            return handle, handle.get_result_async()

        # rclpy's action client loses answers that come while another thread sends.
        sending = self.run(send)
        try:
            handle, response = self.wait_for(sending, timeout_s, self._tracking.server_is_ready)
        except TimeoutError:
            self.run(lambda: self._tracking.forget(goal_id))
            self.run(sending.cancel)
            raise
        return Goal(self, handle, response, self._tracking.server_is_ready)

    def rerun_query(self, query_id: int, timeout_s: float = 120.0) -> RerunQuery.Response:
        """Ask a query again, and wait for the answer; its objects keep their ids."""
        return self.call("rerun_query", RerunQuery.Request(query_id=query_id), timeout_s)

    def add_object(self, timeout_s: float = 120.0, **prompt: Any) -> AddObject.Response:
        """Point out an object by the fields of AddObject's request, and wait until it is tracked."""
        return self.call("add_object", AddObject.Request(**prompt), timeout_s)

    def remove_object(self, object_id: int) -> RemoveObject.Response:
        """Stop tracking an object."""
        return self.call("remove_object", RemoveObject.Request(object_id=object_id))

    def remove_query(self, query_id: int) -> RemoveQuery.Response:
        """Forget a query, or cancel it."""
        return self.call("remove_query", RemoveQuery.Request(query_id=query_id))

    def list_queries(self) -> ListQueries.Response:
        """All queries that the node knows."""
        return self.call("list_queries", ListQueries.Request())

    def reset(self) -> Trigger.Response:
        """Forget everything."""
        return self.call("reset", Trigger.Request())

    def state(self) -> str:
        """Lifecycle state of the target, such as "inactive"."""
        return str(self.call("get_state", GetState.Request()).current_state.label)

    def change_state(self, transition: str, timeout_s: float = 120.0) -> bool:
        """Take the target through "configure", "activate", "deactivate", "cleanup" or "shutdown".

        Returns:
            Whether it went; if not, diagnostics and the target's log tell the reason.

        Raises:
            TimeoutError: no answer came.
        """
        request = ChangeState.Request(transition=Transition(label=transition))
        return bool(self.call("change_state", request, timeout_s).success)

    def call(self, service: str, request: Any, timeout_s: float = 10.0) -> Any:
        """Call one of the node's services and wait.

        Raises:
            TimeoutError: the service is not there, goes away, or does not answer.
        """
        client = self._service(service, timeout_s)
        future = client.call_async(request)
        try:
            return self.wait_for(future, timeout_s, client.service_is_ready)
        except TimeoutError:
            future.cancel()  # rclpy would keep the request for ever
            raise

    def call_async(self, service: str, request: Any, timeout_s: float = 10.0) -> Future[Any]:
        """Call a service without waiting for the answer, only for the service to be there; see :meth:`wait_for`.

        Whoever waits no more cancels the future, which is else kept until the answer comes.
        """
        return self._service(service, timeout_s).call_async(request)

    def _service(self, service: str, timeout_s: float) -> Client[Any, Any]:
        with self._clients_lock:
            if service not in self._clients:
                known = {**_SERVICES, **_MANAGEMENT_SERVICES}
                if service not in known:
                    raise ValueError(f"decaf_node has no service {service!r}; it has {', '.join(sorted(known))}")
                self._clients[service] = self._make_client(service, known[service])
            client = self._clients[service]
        if not client.wait_for_service(timeout_s):
            raise TimeoutError(f"there is no service {client.srv_name}: is the node running, with the same ROS_DOMAIN_ID?")
        return client

    def wait_for(self, future: Future[Any], timeout_s: float, is_there: Callable[[], bool] = lambda: True) -> Any:
        """The result of a future that the client's thread completes.

        Args:
            future: of a call, say.
            timeout_s: how long to wait.
            is_there: whether who is to answer still is; asked now and then.

        Raises:
            TimeoutError: it was not completed in time, or will not be.
        """
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        deadline = time.monotonic() + timeout_s
        while not done.wait(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{self.target} did not answer within {timeout_s:g} s")
            if not is_there() and not done.wait(_LOOK_SECONDS):  # its last answer may be on its way
                raise TimeoutError(f"{self.target} went away before it answered")
        if future.cancelled():
            raise TimeoutError(f"nobody waits for this answer of {self.target} any more")
        return future.result()

    def set_parameter(self, name: str, value: Any, node: str = "", timeout_s: float = 60.0) -> tuple[bool, str]:
        """Set a parameter of the target, or of another node by full name.

        Returns:
            Whether it was set, and if not, the reason.

        Raises:
            TimeoutError: no answer came.
        """
        client: Client[Any, Any] = self.node.create_client(
            SetParameters, f"{node or self.target}/set_parameters", qos_profile=SERVICE_QOS
        )
        try:
            if not client.wait_for_service(timeout_s):
                raise TimeoutError(f"there is no service {client.srv_name}")
            request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
            result = self.wait_for(client.call_async(request), timeout_s).results[0]
            return result.successful, result.reason
        finally:
            self.node.destroy_client(client)

    def diagnostics(self, part: str, max_age_s: float = math.inf) -> DiagnosticStatus | None:
        """The newest status of one of the ``PARTS`` of the node; ``None`` before the first.

        Args:
            part: of the node.
            max_age_s: a status that came longer ago counts as none. The node sends one a second.
        """
        arrived_s, status = self._diagnostics.get(f"{self.target}: {part}", (-math.inf, None))
        return status if time.monotonic() - arrived_s <= max_age_s else None

    def diagnostic_values(self, part: str) -> dict[str, str]:
        """The figures of :meth:`diagnostics`, by name; empty before the first."""
        found = self.diagnostics(part)
        return {pair.key: pair.value for pair in found.values} if found else {}

    def wait_until_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until the node is active and has loaded both models, by what it says from now on.

        Raises:
            TimeoutError: it has not; the message tells what diagnostics say.
        """
        began = time.monotonic()
        while time.monotonic() < began + timeout_s:
            status = self.diagnostics("queries", max_age_s=time.monotonic() - began)
            if status is not None and status.level == DiagnosticStatus.OK:
                return
            time.sleep(0.1)
        status = self.diagnostics("queries", max_age_s=timeout_s)
        raise TimeoutError(f"{self.target} is not ready: {status.message if status else 'it sends no diagnostics'}")

    def _make_client(self, service: str, kind: type[Any]) -> Client[Any, Any]:
        return self.node.create_client(kind, f"{self.target}/{service}", qos_profile=SERVICE_QOS)

    def _note_diagnostics(self, message: DiagnosticArray) -> None:
        """Of the target alone: others send theirs to the same topic, under any number of names."""
        now = time.monotonic()
        mine = {f"{self.target}: {part}" for part in PARTS}
        self._diagnostics.update({status.name: (now, status) for status in message.status if status.name in mine})

    def _spin(self) -> None:
        """Whatever a callback raises, the next one is called: else every later call would blame the node for its silence."""
        while not self._closed:
            try:
                self._executor.spin()
                return
            except ExternalShutdownException:
                return
            except Exception as error:
                if self._closed:  # rclpy's own, about what was destroyed
                    return
                self.node.get_logger().error(f"a callback failed: {''.join(traceback.format_exception(error))}")


class _TrackingClient(ActionClient[Any, Any, Any]):
    """rclpy's, but that nothing is kept of goals that nobody waits for. For one thread."""

    def new_goal_id(self) -> Any:
        """For ``send_goal_async``."""
        return self._generate_random_uuid()

    def send_goal_async(self, goal: Any, feedback_callback: Any = None, goal_uuid: Any = None) -> Future[Any]:
        count = len(self._futures)
        accepted: Future[Any] = super().send_goal_async(goal, feedback_callback, goal_uuid)
        for future in self._futures[count:]:  # rclpy makes two, and only one of them ever ends
            if future is not accepted:
                self.remove_future(future)
        return accepted

    def forget(self, goal_id: Any) -> None:
        """Wait no longer for a goal to be accepted."""
        for number, known in list(self._goal_sequence_number_to_goal_id.items()):
            if known == goal_id:
                self._pending_goal_requests[number].cancel()
        self._feedback_callbacks.pop(bytes(goal_id.uuid), None)


class Listening:
    """A subscription of a client; see :meth:`DecafClient.subscribe`."""

    def __init__(self, client: DecafClient, subscription: Subscription[Any]) -> None:
        self._client = client
        self._subscription = subscription

    def unsubscribe(self) -> None:
        """Stop it, soon: on the thread that waits for messages, not under its hands."""
        self._client.run(lambda: self._client.node.destroy_subscription(self._subscription))


class Goal:
    """A goal that the node has accepted; see :meth:`DecafClient.track`."""

    def __init__(
        self,
        client: DecafClient,
        handle: ClientGoalHandle[Any, Any, Any],
        response: Future[Any],
        is_there: Callable[[], bool],
    ) -> None:
        self._client = client
        self._handle = handle
        self._response = response
        self._is_there = is_there

    def cancel(self, timeout_s: float = 10.0) -> bool:
        """Give it up; whether it was not too late.

        Raises:
            TimeoutError: no answer came.
        """

        sent = self._client.wait_for(self._client.run(self._handle.cancel_goal_async), timeout_s)
        try:
            return bool(self._client.wait_for(sent, timeout_s, self._is_there).goals_canceling)
        except TimeoutError:
            self._client.run(sent.cancel)
            raise

    def wait(self, timeout_s: float = 120.0) -> tuple[int, TrackByLanguage.Result]:
        """How it ended, as one of GoalStatus (SUCCEEDED, CANCELED or ABORTED), and the result.

        Raises:
            TimeoutError: it has not ended, the node went away, or knows the goal no more.
        """
        try:
            response = self._client.wait_for(self._response, timeout_s, self._is_there)
        except TimeoutError:
            if not self._is_there():
                self._client.run(self._response.cancel)
            raise
        if response.status == GoalStatus.STATUS_UNKNOWN:
            raise TimeoutError(f"{self._client.target} knows this goal no more: results are kept for some seconds only")
        return response.status, response.result
