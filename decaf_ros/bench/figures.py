"""What a measurement comes to: a page for people, and its figures as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Measured(NamedTuple):
    """A part of the benchmarks that ran.

    Attributes:
        page: of Markdown.
        figures: by name; NaN where there is none.
        pictures: PNG files that the page shows, by their names.
    """

    page: str
    figures: dict[str, float]
    pictures: Mapping[str, bytes] = MappingProxyType({})


def named(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures in groups, and groups of these, as one table: ``{"mask": {"p50_ms": 2}}`` is ``mask.p50_ms``."""
    table: dict[str, float] = {}
    for name, value in figures.items():
        inner = {f".{key}": each for key, each in named(value).items()} if isinstance(value, Mapping) else {"": value}
        table |= {slug(name) + key: each for key, each in inner.items()}
    return table


def slug(words: str) -> str:
    """A title as a name: small letters, digits and underscores."""
    return "_".join(re.findall(r"[a-z0-9]+", words.lower()))


def by_place(names: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    """Values by the names of their places."""
    return dict(zip(names, values, strict=True))
