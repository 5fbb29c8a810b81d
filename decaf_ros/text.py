"""What may be said to a model and shown to people: one line of text."""

from __future__ import annotations


def checked_line(given: str, what: str) -> str:
    """The text without surrounding white space.

    Args:
        given: the text.
        what: it is, for the message.

    Raises:
        ValueError: it holds characters that cannot be printed, line breaks among them.
    """
    text = given.strip()
    unprintable = sorted({repr(char) for char in text if not char.isprintable()})
    if unprintable:
        raise ValueError(f"the {what} holds characters that cannot be printed: {', '.join(unprintable[:5])}")
    return text
