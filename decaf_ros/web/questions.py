"""Questions that are answered in the background: a browser has few connections, and a query may take long."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from decaf_ros.web.link import NodeUnavailableError

_KEPT = 50
_ID_BYTES = 8


class TooManyQuestionsError(Exception):
    """As many questions as may be are under way."""


class Questions:
    """Asks the node, a bounded number of questions at a time. Belongs to one event loop.

    Who does not want to wait gets an id at once, and finds the outcome by it in :meth:`summary`.

    Args:
        ask: sends an expression, whether it takes the place of the others, and whether the best guess is followed where nothing
            fits, to the node; waits for the answer.
        limit: of questions under way.
    """

    def __init__(self, ask: Callable[[str, bool, bool], Awaitable[dict[str, Any]]], limit: int) -> None:
        self._ask = ask
        self._limit = limit
        self._waiting = 0
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._outcomes: dict[str, dict[str, Any]] = {}

    async def ask(self, expression: str, replace: bool, accept_doubtful: bool = False) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            TooManyQuestionsError: ask again later.
            NodeUnavailableError: there will be no answer.
        """
        self._require_room()
        self._waiting += 1
        try:
            return await self._ask(expression, replace, accept_doubtful)
        finally:
            self._waiting -= 1

    def put(self, expression: str, replace: bool, accept_doubtful: bool = False) -> str:
        """Begin to ask; the id of the question.

        Raises:
            TooManyQuestionsError: ask again later.
        """
        self._require_room()
        question = secrets.token_hex(_ID_BYTES)
        self._under_way[question] = asyncio.create_task(self._answer(question, expression, replace, accept_doubtful))
        return question

    def summary(self) -> list[dict[str, Any]]:
        """Questions that are under way, and the last that were: how they ended."""
        return [
            *({"id": question, "done": True, **outcome} for question, outcome in self._outcomes.items()),
            *({"id": question, "done": False} for question in self._under_way),
        ]

    async def close(self) -> None:
        """Wait for no more answers."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _require_room(self) -> None:
        if self._waiting + len(self._under_way) >= self._limit:
            raise TooManyQuestionsError(
                f"{self._limit} questions are under way, and decaf_web takes no more (--max-questions): wait for an answer"
            )

    async def _answer(self, question: str, expression: str, replace: bool, accept_doubtful: bool) -> None:
        outcome = {"success": False, "message": "decaf_web failed: its output says more"}
        try:
            answer = await self._ask(expression, replace, accept_doubtful)
            outcome = {"success": answer["success"], "message": answer["message"]}
        except NodeUnavailableError as error:
            outcome["message"] = str(error)
        finally:
            del self._under_way[question]
            self._outcomes[question] = outcome
            while len(self._outcomes) > _KEPT:
                del self._outcomes[next(iter(self._outcomes))]
