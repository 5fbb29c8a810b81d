"""What can stand on the table: kinds of things, their colours, and what they are for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decaf_ros.text import quoted

COLOURS_RGB: dict[str, tuple[int, int, int]] = {
    "red": (196, 28, 32),
    "green": (38, 142, 58),
    "blue": (34, 74, 196),
    "yellow": (240, 204, 32),
    "orange": (238, 116, 18),
    "purple": (112, 44, 150),
    "pink": (240, 132, 176),
    "white": (236, 236, 230),
    "black": (36, 36, 40),
}
_ANY = tuple(COLOURS_RGB)


@dataclass(frozen=True)
class Kind:
    """A kind of thing.

    Attributes:
        colours: that it comes in, words of :data:`COLOURS_RGB`.
        scales: smallest and largest factor on its usual size.
        upright: it stands up, and can fall over.
        liftable: the gripper can take it from above.
        rolls: it does not stay where it is left on its side.
    """

    colours: tuple[str, ...] = _ANY
    scales: tuple[float, float] = (0.9, 1.12)
    upright: bool = False
    liftable: bool = True
    rolls: bool = False


KINDS: dict[str, Kind] = {
    "mug": Kind(scales=(0.85, 1.15)),
    "bowl": Kind(scales=(0.8, 1.2)),
    "plate": Kind(scales=(0.75, 1.15), liftable=False),
    "bottle": Kind(scales=(0.8, 1.1), upright=True),
    "can": Kind(upright=True),
    "box": Kind(scales=(0.8, 1.15), upright=True),
    "book": Kind(scales=(0.9, 1.1)),
    "sponge": Kind(colours=("green", "blue", "yellow", "orange", "pink", "purple"), scales=(0.9, 1.15)),
    "cube": Kind(scales=(0.75, 1.25)),
    "ball": Kind(scales=(0.8, 1.2), rolls=True),
    "car": Kind(colours=("red", "green", "blue", "yellow", "orange", "purple", "white", "pink"), scales=(0.9, 1.2)),
    "teapot": Kind(scales=(0.92, 1.05)),
    "pan": Kind(colours=("red", "green", "blue", "orange", "black", "purple"), scales=(0.9, 1.1)),
    "hammer": Kind(colours=("red", "green", "blue", "yellow", "orange", "black"), scales=(0.9, 1.1)),
    "banana": Kind(colours=("yellow", "green"), scales=(0.95, 1.15)),
    "apple": Kind(colours=("red", "green", "yellow"), scales=(0.95, 1.15)),
    "lemon": Kind(colours=("yellow", "green"), scales=(0.95, 1.15)),
    "pear": Kind(colours=("green", "yellow", "red"), scales=(0.95, 1.1)),
}


@dataclass(frozen=True)
class Use:
    """What things are for.

    Attributes:
        kinds: that serve it.
        nearly: kinds of which people would argue; where one is in view, nothing is said about this use.
        wordings: how one asks for such a thing.
    """

    kinds: frozenset[str]
    nearly: frozenset[str]
    wordings: tuple[str, ...]


def _use(kinds: str, nearly: str, *wordings: str) -> Use:
    return Use(frozenset(kinds.split()), frozenset(nearly.split()), wordings)


USES: dict[str, Use] = {
    "drink": _use("mug", "bottle can teapot bowl", "something to drink from", "what one drinks from"),
    "fruit": _use("banana apple lemon pear", "", "the fruit", "a piece of fruit"),
    "read": _use("book", "box", "something to read", "what one can read"),
    "clean": _use("sponge", "", "something to clean with", "something to wipe the table with"),
    "play": _use("ball cube car", "", "the toy", "something to play with"),
    "tool": _use("hammer", "sponge pan", "the tool", "something to drive a nail with"),
    "cook": _use("pan", "teapot", "something to cook in", "what one fries an egg in"),
    "tea": _use("teapot", "mug bottle can pan", "something to make tea in", "what one pours tea from"),
    "eat_from": _use("plate bowl", "pan box can", "something to eat from", "the dish to eat from"),
}


def require_known(word: str, known: Iterable[str], what: str) -> None:
    """Raise ``ValueError`` with the words there are, unless the word is one of them."""
    words = list(known)
    if word not in words:
        raise ValueError(f"unknown {what} {quoted(word)}; known are {', '.join(words)}")


def require_look(kind: str, colour: str) -> None:
    """Raise ``ValueError`` with what there is, unless there are things of this kind in this colour."""
    require_known(kind, KINDS, "object")
    require_known(colour, COLOURS_RGB, "colour")
    if colour not in KINDS[kind].colours:
        raise ValueError(f"there is no {colour} {kind}; its colours are {', '.join(KINDS[kind].colours)}")
