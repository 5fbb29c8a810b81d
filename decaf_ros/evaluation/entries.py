"""Files of JSON of a dataset, which is data of others: each value is taken as what it must be, or refused with its place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaf_ros.outputs import file_name
from decaf_ros.strict_json import described, from_json
from decaf_ros.text import brief, quoted

_MOST_JSON_BYTES = 4 << 30


class DatasetError(Exception):
    """A dataset that is not where or what it should be; the message names the file, and what is expected."""


class LayoutError(DatasetError):
    """A file that is not where it should be."""


def read_json(path: Path) -> Entry:
    """All of a file.

    Raises:
        LayoutError: it is missing.
        DatasetError: it is no JSON, or larger than any such file.
    """
    if not path.is_file():
        raise LayoutError(f"{path} is missing")
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise DatasetError(f"{path} is larger than {_MOST_JSON_BYTES >> 30} GiB, which no file of a dataset is")
    try:
        return Entry(from_json(path.read_bytes(), unique_names=True), str(path))
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON file: {brief(error)}") from error
    except MemoryError:
        raise DatasetError(f"{path} takes more memory than there is") from None


@dataclass(frozen=True)
class Entry:
    """A value of a dataset's file, which may be anything, and where it stands.

    Its methods give it as what is expected, or raise :class:`DatasetError` with the place.
    """

    value: Any
    where: str

    def error(self, expected: str) -> DatasetError:
        """What to raise where something else is expected."""
        return DatasetError(f"{self.where} is {described(self.value)}, and {expected} is expected")

    def has(self, field: str) -> bool:
        """Whether an object has a field."""
        return field in self.fields()

    def fields(self) -> dict[str, Entry]:
        """Of an object, all by name."""
        if not isinstance(self.value, dict):
            raise self.error("an object")
        return {name: Entry(each, f"{self.where}, {quoted(name)}") for name, each in self.value.items()}

    def __getitem__(self, field: str) -> Entry:
        """Of an object, the field of this name."""
        found = self.fields().get(field)
        if found is None:
            raise DatasetError(f"{self.where} lacks the field {quoted(field)}")
        return found

    def values(self) -> list[Any]:
        """A list, as it is."""
        if not isinstance(self.value, list):
            raise self.error("a list")
        return self.value

    def items(self) -> list[Entry]:
        """Of a list, each with its place."""
        return [Entry(each, f"{self.where}, entry {index}") for index, each in enumerate(self.values())]

    def text(self) -> str:
        """A text, of Unicode."""
        if not isinstance(self.value, str):
            raise self.error("a text")
        try:
            self.value.encode()
        except UnicodeEncodeError:
            raise DatasetError(f"{self.where} is {quoted(self.value)}, which is not Unicode") from None
        return self.value

    def number(self, least: int, most: int) -> int:
        """A whole number, also as text."""
        text = str(self.value) if type(self.value) is int or isinstance(self.value, str) else ""
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise self.error(f"a whole number from {least} to {most}")
        return int(text)

    def name(self) -> str:
        """Of one file or folder, without its ending; also a number."""
        return self.checked(str(self.value) if type(self.value) is int else self.text())

    def names(self) -> list[str]:
        """A list of them, without any twice."""
        names = [each.name() for each in self.items()]
        if len(set(names)) < len(names):
            ((twice, _),) = Counter(names).most_common(1)
            raise DatasetError(f"{self.where} holds {quoted(twice)} twice")
        return names

    def checked(self, name: str) -> str:
        """The name that this entry has or is, which leads nowhere else when it is a file's."""
        try:
            return file_name(name)
        except ValueError as error:
            raise DatasetError(f"{self.where} cannot be the name of a file in the dataset: {error}") from error
