"""What a node offers for a while: publishers, services and actions that come and go together; which callbacks may coincide."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.action import ActionServer
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.service import Service


class IndependentCallbackGroup(CallbackGroup):
    """Callbacks of one entity run one after the other, in order; those of different entities do not wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self._running: set[Any] = set()
        self._lock = threading.Lock()

    def can_execute(self, entity: Any) -> bool:
        """Whether no callback of the entity is running."""
        with self._lock:
            return entity not in self._running

    def beginning_execution(self, entity: Any) -> bool:
        """Note that a callback of the entity is running, unless one is already; whether it may."""
        with self._lock:
            free = entity not in self._running
            self._running.add(entity)
            return free

    def ending_execution(self, entity: Any) -> None:
        """Note that it has ended."""
        with self._lock:
            self._running.discard(entity)


class EntityGroup:
    """The publishers, services and action servers that a node gets inside :meth:`collecting`, whoever creates them.

    Args:
        node: on which they are created, by one thread at a time.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._entities: list[Any] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Everything created in the block belongs to the group, even if the block fails."""
        before = self._existing()
        try:
            yield
        finally:
            self._entities += [each for each in self._existing() if each not in before]

    def destroy(self) -> None:
        """Remove all of them from the node."""
        for entity in self._entities:
            if isinstance(entity, Publisher):
                self._node.destroy_publisher(entity)
            elif isinstance(entity, Service):
                self._node.destroy_service(entity)
            else:
                entity.destroy()
        self._entities = []

    def _existing(self) -> list[Any]:
        actions = [each for each in self._node.waitables if isinstance(each, ActionServer)]
        return [*self._node.publishers, *self._node.services, *actions]
