"""What can be said about things as they are: names, sizes, positions, relations and uses, each true of one by a margin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decaf_ros.synthetic.table.catalogue import USES
from decaf_ros.synthetic.table.window import Window

Float64Array = npt.NDArray[np.float64]
SIZE_MARGIN, VOLUME_MARGIN, LOOK_MARGIN = 1.18, 1.4, 1.05
IMAGE_MARGIN, DEPTH_MARGIN, ROBOT_MARGIN = 0.08, 0.06, 0.06
NEXT_TO, NOT_NEXT_TO = 0.05, 0.11  # metres between two things that are next to each other, and that are not


@dataclass(frozen=True)
class Claim:
    """Something that is true of one thing in a window.

    Attributes:
        kind: of the sentence.
        phrase: name of its phrases, or the phrase itself where it is about a use.
        target: the thing.
        noun: its kind where that is told, None for any word.
        words: what else goes into the phrase, by name.
        evidence_s: see :class:`~decaf_ros.synthetic.table.wordings.Sentence`.
    """

    kind: str
    phrase: str
    target: int
    noun: str | None
    words: tuple[tuple[str, str], ...] = ()
    evidence_s: tuple[float, float] | None = None


def descriptions(window: Window) -> Iterator[Claim]:
    """All that holds of one shown thing and of no other that is present."""
    claims = [*_names(window), *_sizes(window), *_positions(window), *_relations(window), *_uses(window)]
    yield from (claim for claim in claims if window.shown_n[claim.target])


def _names(window: Window) -> Iterator[Claim]:
    looks = [(window.kinds[thing], window.colours[thing]) for thing in window.present]
    kinds, colours, both = Counter(kind for kind, _ in looks), Counter(colour for _, colour in looks), Counter(looks)
    for thing, (kind, colour) in zip(window.present, looks, strict=True):
        words = (("colour", colour),)
        if kinds[kind] == 1:
            yield Claim("category", "category", thing, kind)
        if colours[colour] == 1:
            yield Claim("colour", "colour", thing, None, words)
        if both[kind, colour] == 1:
            yield Claim("colour_category", "colour", thing, kind, words)


def _groups(window: Window) -> Iterator[tuple[list[int], str | None]]:
    """Things among which one can be the largest or leftmost: all that are present, and those of a kind that is there twice."""
    yield window.present, None
    for kind in sorted(set(window.kinds)):
        if len(window.of_kind(kind)) > 1:
            yield window.of_kind(kind), kind


def _sizes(window: Window) -> Iterator[Claim]:
    """Largest and smallest by extent, by volume and in the image alike, so that no way to look at it says otherwise."""
    extent, volume = window.extents_n3.max(axis=1), window.extents_n3.prod(axis=1)
    looks = extent / window.camera_tn3[..., 2].mean(axis=0)
    for group, noun in _groups(window):
        for name, sign in (("largest", 1.0), ("smallest", -1.0)):
            margins = ((extent, SIZE_MARGIN), (volume, VOLUME_MARGIN), (looks, LOOK_MARGIN))
            winners = {_winner(sign * np.log(values), group, float(np.log(margin))) for values, margin in margins}
            winner = winners.pop()
            if not winners and winner is not None:
                yield Claim("size", name, winner, noun)


def _positions(window: Window) -> Iterator[Claim]:
    """Places in the image and from the robot that hold at every look."""
    values = {
        "left": (-window.image_x_tn, IMAGE_MARGIN),
        "right": (window.image_x_tn, IMAGE_MARGIN),
        "front": (-window.camera_tn3[..., 2], DEPTH_MARGIN),
        "back": (window.camera_tn3[..., 2], DEPTH_MARGIN),
        "near_robot": (-window.robot_distance_tn, ROBOT_MARGIN),
        "far_robot": (window.robot_distance_tn, ROBOT_MARGIN),
    }
    for group, noun in _groups(window):
        for name, (values_tn, margin) in values.items():
            winners = {_winner(row, group, margin) for row in values_tn}
            winner = winners.pop()
            if not winners and winner is not None:
                yield Claim("position", name, winner, noun)


def _relations(window: Window) -> Iterator[Claim]:
    """Between things at rest; a reference is the only one of its kind."""
    references = [thing for thing in window.present if len(window.of_kind(window.kinds[thing])) == 1]
    references = [thing for thing in references if window.shown_n[thing] and window.at_rest_n[thing]]
    for group, noun in _groups(window):
        for reference in references:
            candidates = [thing for thing in group if thing != reference]
            if not candidates or not all(window.at_rest_n[thing] for thing in candidates):
                continue
            for name in ("next_to", "behind", "in_front_of", "left_of", "right_of"):
                yield from _related(window, name, candidates, noun, [reference])
            for other in references:
                if other > reference:
                    yield from _related(window, "between", [c for c in candidates if c != other], noun, [reference, other])


def _related(
    window: Window, name: str, candidates: Sequence[int], noun: str | None, references: Sequence[int]
) -> Iterator[Claim]:
    """The one candidate in clear relation to the references while all others are clearly not, if there is one."""
    clear = [
        thing for thing in candidates if all(_holds(window, name, look, thing, references, True) for look in _looks(window))
    ]
    maybe = [
        thing for thing in candidates if any(_holds(window, name, look, thing, references, False) for look in _looks(window))
    ]
    if len(clear) == 1 and maybe == clear:
        words = tuple(zip("ab", (window.kinds[reference] for reference in references), strict=False))
        yield Claim("relation", name, clear[0], noun, words)


def _looks(window: Window) -> Sequence[int]:
    """Looks at which relations are checked: first, middle and last, for nothing that matters moves but the camera."""
    return sorted({0, len(window.times_s) // 2, len(window.times_s) - 1})


def _holds(window: Window, name: str, look: int, thing: int, references: Sequence[int], clearly: bool) -> bool:
    """Whether a relation holds: clearly, or so that somebody might say so."""
    floor = window.floor_tn2[look]
    right, away = floor[thing] - floor[references[0]]
    if name == "next_to":
        return window.gap(look, thing, references[0]) < (NEXT_TO if clearly else NOT_NEXT_TO)
    if name == "between":
        line = floor[references[1]] - floor[references[0]]
        length = float(np.linalg.norm(line))
        share = float((floor[thing] - floor[references[0]]) @ line) / length**2
        off = abs(float(line[0] * away - line[1] * right)) / length
        return (0.3 < share < 0.7 and off < 0.035 and length > 0.16) if clearly else (0.05 < share < 0.95 and off < 0.10)
    along, across = {
        "behind": (away, right),
        "in_front_of": (-away, right),
        "left_of": (-right, away),
        "right_of": (right, away),
    }[name]
    if clearly:
        return bool(along > 0.07 and abs(across) < 0.4 * along and along < 0.30)
    return bool(along > 0.02 and abs(across) < 1.1 * along + 0.04)


def _uses(window: Window) -> Iterator[Claim]:
    for name, use in USES.items():
        fits = [thing for thing in window.present if window.kinds[thing] in use.kinds]
        if len(fits) == 1 and not any(window.kinds[thing] in use.nearly for thing in window.present):
            yield Claim("use", name, fits[0], None)


def _winner(values: Float64Array, group: Sequence[int], margin: float) -> int | None:
    """The thing of the group with the largest value, if it leads the second by the margin."""
    ordered = sorted(group, key=lambda thing: float(values[thing]))
    if len(ordered) < 2 or values[ordered[-1]] - values[ordered[-2]] < margin:
        return None
    return ordered[-1]
