"""The most urgent task: what people ask for."""

from __future__ import annotations

import math

from decaf_ros.session.tasks.task import Desk


class AskedJobs:
    """Queries, queries asked again and objects pointed out, in the order in which they came. Each is answered, well or not."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def due_in(self) -> float:
        """See :class:`~decaf_ros.session.tasks.task.Task`."""
        return 0.0 if self._desk.queue.waiting else math.inf

    def step(self) -> None:
        """Answer the one that came first."""
        job = self._desk.queue.take()
        if job is not None:
            self._desk.answer(job)
