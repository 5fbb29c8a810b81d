"""Text of foreign origin, and JSON."""

from __future__ import annotations

import json
import math

import pytest

from decaf_ros.strict_json import from_json, to_json
from decaf_ros.text import brief, quoted, with_kind


def test_foreign_words_are_quoted_escaped_and_short() -> None:
    assert quoted("rgb8") == "'rgb8'"
    assert quoted("a\x1b[31m\nb\u202e") == r"'a\x1b[31m\nb\u202e'"
    assert quoted("x" * 1_000_000) == "'" + "x" * 80 + "'... (1000000 characters)"


def test_foreign_errors_become_one_short_line() -> None:
    assert brief(ValueError("first\n  second\x00third")) == r"first second\x00third"
    assert brief("\x1b" * 10_000, limit=8) == r"\x1b\x1b... (10000 characters)"
    assert len(brief(ValueError("y" * 1_000_000))) < 600


def test_errors_whose_words_say_little_are_told_with_their_kind() -> None:
    assert with_kind(KeyError("name\x1b")) == r"KeyError: 'name\x1b'"
    assert with_kind(MemoryError()) == "MemoryError"


def test_numbers_that_json_does_not_know_become_null() -> None:
    value = {"score": math.nan, "box": [math.inf, (-math.inf, 1.5)], "id": 7, "lost": True}
    assert to_json(value) == '{"score": null, "box": [null, [null, 1.5]], "id": 7, "lost": true}'
    assert json.loads(to_json(value, indent=2))["box"] == [None, [None, 1.5]]


@pytest.mark.parametrize("text", ["NaN", '{"a": -Infinity}', "[" * 100_000, "{", b"\xff\xfe\xfd", "1" * 10_000, "[-1e999]"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of Python's, whose words change
        from_json(text)


def test_json_is_read_as_it_is() -> None:
    assert from_json('{"a": [1, 2.5, null, "\\u00e9"]}') == {"a": [1, 2.5, None, "é"]}
