"""How long fuzz tests search: about a minute in all, always the same examples; ``DECAF_FUZZ=20``: 20 times that, at random."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_FACTOR = float(os.environ.get("DECAF_FUZZ", "1"))


def examples(count: int) -> settings:
    """So many examples a test in CI, more of them by hand."""
    return settings(
        max_examples=max(1, round(count * _FACTOR)),
        derandomize=_FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
