"""Requests on their way through the dispatcher: those that a node must still answer before it goes."""

from __future__ import annotations

from functools import partial

from harness import wait_until

from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.dispatcher import Dispatcher, Request
from decaf_ros.session.errors import SessionError
from decaf_ros.session.jobs import Job
from decaf_ros.srv import Query


def _refuse() -> Job:
    raise SessionError("too many queries")


def test_a_request_is_open_until_its_answer_is_written(client: DecafClient) -> None:
    dispatcher = Dispatcher(client.node, None, lambda: "", lambda: "")  # type: ignore[arg-type]
    job = Job(7, "the mug", lambda job: None)  # type: ignore[arg-type, return-value]
    queued, refused = dispatcher.ask(lambda: job), dispatcher.ask(_refuse)
    assert dispatcher.unanswered == {queued, refused}
    answers = {queued: Query.Response(), refused: Query.Response()}

    async def answer(request: Request) -> None:
        await dispatcher.answer(request, answers[request], lambda *_: None)

    for request in answers:
        client.run(partial(answer, request))
    wait_until(lambda: dispatcher.unanswered == {queued}, "the refusal to be told")
    job.future.set_exception(SessionError("nothing was found"))
    wait_until(lambda: not dispatcher.unanswered, "the other one to be told")
    assert [(each.query_id, each.message) for each in answers.values()] == [(7, "nothing was found"), (0, "too many queries")]
