"""What the worker does is a list of tasks in order of urgency; this is what they have in common."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from decaf_ros.models.devices import give_memory_back
from decaf_ros.models.wanted import while_wanted
from decaf_ros.session.errors import NoFramesError, NothingFoundError, NotThereError, SessionError, SupersededError
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.jobs import Job, JobQueue, MakingWayError
from decaf_ros.session.listener import Teller
from decaf_ros.session.session import TrackingSession
from decaf_ros.text import brief, quoted, with_kind

# What to do is the same whether it was the GPU's or, seldom, the CPU's.
OUT_OF_MEMORY = (
    "there is not enough memory on the device: lower batch_tokens, key_frames, frame_tokens or prefix_cache_mb, or take a "
    "smaller model; objects are followed on"
)

logger = logging.getLogger(__name__)


class Task(Protocol):
    """One kind of work. Used by the worker alone."""

    def due_in(self) -> float:
        """Seconds until there is something to do: 0 or less when there is, infinite when nothing is in sight."""

    def step(self) -> None:
        """Do one piece of it, if it is still to be done.

        It is abandoned when something more urgent comes, or nobody wants it any more: long work calls ``require_wanted`` of
        :mod:`decaf_ros.models.wanted`, which raises then.
        """


@dataclass(frozen=True)
class Activity:
    """What the worker is at.

    Attributes:
        stage: "waiting for an image", one of ``stages.STAGES``, "pointing out", "refresh" of the heat maps,
            "reading ahead", "looking for what is to come" while queries stand, one that begins with "re-acquire" while
            objects in doubt are looked for, or "idle".
        since: when it began, in seconds of ``time.monotonic``.
        query_id: whose it is; 0 for none, or all.
    """

    stage: str = "idle"
    since: float = field(default_factory=time.monotonic)
    query_id: int = 0


@dataclass(eq=False)
class Desk:
    """What all tasks share.

    Attributes:
        session: what is followed.
        queue: what people ask for.
        teller: tells of results.
        clock: seconds, for the pauses between steps.
        grounder: answers queries; ``None`` while there are no models. Any thread may put another one here.
        activity: what the worker is at.
    """

    session: TrackingSession
    queue: JobQueue
    teller: Teller
    clock: Callable[[], float]
    grounder: Grounder | None
    activity: Activity = field(default_factory=Activity)

    def answer(self, job: Job) -> None:
        """Do what somebody asked for, and answer, well or not; unless it is a query that can wait for what is not there yet.

        Args:
            job: one that runs, by the queue.
        """
        short_of_memory = False
        try:
            with while_wanted(lambda: self.queue.require_wanted(job)):
                result = job.work(job)
        except (MakingWayError, SupersededError) as error:  # as if it had not begun
            if not self.queue.stand(job):
                self.queue.fail(job, error)
        except (NoFramesError, NothingFoundError, NotThereError) as error:
            if not self.queue.stand(job, error):
                self.queue.fail(job, error)
        except SessionError as error:
            self.queue.fail(job, error)
        except ValueError as error:  # the sentence or the prompt is one that the model cannot take
            logger.warning("the query %s was refused: %s", quoted(job.expression), brief(error))
            self.queue.fail(job, SessionError(brief(error)))
        except torch.OutOfMemoryError as error:
            logger.error("the query %s: %s: %s", quoted(job.expression), OUT_OF_MEMORY, brief(error))
            self.queue.fail(job, SessionError(OUT_OF_MEMORY))
            short_of_memory = True
        except Exception as error:  # the node goes on, and the caller learns the cause
            logger.exception("the query %s failed", quoted(job.expression))
            self.queue.fail(job, SessionError(f"internal error: {with_kind(error)}"))
        else:
            self.queue.answer(job, result)
        if short_of_memory:  # not before the error is gone, whose traceback holds what there was of the work
            self.free_memory()

    def keep_up(self, job: Job, failure: str) -> bool:
        """Do work of the worker's own, unless somebody asks for something meanwhile. Whether it ended, well or not.

        Args:
            job: the work.
            failure: what to say when it cannot be done.
        """
        short_of_memory = False
        try:
            with self.queue.own(job), while_wanted(lambda: self.queue.require_wanted(job)):
                job.work(job)
        except MakingWayError:  # as if it had not begun
            return False
        except SessionError as error:
            logger.debug("%s: %s", failure, brief(error))
        except torch.OutOfMemoryError as error:
            self.teller.complain(f"{failure}: {OUT_OF_MEMORY}", error)
            short_of_memory = True
        except Exception as error:
            self.teller.complain(failure, error)
        if short_of_memory:
            self.free_memory()
        return True

    def free_memory(self) -> None:
        """Forget what can be had again, and give its memory back; for when there was too little."""
        if self.grounder is not None:
            self.grounder.attention.forget()
        give_memory_back()
