"""Why the session cannot do what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass


class SessionError(Exception):
    """A request that cannot be met; the message names the cause and the way out."""


class NoFramesError(SessionError):
    """A query came before any frame."""


class NothingFoundError(SessionError):
    """No mask was found of what the language model takes to be there."""


class SupersededError(SessionError):
    """The world that a query looked at is gone: a reset, a jump of the stamps, another image size."""


@dataclass(frozen=True)
class Guess:
    """What comes nearest where nothing fits.

    Attributes:
        box_xyxy: ``(x_min, y_min, x_max, y_max)`` in pixels, max exclusive.
        score: tracklet score, in [0, 1].
        stamp_ns: of the frame that the box is on.
    """

    box_xyxy: tuple[int, int, int, int]
    score: float
    stamp_ns: int


class NotThereError(SessionError):
    """By what the language model says, nothing in view fits the sentence.

    Attributes:
        presence: how likely it is that something does, in [0, 1].
        guess: what comes nearest; ``None`` where nothing does.
    """

    def __init__(self, message: str, presence: float, guess: Guess | None) -> None:
        super().__init__(message)
        self.presence = presence
        self.guess = guess


class UnknownIdError(SessionError):
    """No object or query has this id."""
