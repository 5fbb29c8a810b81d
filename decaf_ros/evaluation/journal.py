"""Results that survive an interruption: one JSON object a line, written as soon as a sentence is done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decaf_ros.evaluation.metrics import MaskScores


@dataclass(frozen=True)
class Record:
    """How one sentence went under one variant of the method.

    Attributes:
        variant: name of the variant.
        video, expression_id: which sentence.
        expression: the sentence.
        category: its group in the dataset.
        object_name: what the model called the object.
        confident: false when no tracklet passed the threshold.
        seconds: time spent, with scoring.
        coarse: scores of the Otsu masks on the key frames; ``None`` without ground truth, as for ``masks``.
        masks: scores of the tracked masks on all frames.
    """

    variant: str
    video: str
    expression_id: str
    expression: str
    category: str
    object_name: str
    confident: bool
    seconds: float
    coarse: MaskScores | None
    masks: MaskScores | None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes a record unique: variant, video and sentence."""
        return self.variant, self.video, self.expression_id


class JournalError(Exception):
    """A file of results that cannot be continued; the message names it, the cause and the way out."""


class Journal:
    """The records of a run: those found in its file, and those added since.

    The first line holds the settings; a file with other ones is refused. What an interrupted write left at the end is cut off.

    Args:
        path: of the file, which is made if needed.
        settings: all that the scores depend on, but for the variant.

    Raises:
        JournalError: the file was written with other settings, or is damaged.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.records: dict[tuple[str, str, str], Record] = {}
        lines = self._complete_lines()
        if len(lines) < 2:  # no record yet, so that other settings do no harm
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"settings": dict(settings)}) + "\n", encoding="utf-8")
            return
        self._check_settings(self._parse(lines[0], 1), settings)
        for number, line in enumerate(lines[1:], 2):
            record = self._record(line, number)
            self.records[record.key] = record

    def add(self, record: Record) -> None:
        """Keep a record, and write it to the disk."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self.records[record.key] = record

    def _complete_lines(self) -> list[bytes]:
        if not self._path.exists():
            return []
        written = self._path.read_bytes()
        complete = written[: written.rfind(b"\n") + 1]
        if len(complete) < len(written):
            os.truncate(self._path, len(complete))
        return complete.splitlines()

    def _check_settings(self, header: Any, settings: Mapping[str, Any]) -> None:
        before = header.get("settings", {})
        changed = [
            f"{key} was {before.get(key)!r}, now {value!r}" for key, value in settings.items() if before.get(key) != value
        ]
        if changed:
            raise JournalError(f"{self._path} has results of other settings: {'; '.join(changed)}. Use another output folder")

    def _record(self, line: bytes, number: int) -> Record:
        content = self._parse(line, number)
        try:
            scores = {name: MaskScores(**content[name]) if content[name] else None for name in ("coarse", "masks")}
            return Record(**{**content, **scores})
        except (KeyError, TypeError) as error:
            raise JournalError(f"{self._path}, line {number} is no record. {_WAY_OUT}") from error

    def _parse(self, line: bytes, number: int) -> Any:
        try:
            content = json.loads(line)
        except ValueError as error:
            raise JournalError(f"{self._path}, line {number} is damaged: {error}. {_WAY_OUT}") from error
        if not isinstance(content, dict):
            raise JournalError(f"{self._path}, line {number} is no record. {_WAY_OUT}")
        return content


_WAY_OUT = "Delete the line to have it computed anew, or use another output folder"
