"""Rows of benchmarks within a given time, from processes that may fail, die, or never end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from decaf_ros.bench.timetable import NO_TIME, Row, Work, attempted, in_time


def some(*ends: str) -> Iterator[Row]:
    """Rows until one says how the process is to end."""
    for name in ends:
        if name == "fail":
            raise ValueError("no such kernel")
        if name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "hang":
            time.sleep(3600)
        yield attempted("table", name, lambda: {"value": 1.0})


def test_rows_come_one_by_one_and_those_that_do_not_come_say_why() -> None:
    endings = [("a", "fail", "b"), ("c", "die", "d"), ("e", "f")]
    given = [Work([("table", name) for name in names], some, names) for names in endings]
    told = {row.name: row.failure for row in in_time(given, minutes=10)}
    assert list(told) == ["a", "fail", "b", "c", "die", "d", "e", "f"]
    assert not any(told[name] for name in "acef")
    assert told["fail"] == told["b"] == "failed: ValueError: no such kernel"
    assert told["die"] == told["d"] == "failed: the process died, with status -9"


def test_what_does_not_end_in_time_is_left_out_with_all_that_would_follow() -> None:
    given = [Work([("table", name)], some, (name,)) for name in ("hang", "a")]
    assert [(row.name, row.failure) for row in in_time(given, minutes=0.05)] == [("hang", NO_TIME), ("a", NO_TIME)]
