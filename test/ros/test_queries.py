"""What there is besides asking once: objects that are pointed out, queries asked again, several at a time, and events."""

from __future__ import annotations

import re

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from filmed_table import BOX, EXPRESSION, MUG, OTHER_EXPRESSION, TABLE
from geometry_msgs.msg import Point
from harness import Recorder, System, pixels, stamps_of, wait_until
from sensor_msgs.msg import Image, RegionOfInterest

from decaf_ros.action import TrackByLanguage
from decaf_ros.config import GroundingConfig
from decaf_ros.drawing import query_colour
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.msg import QueryInfo, TrackedObject, TrackedObjectArray, TrackEvent
from decaf_ros.ros.conversions import image_from_array, make_header, mask_image, stamp_from_ns
from decaf_ros.srv import AddObject

SECOND_NS = 1_000_000_000
HEIGHT, WIDTH = TABLE.size_hw


def _film(system: System, seconds: float) -> list[int]:
    """Stamps of the frames that the node has followed; no more come once this returns."""
    before = len(system.masks.messages)
    with system.camera.filming():
        wait_until(lambda: _duration_ns(system, before) > seconds * SECOND_NS, "masks", 60.0)
    sent = max(system.camera.stamps())
    wait_until(lambda: _is_idle(system, sent), "the last frame to be followed or lost")
    return stamps_of(system.masks.messages[before:])


def _duration_ns(system: System, since: int) -> int:
    stamps = stamps_of(system.masks.messages[since:])
    return stamps[-1] - stamps[0] if stamps else 0


def _is_idle(system: System, stamp_ns: int) -> bool:
    """Whether a frame with this stamp is through, after a repetition of it if need be: best effort may lose any single one."""
    system.camera.publish(system.camera.image(stamp_ns))
    return stamps_of(system.masks.messages)[-1] == stamp_ns


def _key_frame(system: System, stamp_ns: int) -> int:
    """Stamp of the first key frame after a stamp that no frame has."""
    refused = system.client.add_object(on_points=[Point(x=1.0, y=1.0)], stamp=stamp_from_ns(stamp_ns))
    named = re.fullmatch(rf"no frame of stamp {stamp_ns} ns is kept; the nearest kept one after it is (\d+)", refused.message)
    assert named, refused.message
    return int(named[1])


def _true_box(system: System, stamp_ns: int, thing: int) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(system.camera.view(stamp_ns).mask_of(thing))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _box(corners: tuple[int, int, int, int]) -> RegionOfInterest:
    x_min, y_min, x_max, y_max = corners
    return RegionOfInterest(x_offset=x_min, y_offset=y_min, width=x_max - x_min, height=y_max - y_min)


def _centre(corners: tuple[int, int, int, int]) -> Point:
    return Point(x=(corners[0] + corners[2]) / 2, y=(corners[1] + corners[3]) / 2)


def _overlap(system: System, answer: AddObject.Response, thing: int) -> float:
    """IoU of the object's box and the thing's true one."""
    return _iou_of_boxes(_true_box(system, stamp_to_ns(answer.object_stamp), thing), answer.object.box)


def _iou_of_boxes(truth: tuple[int, int, int, int], box: RegionOfInterest) -> float:
    masks = np.zeros((2, HEIGHT, WIDTH), dtype=np.bool_)
    masks[0, truth[1] : truth[3], truth[0] : truth[2]] = True
    masks[1, box.y_offset : box.y_offset + box.height, box.x_offset : box.x_offset + box.width] = True
    return float(masks.all(axis=0).sum() / masks.any(axis=0).sum())


