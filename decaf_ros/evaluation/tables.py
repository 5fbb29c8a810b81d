"""Tables for people and for the repository's pages."""

from __future__ import annotations

from collections.abc import Sequence

from decaf_ros.text import brief


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text; ends in a line break.

    Cells may hold names from elsewhere: each is one line, and what would end it is escaped.
    """
    lines = [[_cell(text) for text in row] for row in (header, *rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join(texts) + "\n"


def _cell(text: str) -> str:
    return brief(text).replace("\\", "\\\\").replace("|", "\\|")
