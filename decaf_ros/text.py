"""What may be said to a model and shown to people, and how they are told text from elsewhere: one line, escaped, and short."""

from __future__ import annotations

from os import PathLike

_QUOTED_CHARACTERS = 80
_PATH_CHARACTERS = 200
_ERROR_CHARACTERS = 500


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


def quoted(foreign: str, limit: int = _QUOTED_CHARACTERS) -> str:
    """A word or name from elsewhere, in quotes, as it may stand in a message, a log and diagnostics.

    Characters that cannot be printed are escaped. Of a long one the beginning is given, and its length.
    """
    if len(foreign) <= limit:
        return repr(foreign)
    return f"{foreign[:limit]!r}... ({len(foreign)} characters)"


def quoted_path(path: str | PathLike[str]) -> str:
    """A path as :func:`quoted`: it tells where something is, so that more of it is given."""
    return quoted(str(path), _PATH_CHARACTERS)


def brief(foreign: object, limit: int = _ERROR_CHARACTERS) -> str:
    """What a library says, which may repeat what it was given: as :func:`quoted`, without the quotes, in one line."""
    text = str(foreign)
    shown = escaped(" ".join(text[: 2 * limit].split()))
    return shown if len(shown) <= limit and len(text) <= 2 * limit else f"{shown[:limit]}... ({len(text)} characters)"


def with_kind(error: BaseException) -> str:
    """An error as :func:`brief`, after its kind: its text alone may be a bare word, as that of a ``KeyError``, or empty."""
    return f"{type(error).__name__}: {brief(error)}".removesuffix(": ")


def escaped(text: str, kept: str = "") -> str:
    """The text, with characters that cannot be printed escaped, but for those that are to be kept."""
    return "".join(char if char.isprintable() or char in kept else repr(char)[1:-1] for char in text)
