"""Why the session cannot do what it is asked for."""

from __future__ import annotations


class SessionError(Exception):
    """A request that cannot be met; the message names the cause and the way out."""


class NoFramesError(SessionError):
    """A query came before any frame."""


class SupersededError(SessionError):
    """The world that a query looked at is gone: a reset, a jump of the stamps, another image size."""


class UnknownIdError(SessionError):
    """No object or query has this id."""
