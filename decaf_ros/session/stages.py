"""The stages of a query: how long each takes, and where work is abandoned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("prefill", "rollout", "fusion", "prompting", "catch_up")


@dataclass
class StageClock:
    """Milliseconds spent in each of :data:`STAGES`, and the place where work is abandoned.

    Attributes:
        progress: called with the stage that begins; raises to abandon the work.
        check: called often within a stage; raises to abandon the work.
        latency_ms: by stage.
    """

    progress: Callable[[str], None] = lambda stage: None
    check: Callable[[], None] = lambda: None
    latency_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and add the time until the block ends to it."""
        self.progress(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.latency_ms[name] += (time.perf_counter() - start) * 1e3
