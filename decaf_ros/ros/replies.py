"""Answers of the node's services from the results of the engine."""

from __future__ import annotations

from decaf_ros.msg import QueryInfo, StageLatency
from decaf_ros.ros.conversions import make_header, mask_image, stamp_from_ns, tracked_object
from decaf_ros.session.engine import QueryResult, QueryState, QueryStatus
from decaf_ros.srv import Query

_STATES = {
    QueryState.QUEUED: QueryInfo.QUEUED,
    QueryState.RUNNING: QueryInfo.RUNNING,
    QueryState.ACTIVE: QueryInfo.ACTIVE,
    QueryState.FAILED: QueryInfo.FAILED,
}


def fill_query(response: Query.Response, result: QueryResult, total_ms: float) -> None:
    """Write the answer to a query that found something.

    Args:
        response: changed in place.
        result: of the query.
        total_ms: time since the request came in.
    """
    record, frame = result.record, result.segmentation.frame
    header = make_header(frame.stamp_ns, frame.frame_id)
    response.success = True
    if not record.confident:
        response.message = "no candidate passed the score threshold (parameter tracklet_threshold); the best one is tracked"
    response.query_id = record.query_id
    response.object_name = record.object_name
    response.objects = [tracked_object(tracked) for tracked in result.segmentation.objects]
    response.masks = [mask_image(tracked.mask_hw, header) for tracked in result.segmentation.objects]
    response.stamp = header.stamp
    response.reference_stamp = stamp_from_ns(record.reference_stamp_ns)
    stages = {f"{stage}_ms": milliseconds for stage, milliseconds in result.latency_ms.items()}
    response.latency = StageLatency(**stages, total_ms=total_ms)


def query_info(query: QueryStatus) -> QueryInfo:
    """One line of the list of queries."""
    return QueryInfo(
        query_id=query.query_id,
        expression=query.expression,
        object_name=query.object_name,
        state=_STATES[query.state],
        message=query.message,
        object_ids=query.object_ids,
        reference_stamp=stamp_from_ns(query.reference_stamp_ns),
    )
