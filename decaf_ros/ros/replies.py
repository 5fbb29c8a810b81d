"""What services and actions ask of the engine, and what they answer, made from its results."""

from __future__ import annotations

import math
from typing import Any

from std_msgs.msg import ColorRGBA

from decaf_ros.action import TrackByLanguage
from decaf_ros.drawing import query_colour
from decaf_ros.msg import QueryInfo, StageLatency
from decaf_ros.ros.conversions import frame_header, mask_image, region, stamp_from_ns, tracked_object
from decaf_ros.session.errors import NotThereError, SessionError
from decaf_ros.session.jobs import QueryRequest, QueryResult, QueryState, QueryStatus
from decaf_ros.srv import AddObject, Query, RerunQuery

_STATES = {
    QueryState.QUEUED: QueryInfo.QUEUED,
    QueryState.RUNNING: QueryInfo.RUNNING,
    QueryState.WAITING: QueryInfo.WAITING,
    QueryState.ACTIVE: QueryInfo.ACTIVE,
    QueryState.FAILED: QueryInfo.FAILED,
}


def query_request(asked: Query.Request | TrackByLanguage.Goal) -> QueryRequest:
    """What a client asks for."""
    return QueryRequest(
        asked.expression,
        asked.window_seconds or None,
        asked.replace,
        asked.accept_doubtful,
        wait_seconds=asked.wait_seconds,
        grounder=asked.grounder or None,
    )


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
    if record.doubted:
        response.message = "by the language model nothing in view fits (parameter min_presence); the best guess is tracked"
    elif not record.confident:
        response.message = "no candidate passed the score threshold (parameter tracklet_threshold); the best one is tracked"
    response.presence = record.presence
    response.grounder = record.grounder
    response.object_name = record.object_name
    response.objects = [tracked_object(tracked) for tracked in result.segmentation.objects]
    response.masks = [mask_image(tracked.mask_hw, header) for tracked in result.segmentation.objects]
    response.stamp = header.stamp
    response.reference_stamp = stamp_from_ns(record.reference_stamp_ns)
    stages = {f"{stage}_ms": milliseconds for stage, milliseconds in result.latency_ms.items()}
    response.latency = StageLatency(**stages, total_ms=total_ms)


def refuse(response: Any, error: SessionError) -> None:
    """Write why there is no result into any response; changed in place."""
    response.message = str(error)


def refuse_query(response: Query.Response | RerunQuery.Response | TrackByLanguage.Result, error: SessionError) -> None:
    """Write why a query found nothing and, where nothing fits, how sure that is and what comes nearest; changed in place."""
    refuse(response, error)
    response.presence = math.nan
    if isinstance(error, NotThereError):
        response.presence = error.presence
        if error.guess is not None:
            response.guess_box = region(error.guess.box_xyxy)
            response.guess_score = error.guess.score
            response.guess_stamp = stamp_from_ns(error.guess.stamp_ns)


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
        presence=query.presence,
        object_ids=query.object_ids,
        reference_stamp=stamp_from_ns(query.reference_stamp_ns),
        last_look=stamp_from_ns(query.last_look_ns),
        color=ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=1.0),
    )
