"""How sentences are put: for each thing that can be said, several phrases; and every word that they can contain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS, USES

STATIC_KINDS = ("category", "colour", "colour_category", "size", "position", "relation", "use")
EVENT_KINDS = ("moved", "untouched", "picked_up", "held", "put_down", "pushed", "fell_over", "brought", "taken_away")
ABSENT_KINDS = ("absent", "near_miss")
SENTENCE_KINDS = STATIC_KINDS + EVENT_KINDS + ABSENT_KINDS
NOTHING = "nothing"
ANYTHING = ("object", "thing", "one")  # for a thing whose kind is not told


@dataclass(frozen=True)
class Sentence:
    """A sentence about a window of time, true of exactly one thing in view, or of none.

    Attributes:
        text: as a person would type it.
        kind: one of :data:`SENTENCE_KINDS`.
        target: index of the thing that it refers to, None where there is none.
        answer: the one word that names it: its category, or :data:`NOTHING`.
        evidence_s: from when to when in the window one can see that it is this thing.
    """

    text: str
    kind: str
    target: int | None
    answer: str
    evidence_s: tuple[float, float]


# {n} stands for a kind, or for one of ANYTHING where the phrase tells the thing apart by itself.
PHRASES: dict[str, tuple[str, ...]] = {
    "category": ("the {n}", "find the {n}", "the object that is {article} {n}", "where is the {n}"),
    "colour": ("the {colour} {n}", "the {n} that is {colour}", "find the {colour} {n}", "the {n} in {colour}"),
    "largest": ("the largest {n}", "the biggest {n}", "the {n} that is the largest"),
    "smallest": ("the smallest {n}", "the {n} that is the smallest", "the tiniest {n}"),
    "left": ("the {n} on the left", "the leftmost {n}", "the {n} farthest to the left"),
    "right": ("the {n} on the right", "the rightmost {n}", "the {n} farthest to the right"),
    "front": ("the {n} nearest to the camera", "the {n} at the front", "the {n} closest to the camera"),
    "back": ("the {n} farthest from the camera", "the {n} at the back"),
    "near_robot": ("the {n} nearest to the robot", "the {n} closest to the robot"),
    "far_robot": ("the {n} farthest from the robot", "the {n} that is the farthest from the robot"),
    "next_to": ("the {n} next to the {a}", "the {n} beside the {a}", "the {n} close to the {a}"),
    "behind": ("the {n} behind the {a}", "the {n} that is behind the {a}"),
    "in_front_of": ("the {n} in front of the {a}", "the {n} that is in front of the {a}"),
    "left_of": ("the {n} to the left of the {a}", "the {n} left of the {a}"),
    "right_of": ("the {n} to the right of the {a}", "the {n} right of the {a}"),
    "between": ("the {n} between the {a} and the {b}", "the {n} that is between the {a} and the {b}"),
    "moved": (
        "the {n} that was moved",
        "the {n} that the robot moved",
        "the {n} that has been moved",
        "the {n} that changed its place",
    ),
    "untouched": (
        "the {n} that has not been touched",
        "the {n} that was not moved",
        "the {n} that stayed where it was",
        "the {n} that the robot did not touch",
    ),
    "picked_up": ("the {n} that was picked up", "the {n} that the robot picked up", "the {n} that was lifted"),
    "held": ("the {n} that the robot is holding", "the {n} in the gripper", "the {n} that the robot holds"),
    "held_what": ("what the robot is holding", "what is in the gripper"),
    "put_down": (
        "the {n} that was just put down",
        "the {n} that was put down",
        "the {n} that the robot put down",
        "the {n} that the robot let go of",
    ),
    "put_down_last": ("the {n} that was put down last", "the last {n} that was put down"),
    "pushed": ("the {n} that was pushed", "the {n} that the robot pushed", "the {n} that was shoved along the table"),
    "fell_over": ("the {n} that fell over", "the {n} that was knocked over", "the {n} that tipped over"),
    "brought": ("the {n} that the robot brought", "the {n} that was brought in", "the {n} that was not there before"),
    "taken_away": ("the {n} that was taken away", "the {n} that the robot took away", "the {n} that is no longer there"),
}


def phrase(name: str, rng: np.random.Generator, noun: str | None = None, **words: str) -> str:
    """One of the phrases of this name, with a noun for the thing, or some word for anything."""
    noun = noun or str(rng.choice(ANYTHING))
    article = "an" if noun[0] in "aeiou" else "a"
    return str(rng.choice(PHRASES[name])).format(n=noun, article=article, **words)


def vocabulary() -> list[str]:
    """Every word that a sentence or an answer can contain, sorted."""
    phrases = [text for texts in PHRASES.values() for text in texts] + [text for use in USES.values() for text in use.wordings]
    words = {word for text in phrases for word in text.split() if "{" not in word}
    return sorted(words | set(ANYTHING) | set(COLOURS_RGB) | set(KINDS) | {"a", "an", NOTHING})
