"""Journals: what was written is read, and whatever somebody makes of the file, the only error is one that names the line."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from test_dataset_files import failing_only_by, json_values

from decaf_ros.evaluation.journal import Journal, JournalError, LiveScores, Record
from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.evaluation.summary import HEADER, LIVE_HEADER, live_rows, summary_rows, write_expressions
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.outputs import OutputFolder

SETTINGS = {"dataset": "tiny"}
texts = st.text(st.characters(exclude_categories=["Cs"]))
scores = st.floats(0, 1) | st.just(math.nan)
pairs = st.none() | st.builds(MaskScores, scores, scores)
shares = st.none() | st.floats(0, 1)
seconds = st.floats(0) | st.just(math.nan)
records = st.builds(
    Record,
    *[texts] * 6,
    confident=st.booleans(),
    seconds=seconds,
    coarse=pairs,
    masks=pairs,
    live=st.none() | st.builds(LiveScores, seconds, seconds, scores),
    robustness=shares,
    found=st.booleans(),
    there=st.none() | st.booleans(),
    presence=shares,
)


@pytest.fixture
def out(tmp_path) -> OutputFolder:
    return OutputFolder(tmp_path)


def plain(record: Record) -> str:
    """Alike for records that are alike, NaN among them; an infinity is none that a journal has."""
    return repr(asdict(record)).replace("inf", "nan")


@examples(100)
@given(st.lists(records, unique_by=lambda record: record.key, max_size=5), st.integers(0, 300))
def test_what_was_written_is_read_though_the_end_is_lost(tmp_path, written, lost):
    out, path = OutputFolder(tmp_path), tmp_path / "results.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(out, SETTINGS)
    for record in written:
        journal.add(record)
    assert list(map(plain, Journal(out, SETTINGS).records.values())) == list(map(plain, written))
    left = path.read_bytes()[: max(0, path.stat().st_size - lost)]
    path.write_bytes(left)
    again = Journal(out, SETTINGS)
    complete = max(0, left.count(b"\n") - 1)
    assert list(map(plain, again.records.values())) == list(map(plain, written[:complete]))
    assert path.read_bytes().endswith(b"\n")


def use(out: OutputFolder) -> None:
    """As the command does: what was read is summed up, and written as tables."""
    records = list(Journal(out, SETTINGS).records.values())
    for header, rows in ((HEADER, summary_rows("mevis", records)), (LIVE_HEADER, live_rows(records))):
        table = markdown_table(header, rows)
        assert len(table.splitlines()) == 2 + len(rows)
    write_expressions(out, "expressions.csv", records)


PAIR = MaskScores(0.5, 0.5)
GOOD: dict[str, Any] = asdict(Record("full", "v", "0", "left", "", "thing", True, 1.0, PAIR, PAIR, LiveScores(1.0, 1.0, 0.5)))


@examples(150)
@given(st.dictionaries(st.sampled_from([*GOOD, "more"]), json_values), st.lists(st.sampled_from(list(GOOD)), max_size=1))
def test_other_values(tmp_path, changed, lost):
    record = {name: value for name, value in (GOOD | changed).items() if name not in lost}
    lines = [json.dumps({"settings": SETTINGS}), json.dumps(record)]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    with failing_only_by(JournalError):
        use(OutputFolder(tmp_path))


@examples(150)
@given(st.integers(0, 400), st.binary(max_size=5), st.integers(0, 5))
def test_other_bytes(tmp_path, start, new, lost):
    path = tmp_path / "results.jsonl"
    good = "".join(f"{json.dumps(each)}\n" for each in ({"settings": SETTINGS}, GOOD, GOOD | {"video": "w"})).encode()
    path.write_bytes(good[:start] + new + good[start + lost :])
    with failing_only_by(JournalError):
        use(OutputFolder(tmp_path))


def test_a_line_without_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"settings": SETTINGS}) + "\n")
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a hole: no memory would hold it
    with pytest.raises(JournalError, match="line 2 is longer than 1048576 bytes"):
        Journal(OutputFolder(tmp_path), SETTINGS)
