"""The node's services: requests to the engine, and its answers."""

from __future__ import annotations

from functools import partial

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from sensor_msgs.msg import Image, RegionOfInterest
from std_srvs.srv import Trigger

from decaf_ros import limits
from decaf_ros.datatypes import BoolArray, ObjectPrompt
from decaf_ros.imaging import frame_from_image, stamp_to_ns
from decaf_ros.ros import replies
from decaf_ros.ros.dispatcher import Dispatcher
from decaf_ros.ros.qos import SERVICE_QOS
from decaf_ros.session.errors import SessionError
from decaf_ros.session.jobs import Job
from decaf_ros.srv import AddObject, ListQueries, Query, RemoveObject, RemoveQuery, RerunQuery
from decaf_ros.text import quoted


class Services:
    """All of the node's own services.

    Those that wait for the models: ``~/query``, ``~/rerun_query`` and ``~/add_object``. Those that answer at once:
    ``~/remove_object``, ``~/remove_query``, ``~/list_queries`` and ``~/reset``.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._engine = dispatcher.engine
        offer = partial(dispatcher.node.create_service, qos_profile=SERVICE_QOS)
        # Reentrant: a query that waits for its result must not keep the next one from queueing.
        waiting, quick = ReentrantCallbackGroup(), MutuallyExclusiveCallbackGroup()
        offer(Query, "~/query", self._query, callback_group=waiting)
        offer(RerunQuery, "~/rerun_query", self._rerun_query, callback_group=waiting)
        offer(AddObject, "~/add_object", self._add_object, callback_group=waiting)
        offer(RemoveObject, "~/remove_object", self._remove_object, callback_group=quick)
        offer(RemoveQuery, "~/remove_query", self._remove_query, callback_group=quick)
        offer(ListQueries, "~/list_queries", self._list_queries, callback_group=quick)
        offer(Trigger, "~/reset", self._reset, callback_group=quick)

    async def _query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        def submit() -> Job:
            return self._engine.query(replies.query_request(request))

        await self._dispatcher.answer(self._dispatcher.ask(submit), response, replies.fill_query, replies.refuse_query)
        return response

    async def _rerun_query(self, request: RerunQuery.Request, response: RerunQuery.Response) -> RerunQuery.Response:
        asked = self._dispatcher.ask(lambda: self._engine.ask_again(request.query_id))
        await self._dispatcher.answer(asked, response, replies.fill_query, replies.refuse_query)
        return response

    async def _add_object(self, request: AddObject.Request, response: AddObject.Response) -> AddObject.Response:
        def submit() -> Job:
            self._engine.require_room()  # a mask takes a while to decode
            max_pixels = int(self._dispatcher.node.get_parameter("max_image_pixels").value)
            return self._engine.add_object(object_prompt(request, max_pixels), request.label, _stamp_ns(request.stamp))

        await self._dispatcher.answer(self._dispatcher.ask(submit), response, replies.fill_added)
        return response

    def _remove_object(self, request: RemoveObject.Request, response: RemoveObject.Response) -> RemoveObject.Response:
        try:
            self._dispatcher.require_ready()
            self._engine.remove_object(request.object_id)
            response.success = True
        except SessionError as error:
            response.message = str(error)
        return response

    def _remove_query(self, request: RemoveQuery.Request, response: RemoveQuery.Response) -> RemoveQuery.Response:
        try:
            self._dispatcher.require_ready()
            response.removed_object_ids = self._engine.remove_query(request.query_id)
            response.success = True
        except SessionError as error:
            response.message = str(error)
        return response

    def _list_queries(self, request: ListQueries.Request, response: ListQueries.Response) -> ListQueries.Response:
        response.queries = [replies.query_info(query) for query in self._engine.queries()]
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._dispatcher.require_ready()
            self._engine.reset()
            response.success = True
            response.message = "all queries, objects and frames are forgotten"
        except SessionError as error:
            response.message = str(error)
        return response


def object_prompt(request: AddObject.Request, max_pixels: int) -> ObjectPrompt:
    """What a request points at.

    Args:
        request: with points, a box or a mask.
        max_pixels: of the mask.

    Raises:
        SessionError: it says too much or too little, contradicts itself, or its mask cannot be decoded.
    """
    try:
        limits.POINTS.require(len(request.on_points) + len(request.off_points), "the request")
        return ObjectPrompt(
            _pixels(request.on_points),
            _pixels(request.off_points),
            _corners(request.box) if request.box.width else None,
            _mask_hw(request.mask, max_pixels) if request.mask.width else None,
        )
    except ValueError as error:
        raise SessionError(str(error)) from error


def _stamp_ns(stamp: Time) -> int | None:
    if stamp.sec < 0:
        raise SessionError(
            f"the stamp of the request is negative ({stamp.sec} s): copy it from a camera image, or from a result"
        )
    try:
        limits.STAMP.require(stamp.nanosec, "the stamp of the request")
    except ValueError as error:
        raise SessionError(str(error)) from error
    return stamp_to_ns(stamp) or None


def _pixels(points: list[Point]) -> tuple[tuple[float, float], ...]:
    return tuple((point.x, point.y) for point in points)


def _corners(box: RegionOfInterest) -> tuple[float, float, float, float]:
    x_min, y_min = float(box.x_offset), float(box.y_offset)
    return x_min, y_min, x_min + box.width, y_min + box.height


def _mask_hw(mask: Image, max_pixels: int) -> BoolArray:
    limits.PIXELS.require(mask.width * mask.height, "the mask of the request", max_pixels)
    if mask.encoding != "mono8":
        raise ValueError(f"the mask must be mono8, got {quoted(mask.encoding)}")
    try:
        mask_hw: BoolArray = frame_from_image(mask).image_rgb[..., 0] > 0
    except ValueError as error:
        raise ValueError(f"the mask is no image: {error}") from error
    return mask_hw
