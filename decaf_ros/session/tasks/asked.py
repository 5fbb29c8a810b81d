"""The most urgent task: what people ask for."""

from __future__ import annotations

import logging
import math

import torch

from decaf_ros.models.wanted import while_wanted
from decaf_ros.session.errors import SessionError
from decaf_ros.session.tasks.task import OUT_OF_MEMORY, Desk
from decaf_ros.text import brief, quoted, with_kind

logger = logging.getLogger(__name__)


class AskedJobs:
    """Queries, queries asked again and objects pointed out, in the order in which they came. Each is answered, well or not."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def due_in(self) -> float:
        """See :class:`~decaf_ros.session.tasks.task.Task`."""
        return 0.0 if self._desk.queue.waiting else math.inf

    def step(self) -> None:
        """Answer the one that came first."""
        queue = self._desk.queue
        job = queue.take()
        if job is None:
            return
        short_of_memory = False
        try:
            with while_wanted(lambda: queue.require_wanted(job)):
                result = job.work(job)
        except SessionError as error:
            queue.fail(job, error)
        except ValueError as error:  # the sentence or the prompt is one that the model cannot take
            logger.warning("the query %s was refused: %s", quoted(job.expression), brief(error))
            queue.fail(job, SessionError(brief(error)))
        except torch.OutOfMemoryError as error:
            logger.error("the query %s: %s: %s", quoted(job.expression), OUT_OF_MEMORY, brief(error))
            queue.fail(job, SessionError(OUT_OF_MEMORY))
            short_of_memory = True
        except Exception as error:  # the node goes on, and the caller learns the cause
            logger.exception("the query %s failed", quoted(job.expression))
            queue.fail(job, SessionError(f"internal error: {with_kind(error)}"))
        else:
            queue.answer(job, result)
        if short_of_memory:  # not before the error is gone, whose traceback holds what there was of the work
            self._desk.free_memory()