def test_objects_that_are_pointed_out(system: System) -> None:
    events = Recorder(system.client, "~/events", TrackEvent)
    stamps = _film(system, 3.0)
    key_ns, recent_ns = _key_frame(system, stamps[-1] - 2 * SECOND_NS), stamps[-3]
    newest = system.camera.view(stamps[-1])
    prompts = {
        "mug": {"box": _box(_true_box(system, key_ns, MUG)), "stamp": stamp_from_ns(key_ns)},
        "crate": {
            "on_points": [_centre(_true_box(system, recent_ns, BOX))],
            "off_points": [Point(x=2.0, y=HEIGHT - 2.0)],
            "stamp": stamp_from_ns(recent_ns),
        },
        "same mug": {"mask": mask_image(newest.mask_of(MUG), make_header(0, ""))},
    }
    answers = {label: system.client.add_object(label=label, **prompt) for label, prompt in prompts.items()}
    for (label, answer), thing in zip(answers.items(), (MUG, BOX, MUG), strict=True):
        assert answer.success, answer.message
        assert stamp_to_ns(answer.object_stamp) == stamps[-1]
        assert (answer.object.label, answer.object.query_id) == (label, answer.query_id)
        assert answer.object.state == TrackedObject.VISIBLE
        assert _overlap(system, answer, thing) > 0.5, label

    objects = Recorder(system.client, "~/objects", TrackedObjectArray)
    with system.camera.filming():
        followed = {tracked.id: tracked.label for tracked in objects.next("objects").objects}
    assert followed == {answer.object.id: label for label, answer in answers.items()}
    assert len(followed) == 3
    listed = [query for query in system.client.list_queries().queries if query.state == QueryInfo.ACTIVE]
    assert [(query.expression, query.object_name) for query in listed] == [("", label) for label in prompts]
    wait_until(lambda: len(events.messages) >= 3, "events")
    assert [(event.kind, event.label) for event in events.messages] == [(TrackEvent.FOUND, label) for label in prompts]

    again = system.client.rerun_query(listed[0].query_id)
    assert not again.success
    assert "pointed out" in again.message


@pytest.mark.parametrize(
    ("prompt", "cause"),
    [
        ({}, "needs a point on the object, a box around it, or its mask"),
        ({"off_points": [Point(x=5.0, y=5.0)]}, "needs a point on the object"),
        ({"on_points": [Point(x=WIDTH + 1.0, y=5.0)]}, "outside the image of 256 x 192"),
        ({"on_points": [Point(x=float("nan"))]}, "outside the image"),
        ({"box": RegionOfInterest(x_offset=3, width=5)}, "box of the prompt is empty"),
        ({"box": RegionOfInterest(width=10, height=HEIGHT + 1)}, "outside the image"),
        ({"mask": image_from_array(np.zeros((HEIGHT, WIDTH), np.uint8), "mono8", make_header(0, ""))}, "mask of the prompt is"),
        ({"mask": image_from_array(np.full((3, 4), 255, np.uint8), "mono8", make_header(0, ""))}, "of shape (1, 3, 4)"),
        ({"mask": image_from_array(np.full((3, 4), 1, np.uint16), "mono16", make_header(0, ""))}, "must be mono8"),
        ({"mask": Image(width=4, height=3, encoding="mono8")}, "the mask is no image"),
        ({"box": RegionOfInterest(width=10, height=10), "stamp": stamp_from_ns(7)}, "no frame of stamp 7 ns is kept"),
        ({"box": RegionOfInterest(width=10, height=10), "label": "a\nb"}, "cannot be printed"),
    ],
)  # fmt: skip
def test_prompt_that_is_none(running: System, prompt: dict, cause: str) -> None:
    if not running.masks.messages:
        with running.camera.filming():
            running.wait_for_mask()
    answer = running.client.add_object(**prompt)
    assert not answer.success
    assert cause in answer.message
    failed = [query for query in running.client.list_queries().queries if query.query_id == answer.query_id]
    assert [query.state for query in failed] == [QueryInfo.FAILED] * (answer.query_id > 0), "unless it was refused at once"
    assert running.process.is_alive()


def test_pointing_before_any_frame(system: System) -> None:
    answer = system.client.add_object(on_points=[Point(x=1.0, y=1.0)])
    assert not answer.success
    assert "no camera frame" in answer.message
    assert "/image" in answer.message


def test_asking_right_after_a_reset_waits_for_the_next_image(running: System) -> None:
    with running.camera.filming():
        running.wait_for_mask()
        for _ in range(5):
            assert running.client.reset().success
            answer = running.client.query(EXPRESSION)
            assert answer.success, answer.message
            assert stamp_to_ns(answer.stamp) in running.camera.stamps()


def test_query_that_is_asked_again_keeps_its_objects(system: System) -> None:
    first = system.require_good_answer()
    with system.camera.filming():
        system.wait_for_mask()
        again = system.client.rerun_query(first.query_id)
    assert again.success, again.message
    assert again.query_id == first.query_id
    assert {tracked.id for tracked in first.objects} <= {tracked.id for tracked in again.objects}
    assert stamp_to_ns(again.reference_stamp) > stamp_to_ns(first.reference_stamp)
    assert len(again.masks) == len(again.objects)

    unknown = system.client.rerun_query(first.query_id + 1)
    assert not unknown.success
    assert unknown.query_id == 0
    assert f"known are: {first.query_id}" in unknown.message


