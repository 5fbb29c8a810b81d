"""Results that survive an interruption: one JSON object a line, written as soon as a sentence is done."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from decaf_ros.evaluation.metrics import MaskScores
from decaf_ros.outputs import OutputFolder, naming
from decaf_ros.strict_json import described, from_json, to_json
from decaf_ros.text import brief

JOURNAL_NAME = "results.jsonl"
_BEGINNING = b'{"settings":'
_LONGEST_LINE = 1 << 20  # bytes


@dataclass(frozen=True)
class LiveScores:
    """How soon a sentence was answered that was asked while its video played.

    Attributes:
        answer_s: seconds from the question to the answer, good or bad; NaN when the video was over before.
        first_mask_s: the same to the first mask that is not empty; NaN when none came.
        without_answer: share of the frames from the question on that passed before the answer.
    """

    answer_s: float
    first_mask_s: float
    without_answer: float


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
        masks: scores of the tracked masks on all frames; from the answer on, when it was asked live, as for what follows.
        live: how soon it was answered; ``None`` when it was asked about the whole video.
        robustness: R of the tracked masks; ``None`` also where it is not known what else is there.
        found: whether a tracked mask holds anything, on any frame.
        there: whether ground truth does, on any frame; ``None`` without.
        presence: how likely the model held it that there is such a thing; ``None`` where it was not asked.
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
    live: LiveScores | None = None
    robustness: float | None = None
    found: bool = True
    there: bool | None = None
    presence: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes a record unique: variant, video and sentence."""
        return self.variant, self.video, self.expression_id


class JournalError(Exception):
    """A file of results that cannot be continued; the message names it, the cause and the way out."""


class Journal:
    """The records of a run: those found in its file, ``results.jsonl``, and those added since.

    The first line holds the settings; a file with other ones is refused. What an interrupted write left at the end is cut off.
    Numbers that are not finite are written as ``null``, and read as NaN.

    Args:
        out: the folder of the file, which is made if needed.
        settings: all that the scores depend on, but for the variant.

    Raises:
        JournalError: the file was written with other settings, is damaged, or is none of these.
        OutputError: it cannot be opened or written.
    """

    def __init__(self, out: OutputFolder, settings: Mapping[str, Any]) -> None:
        self._path = out.path / JOURNAL_NAME
        self._file = out.journal(JOURNAL_NAME)
        self.records: dict[tuple[str, str, str], Record] = {}
        numbers: dict[tuple[str, str, str], int] = {}
        before: Mapping[str, Any] = {}
        for number, line in self._complete_lines():
            content = self._parse(line, number)
            if number == 1:
                before = self._settings(content)
                continue
            record = self._record(content, number)
            if record.key in numbers:
                raise self._error(number, f"is about the same sentence as line {numbers[record.key]}")
            numbers[record.key] = number
            self.records[record.key] = record
        if self.records:
            self._check_settings(before, settings)
        else:  # other settings do no harm
            self._file.truncate(0)
            self._append({"settings": dict(settings)})

    def add(self, record: Record) -> None:
        """Keep a record, and write it to the disk.

        Raises:
            OutputError: it cannot be written, and nothing of it is.
        """
        self._append(asdict(record))
        self.records[record.key] = record

    def _append(self, content: Mapping[str, Any]) -> None:
        rest = (to_json(content) + "\n").encode()
        with naming(self._path):
            complete = os.fstat(self._file.fileno()).st_size
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    self._file.truncate(complete)
                raise

    def _complete_lines(self) -> Iterator[tuple[int, bytes]]:
        """All lines with their numbers. What follows the last one is cut off, when the others were good."""
        with open(os.dup(self._file.fileno()), "rb") as file:
            complete = number = file.seek(0)
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if number == 1 and not line.startswith(_BEGINNING[: len(line)]):
                    raise self._foreign()
                if not line.endswith(b"\n"):
                    if len(line) == _LONGEST_LINE:
                        raise self._error(number, f"is longer than {_LONGEST_LINE} bytes")
                    self._file.truncate(complete)
                    return
                complete += len(line)
                yield number, line

    def _settings(self, header: Mapping[str, Any]) -> Mapping[str, Any]:
        settings = header.get("settings")
        if not isinstance(settings, dict):
            raise self._foreign()
        return settings

    def _check_settings(self, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        changed = [
            f"{key} was {brief(repr(before.get(key)))}, now {value!r}"
            for key, value in settings.items()
            if before.get(key) != value
        ]
        if changed:
            raise JournalError(f"{self._path} has results of other settings: {'; '.join(changed)}. Use another output folder")

    def _record(self, content: Mapping[str, Any], number: int) -> Record:
        try:
            return Record(**{name: read(content[name]) for name, read in _READERS.items()}, live=_live(content.get("live")))
        except KeyError as error:
            raise self._error(number, f"is no record: it lacks {error}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise self._error(number, f"is no record: {brief(error)}") from error

    def _parse(self, line: bytes, number: int) -> Mapping[str, Any]:
        try:
            content = from_json(line)
        except ValueError as error:
            raise self._error(number, f"is damaged: {brief(error)}") from error
        if not isinstance(content, dict):
            raise self._error(number, "is no record")
        return content

    def _error(self, number: int, cause: str) -> JournalError:
        way_out = "Delete the line to have it computed anew, or use another output folder"
        return JournalError(f"{self._path}, line {number} {cause}. {way_out}")

    def _foreign(self) -> JournalError:
        return JournalError(f"{self._path} does not begin with the settings of an evaluation. Use another output folder")


def _scores(value: Any) -> MaskScores | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{described(value)} is no pair of scores")
    scores = MaskScores(**{name: _number(each) for name, each in value.items()})
    if any(each < 0 or each > 1 for each in (scores.j, scores.f)):
        raise ValueError(f"the scores {scores.j:g} and {scores.f:g} do not lie between 0 and 1")
    return scores


def _share(value: Any) -> float | None:
    if value is None:
        return None
    share = _number(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{share:g} does not lie between 0 and 1")
    return share


def _live(value: Any) -> LiveScores | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{described(value)} is not how soon it was answered")
    live = LiveScores(**{name: _number(each) for name, each in value.items()})
    if live.answer_s < 0 or live.first_mask_s < 0 or live.without_answer < 0 or live.without_answer > 1:
        raise ValueError(f"{live.answer_s:g} s, {live.first_mask_s:g} s and a share of {live.without_answer:g} cannot be")
    return live


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{described(value)} is no number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{described(value)} is no text")
    value.encode()  # halves of surrogate pairs can be shown and written nowhere: a ValueError
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{described(value)} is neither true nor false")
    return value


_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("variant", "video", "expression_id", "expression", "category", "object_name"), _text),
    "confident": _truth,
    "seconds": _number,
    "coarse": _scores,
    "masks": _scores,
    "robustness": _share,
    "found": _truth,
    "there": lambda value: None if value is None else _truth(value),
    "presence": _share,
}
