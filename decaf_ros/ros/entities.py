"""What a node offers for a while: publishers, services and actions that come and go together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.action import ActionServer
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.service import Service


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
