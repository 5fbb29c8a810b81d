"""What the demo asks: sentences about the first held-out scenes, from a seed on, that are worth a look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, groupby

import numpy as np

from decaf_ros.evaluation.held_out import HeldOutQuery, episode_of, queries_of
from decaf_ros.synthetic.table.sampling import require_held_out
from decaf_ros.synthetic.table.window import SEEN
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS, EVENT_KINDS, STATIC_KINDS

PRESENT_KINDS = STATIC_KINDS + EVENT_KINDS
_UNNAMED_KINDS = ("category", "colour", "use")  # that do not tell one of several by their kind
_LATEST_S = 10.0  # at which the demo asks: nobody waits for long


def choose_queries(
    first_seed: int, kinds: tuple[str, str, str], shown_s: float
) -> tuple[HeldOutQuery, HeldOutQuery, HeldOutQuery]:
    """The demo's three: two about scenes of their own, and one that is true of nothing, at the moment of the second.

    The first two mean one of several of a kind that they name, if such sentences do, and what they mean stays in view.

    Args:
        first_seed: of the scenes.
        kinds: of the sentences, two of :data:`PRESENT_KINDS` and one of ``ABSENT_KINDS``.
        shown_s: how long after the question what is meant has to stay in view.

    Raises:
        ValueError: there is no such kind, or no such scene among those that are held out.
    """
    require_kinds(kinds)
    first, _ = next(_suitable(first_seed, kinds[0], shown_s))
    for second, asked in _suitable(first.seed + 1, kinds[1], shown_s):
        for query in asked:
            if query.sentence.kind == kinds[2]:
                return first, second, query
    raise AssertionError("there is no last scene")


def require_kinds(kinds: Sequence[str]) -> tuple[str, str, str]:
    """Three kinds, unless they are none that the demo can ask.

    Raises:
        ValueError: which are known.
    """
    known = (PRESENT_KINDS, PRESENT_KINDS, ABSENT_KINDS)
    if len(kinds) != len(known) or any(kind not in those for kind, those in zip(kinds, known, strict=True)):
        raise ValueError(f"three kinds are wanted: two of {', '.join(PRESENT_KINDS)}, and one of {', '.join(ABSENT_KINDS)}")
    return kinds[0], kinds[1], kinds[2]


def _suitable(first_seed: int, kind: str, shown_s: float) -> Iterator[tuple[HeldOutQuery, list[HeldOutQuery]]]:
    """The first query of each scene that is suitable, and all that can be asked at its moment.

    What it says held at the moment before, too: the question takes a while to reach the node, and nobody should ask too early.
    """
    for seed in count(first_seed):
        before: set[tuple[str, int | None]] = set()
        for end_s, at_once in groupby(queries_of(require_held_out(seed)), key=lambda query: query.end_s):
            asked = list(at_once)
            fit = [query for query in asked if query.sentence.kind == kind and _can_be_mistaken(query)]
            fit_again = [query for query in fit if (query.sentence.kind, query.sentence.target) in before]
            if fit_again and end_s <= _LATEST_S and _stays_in_view(fit_again[0], shown_s):
                yield fit_again[0], asked
                break
            before = {(query.sentence.kind, query.sentence.target) for query in fit}


def _can_be_mistaken(query: HeldOutQuery) -> bool:
    """Whether one has to understand all of it, for there are several of the kind that it names."""
    if query.sentence.kind in _UNNAMED_KINDS:
        return True
    kinds = [thing.kind for thing in episode_of(query.seed).scene.things]
    return query.sentence.answer in query.sentence.text.split() and kinds.count(query.sentence.answer) > 1


def _stays_in_view(query: HeldOutQuery, shown_s: float) -> bool:
    episode, looks_s = episode_of(query.seed), np.arange(query.end_s, query.end_s + shown_s, 1.0)
    return all(episode.visible_fractions(float(look_s))[query.sentence.target] >= SEEN for look_s in looks_s)
