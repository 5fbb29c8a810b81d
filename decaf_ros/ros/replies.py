"""What services and actions ask of the engine, and what they answer, made from its results."""

from __future__ import annotations

from std_msgs.msg import ColorRGBA

from decaf_ros.action import TrackByLanguage
from decaf_ros.drawing import query_colour
from decaf_ros.msg import QueryInfo, StageLatency
from decaf_ros.ros.conversions import frame_header, mask_image, stamp_from_ns, tracked_object
from decaf_ros.session.jobs import QueryRequest, QueryResult, QueryState, QueryStatus
from decaf_ros.srv import AddObject, Query, RerunQuery

_STATES = {
    QueryState.QUEUED: QueryInfo.QUEUED,
    QueryState.RUNNING: QueryInfo.RUNNING,
    QueryState.ACTIVE: QueryInfo.ACTIVE,
    QueryState.FAILED: QueryInfo.FAILED,
}


def query_request(asked: Query.Request | TrackByLanguage.Goal) -> QueryRequest:
    """What a client asks for."""
    return QueryRequest(asked.expression, asked.window_seconds or None, asked.replace)


def fill_query(
    response: Query.Response | RerunQuery.Response | TrackByLanguage.Result, result: QueryResult, total_ms: float
) -> None:
    """Write the answer to a query that found something.

    Args:
        response: changed in place.
        result: of the query.
        total_ms: time since the request came in.
    """
    record, frame = result.record, result.segmentation.frame
    header = frame_header(frame)
    response.success = True
    if not record.confident:
        response.message = "no candidate passed the score threshold (parameter tracklet_threshold); the best one is tracked"
    response.object_name = record.object_name
    response.objects = [tracked_object(tracked) for tracked in result.segmentation.objects]
    response.masks = [mask_image(tracked.mask_hw, header) for tracked in result.segmentation.objects]
    response.stamp = header.stamp
    response.reference_stamp = stamp_from_ns(record.reference_stamp_ns)
    stages = {f"{stage}_ms": milliseconds for stage, milliseconds in result.latency_ms.items()}
    response.latency = StageLatency(**stages, total_ms=total_ms)


def fill_added(response: AddObject.Response, result: QueryResult, _: float) -> None:
    """Write the answer for an object that was pointed out; see :func:`fill_query`."""
    frame = result.segmentation.frame
    response.success = True
    response.object = tracked_object(result.segmentation.objects[0])
    response.object_stamp = stamp_from_ns(frame.stamp_ns)


def query_info(query: QueryStatus) -> QueryInfo:
    """One line of the list of queries."""
    red, green, blue = query_colour(query.query_id)
    return QueryInfo(
        query_id=query.query_id,
        expression=query.expression,
        object_name=query.object_name,
        state=_STATES[query.state],
        message=query.message,
        object_ids=query.object_ids,
        reference_stamp=stamp_from_ns(query.reference_stamp_ns),
        color=ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=1.0),
    )