def test_events_tell_what_happens_to_objects(system: System) -> None:
    events = Recorder(system.client, "~/events", TrackEvent)
    answer = system.require_good_answer()
    ids = {tracked.id for tracked in answer.objects}
    wait_until(lambda: ids <= _heard_of(events, TrackEvent.FOUND), "the objects' first events")
    assert system.client.remove_object(min(ids)).success
    wait_until(lambda: min(ids) in _heard_of(events, TrackEvent.REMOVED), "the last one")
    for event in events.messages:
        assert stamp_to_ns(event.header.stamp) in system.camera.stamps()
        assert event.header.frame_id == "test_camera"
        assert (event.query_id, event.label) == (answer.query_id, answer.object_name)


def _heard_of(events: Recorder, kind: int) -> set[int]:
    return {event.object_id for event in events.messages if event.kind == kind}


def test_every_active_query_has_a_heat_map_of_its_own(system: System) -> None:
    client = system.client
    with system.camera.filming():
        system.wait_for_mask()
        ids = [client.query(expression, replace=False).query_id for expression in (EXPRESSION, OTHER_EXPRESSION)]
        assert all(ids)
        topics = [f"/decaf_node/query_{query_id}/attention" for query_id in ids]
        own = [Recorder(client, topic, Image) for topic in topics]
        newest = Recorder(client, "~/attention", Image)
        coloured = Recorder(client, f"~/query_{ids[0]}/heatmap", Image)
        wait_until(lambda: _common(newest, own[1]) and _common(newest, own[0]) and coloured.messages, "heat maps", 120.0)
        older_map, newer_map = _common(newest, own[0])[0], _common(newest, own[1])[0]
        assert np.array_equal(*newer_map)
        assert not np.array_equal(*older_map)
        assert coloured.messages[0].encoding == "rgb8"
        assert set(stamps_of(own[0].messages + own[1].messages)) <= system.camera.stamps()

        colours = [query.color for query in client.list_queries().queries]
        for colour, query_id in zip(colours, ids, strict=True):
            assert np.allclose([colour.r, colour.g, colour.b, colour.a], [*(np.array(query_colour(query_id)) / 255), 1.0])

        assert client.remove_query(ids[1]).success
        wait_until(lambda: not client.node.count_publishers(topics[1]), "the topics of the removed query to go")
        count = len(own[0].messages)
        wait_until(lambda: len(own[0].messages) > count, "heat maps of the other one", 60.0)
        latest = stamp_to_ns(own[0].messages[-1].header.stamp)
        wait_until(lambda: stamps_of(newest.messages)[-1] >= latest, "it to be the newest now", 60.0)
        assert client.reset().success
        wait_until(lambda: not client.node.count_publishers(topics[0]), "all of them to go")


