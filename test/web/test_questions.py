"""Questions whose answers do not come, and more of them than may be under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from decaf_ros.web.questions import Questions, TooManyQuestionsError


def test_no_more_are_under_way_than_may_be() -> None:
    """Those that somebody waits for and those in the background together."""

    async def check() -> None:
        go_on = asyncio.Event()

        async def ask(expression: str, replace: bool, accept_doubtful: bool) -> dict[str, Any]:
            await go_on.wait()
            return {"success": True, "message": expression}

        questions = Questions(ask, limit=2)
        waiting = asyncio.create_task(questions.ask("first", True))
        await asyncio.sleep(0)
        questions.put("second", True)
        for _ in range(2):
            with pytest.raises(TooManyQuestionsError, match=r"2 questions .*--max-questions"):
                questions.put("third", True)
            with pytest.raises(TooManyQuestionsError):
                await questions.ask("third", True)
        go_on.set()
        assert (await waiting)["message"] == "first"
        assert (await questions.ask("fourth", True))["message"] == "fourth"
        for number in range(100):
            questions.put(f"{number}", True)
            await asyncio.sleep(0)
        assert len(questions.summary()) <= 50 + 2
        await questions.close()

    asyncio.run(check())
