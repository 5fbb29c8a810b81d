"""JSON as the standard has it (RFC 8259): Python's own module writes NaN and infinities, which no browser reads."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from decaf_ros.text import brief, quoted


def to_json(value: Any, *, indent: int | None = None) -> str:
    """The value as text, in which ``null`` stands for numbers that are not finite.

    Args:
        value: of dicts, lists, tuples, text, numbers, truth values and ``None``.
        indent: of each level; everything is on one line when ``None``.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def from_json(text: str | bytes, *, unique_names: bool = False) -> Any:
    """What a text of foreign origin stands for.

    Args:
        text: all of it.
        unique_names: whether an object that has a name twice is refused; else the last one counts.

    Raises:
        ValueError: it is no JSON, holds NaN, an infinity or a number beyond those of floats, is not Unicode, or is nested too
            deeply.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            object_pairs_hook=_unique if unique_names else None,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def described(value: Any) -> str:
    """A value of JSON as it may stand in a message: short, whatever it holds."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return quoted(value) if isinstance(value, str) else brief(json.dumps(value), 80)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _finite_float(digits: str) -> float:
    """The standard has numbers that no float holds, such as 1e999, which Python would take for infinite."""
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{brief(digits, 40)} is too large a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {quoted(name)} stands twice in an object")
    return named
