"""Answers on their way: clients that have gone hold up nobody."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("rclpy")

from decaf_ros.ros.postman import Postman


def test_who_asks_now_is_answered_before_all_those_that_have_gone() -> None:
    postman, sent, last = Postman(), [], threading.Event()
    gone = 50

    def to_one_that_has_gone() -> None:
        time.sleep(0.1)
        sent.append("gone")

    for _ in range(gone):
        postman.post(to_one_that_has_gone)
    postman.post(lambda: (sent.append("there"), last.set()))  # type: ignore[func-returns-value]
    assert last.wait(30.0)
    assert sent.count("gone") < gone / 2, "they take 5 s at least"
    postman.close()


def test_what_fails_is_noted_and_what_is_left_is_sent_before_the_end() -> None:
    postman, sent, go = Postman(), [], threading.Event()
    postman.post(lambda: go.wait(30.0) and None)

    def fail() -> None:
        raise RuntimeError("the service is no more")

    postman.post(fail)
    for number in range(5):
        postman.post(lambda number=number: sent.append(number))
    threading.Timer(0.2, go.set).start()
    postman.close()
    assert sorted(sent) == [0, 1, 2, 3, 4]
    assert [str(error) for error in postman.errors] == ["the service is no more"]
