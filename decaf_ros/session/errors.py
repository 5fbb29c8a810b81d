"""Why the session cannot do what it is asked for."""

from __future__ import annotations


class SessionError(Exception):
    """A request that cannot be met; the message names the cause and the way out."""


class NoFramesError(SessionError):
    """A query came before any frame."""


class NotThereError(SessionError):
    """Nothing in view fits the sentence.

    Attributes:
        presence: how likely there is such a thing, in [0, 1].
    """

    def __init__(self, message: str, presence: float) -> None:
        super().__init__(message)
        self.presence = presence


class SupersededError(SessionError):
    """The world that a query looked at is gone: a reset, a jump of the stamps, another image size."""


class UnknownIdError(SessionError):
    """No object or query has this id."""
