"""Waiting in a callback for what another thread does."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

import rclpy.task
from rclpy.node import Node

T = TypeVar("T")


async def completed(node: Node, job: Future[T]) -> T:
    """The result of another thread's work, or its error, without a thread of the node's executor waiting for it."""
    executor = node.executor
    assert executor is not None, "callbacks run on an executor"
    done: rclpy.task.Future[None] = rclpy.task.Future(executor=executor)

    def finish(_: Future[T]) -> None:
        done.set_result(None)
        executor.wake()  # it does not look at futures that other threads complete, until something happens

    job.add_done_callback(finish)
    await done
    return job.result()