def _common(a: Recorder, b: Recorder) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels of the images that both heard under the same stamp."""
    by_stamp = {stamp_to_ns(image.header.stamp): image for image in a.messages}
    pairs = [(by_stamp.get(stamp_to_ns(image.header.stamp)), image) for image in b.messages]
    return [(pixels(one), pixels(other)) for one, other in pairs if one is not None]


def test_what_is_not_there_is_refused_with_a_guess_that_is_followed_on_request(system: System) -> None:
    client, events = system.client, Recorder(system.client, "~/events", TrackEvent)
    followed = system.require_good_answer()
    assert 0.0 < followed.presence < 1.0
    ids = {tracked.id for tracked in followed.objects}
    wait_until(lambda: ids <= _heard_of(events, TrackEvent.FOUND), "the objects' first events")
    assert client.set_parameter("min_presence", 1.0) == (True, "")  # that nothing has
    try:
        refused = system.ask(OTHER_EXPRESSION)
        status, aborted = client.track(OTHER_EXPRESSION).wait()
        assert status == GoalStatus.STATUS_ABORTED
        for each in (refused, aborted):
            assert (each.success, each.objects) == (False, [])
            assert f"nothing in view fits '{OTHER_EXPRESSION}'" in each.message
            assert 0.0 < each.presence < 1.0
            assert _iou_of_boxes(_true_box(system, stamp_to_ns(each.guess_stamp), BOX), each.guess_box) > 0.5
            assert 0.0 < each.guess_score <= 1.0
        listed = {query.query_id: query for query in client.list_queries().queries}
        assert listed[refused.query_id].state == QueryInfo.FAILED
        assert listed[refused.query_id].presence == refused.presence
        assert set(listed[followed.query_id].object_ids) == ids, "nothing has changed"

        taken = system.ask(OTHER_EXPRESSION, replace=False, accept_doubtful=True)
        assert taken.success, taken.message
        assert "nothing in view fits" in taken.message
        found = ids | {tracked.id for tracked in taken.objects}
        wait_until(lambda: found <= _heard_of(events, TrackEvent.FOUND), "its event")
        assert _heard_of(events, TrackEvent.FOUND) == found, "none of those that were refused"
        assert _heard_of(events, TrackEvent.REMOVED) == set()

        assert client.set_parameter("min_presence", 0.0) == (True, "")
        assert np.isnan(system.ask().presence), "nobody asks"
    finally:
        assert client.set_parameter("min_presence", GroundingConfig.min_presence) == (True, "")


def test_a_query_chooses_its_grounder_and_the_answer_tells_who_won(system: System) -> None:
    """How good the boxes of the embedded model are is not what is tested."""
    client = system.client
    assert system.require_good_answer().grounder == "decaf"
    both = system.ask(grounder="both")
    assert both.success, both.message
    assert both.grounder in ("decaf", "box")
    status, alone = client.track(EXPRESSION, grounder="box").wait()
    assert (status == GoalStatus.STATUS_SUCCEEDED) == alone.success == (alone.grounder == "box")
    assert alone.success or f"nothing was found for '{EXPRESSION}'" in alone.message
    unknown = system.ask(grounder="boxes")
    assert (unknown.success, unknown.query_id, unknown.grounder) == (False, 0, "")
    assert "grounder must be one of decaf, box, both, got 'boxes'" in unknown.message


def test_a_query_waits_until_it_is_there_is_cancelled_or_the_time_is_over(system: System) -> None:
    client, events = system.client, Recorder(system.client, "~/events", TrackEvent)
    feedback: list[TrackByLanguage.Feedback] = []

    def looks() -> list[TrackByLanguage.Feedback]:
        return [each for each in feedback if each.state == TrackByLanguage.Feedback.WAITING]

    def listed(query_id: int) -> QueryInfo:
        (query,) = (each for each in client.list_queries().queries if each.query_id == query_id)
        return query

    assert client.set_parameter("min_presence", 1.0) == (True, "")  # that nothing has
    try:
        with system.camera.filming():
            system.wait_for_mask()
            goal = client.track(EXPRESSION, wait_seconds=3600.0, on_feedback=feedback.append)
            look = wait_until(looks, "a look", 120.0)[0]
            assert 0.0 < look.presence < 1.0
            assert stamp_to_ns(look.last_look) in system.camera.stamps()
            query = wait_until(
                lambda: (q := listed(look.query_id)).state == QueryInfo.WAITING and q, "the query to wait", 120.0
            )
            told = query.last_look, query.presence
            wait_until(lambda: told in [(each.last_look, each.presence) for each in looks()], "feedback of the same look")
            assert f"nothing in view fits '{EXPRESSION}'" in query.message

            other = client.track(OTHER_EXPRESSION, replace=False, wait_seconds=3600.0)
            other.cancel()
            assert other.wait()[0] == GoalStatus.STATUS_CANCELED
            in_vain = client.query(OTHER_EXPRESSION, replace=False, wait_seconds=0.5)
            assert not in_vain.success
            assert f"waited 0.5 s in vain: nothing in view fits '{OTHER_EXPRESSION}'" in in_vain.message

            assert listed(look.query_id).state == QueryInfo.WAITING
            assert client.set_parameter("min_presence", 0.001) == (True, "")  # that everything has
            status, result = goal.wait()
            assert status == GoalStatus.STATUS_SUCCEEDED, result.message
        found = {tracked.id for tracked in result.objects}
        wait_until(lambda: found <= _heard_of(events, TrackEvent.FOUND), "its event")
        assert listed(look.query_id).state == QueryInfo.ACTIVE
    finally:
        assert client.set_parameter("min_presence", GroundingConfig.min_presence) == (True, "")


def test_more_queries_than_allowed_are_refused(system: System) -> None:
    client = system.client
    assert client.set_parameter("max_queries", 1) == (True, "")
    try:
        system.require_good_answer()
        point = Point(x=WIDTH / 2, y=HEIGHT / 2)
        for refused in (client.query(OTHER_EXPRESSION, replace=False), client.add_object(on_points=[point])):
            assert not refused.success
            assert "1 queries are active already (parameter max_queries)" in refused.message
        system.require_good_answer()  # which replaces
        assert len(client.list_queries().queries) == 1
    finally:
        assert client.set_parameter("max_queries", 16) == (True, "")
