"""Rows of tables within a given time: the most telling first, each told as it comes and kept when a later one fails."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from decaf_ros.bench.measuring import stream_apart
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.text import with_kind

NO_TIME = "left out: no time"


@dataclass(frozen=True)
class Row:
    """What was measured, or why not.

    Attributes:
        table: that it belongs to.
        name: of the row in its table.
        values: by name; NaN where there is none.
        failure: "" when all went well.
    """

    table: str
    name: str
    values: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


class Column(NamedTuple):
    """One of the values of a row, as it is shown: its name, the column's title, and how the number is written."""

    key: str
    title: str
    form: str


@dataclass(frozen=True)
class Work:
    """Something that gives rows.

    Attributes:
        rows: table and name of each, in the order in which they come.
        measure: of a module, so that another process finds it; yields them.
        arguments: of it.
    """

    rows: Sequence[tuple[str, str]]
    measure: Callable[..., Iterator[Row]]
    arguments: tuple[Any, ...]


def in_time(works: Iterable[Work], minutes: float) -> Iterator[Row]:
    """All rows of all works, each work in a process of its own, which ends when the time is up.

    A row that does not come, because there is no time left or its process failed, says so.
    """
    deadline = time.monotonic() + 60 * minutes
    for work in works:
        awaited, reason = list(work.rows), NO_TIME
        left_s = deadline - time.monotonic()
        if left_s > 0:
            try:
                for row in stream_apart(work.measure, *work.arguments, limit_s=left_s):
                    awaited.remove((row.table, row.name))
                    yield row
                reason = "not measured"
            except TimeoutError:
                pass
            except RuntimeError as error:
                reason = f"failed: {error}"
        yield from (Row(table, name, failure=reason) for table, name in awaited)


def attempted(table: str, name: str, measure: Callable[[], Mapping[str, float]]) -> Row:
    """A row, which may fail alone: what it had taken of a GPU is free for the next one."""
    try:
        return Row(table, name, measure())
    except Exception as error:
        failure = f"failed: {with_kind(error)}"
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return Row(table, name, failure=failure)


def tell(row: Row) -> None:
    """Say at once what came, on standard error: the page comes when all is done, if it ever is."""
    values = ", ".join(f"{key} {value:.4g}" for key, value in row.values.items() if not math.isnan(value))
    print(f"{row.table}: {row.name}: {row.failure or values}", file=sys.stderr, flush=True)


def table_of(rows: Sequence[Row], subject: str, columns: Sequence[Column]) -> str:
    """A Markdown table of rows; one that failed says why in its first column."""

    def cells(row: Row) -> list[str]:
        if row.failure:
            return [row.name, row.failure, *("" for _ in columns[1:])]
        values = (row.values.get(column.key, math.nan) for column in columns)
        shown = zip(values, columns, strict=True)
        return [row.name, *("" if math.isnan(value) else format(value, column.form) for value, column in shown)]

    return markdown_table((subject, *(column.title for column in columns)), [cells(row) for row in rows])
