"""What the demo asks: sentences about the first held-out scenes, from a seed on, that are worth a look."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, groupby

import numpy as np

from decaf_ros.evaluation.held_out import HeldOutQuery, episode_of, queries_of
from decaf_ros.synthetic.table.sampling import require_held_out
from decaf_ros.synthetic.table.window import SEEN
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS

EVENT_KINDS, OTHER_KINDS = ("put_down",), ("colour_category",)
_LATEST_S = 10.0  # at which the demo asks: nobody waits for long


def choose_queries(first_seed: int, shown_s: float) -> tuple[HeldOutQuery, HeldOutQuery, HeldOutQuery]:
    """The demo's three: about an event, about something as it is, and about what is not there.

    The first two mean one of several of a kind that they name, and what they mean stays in view. The third is asked at the
    moment of the second; it is a near miss if there is one.

    Args:
        first_seed: of the scenes.
        shown_s: how long after the question what is meant has to stay in view.

    Raises:
        ValueError: there is no such scene among those that are held out.
    """
    event, _ = next(_suitable(first_seed, EVENT_KINDS, shown_s))
    for other, asked in _suitable(event.seed + 1, OTHER_KINDS, shown_s):
        absent = [query for query in asked if query.sentence.kind in ABSENT_KINDS]
        if absent:
            return event, other, max(absent, key=lambda query: ABSENT_KINDS.index(query.sentence.kind))
    raise AssertionError("there is no last scene")


def _suitable(first_seed: int, kinds: tuple[str, ...], shown_s: float) -> Iterator[tuple[HeldOutQuery, list[HeldOutQuery]]]:
    """The first query of each scene that is suitable, and all that can be asked at its moment.

    What it says held at the moment before, too: the question takes a while to reach the node, and nobody should ask too early.
    """
    for seed in count(first_seed):
        before: set[tuple[str, int | None]] = set()
        for end_s, at_once in groupby(queries_of(require_held_out(seed)), key=lambda query: query.end_s):
            asked = list(at_once)
            fit = [query for query in asked if query.sentence.kind in kinds and _names_one_of_several(query)]
            fit_again = [query for query in fit if (query.sentence.kind, query.sentence.target) in before]
            if fit_again and end_s <= _LATEST_S and _stays_in_view(fit_again[0], shown_s):
                yield fit_again[0], asked
                break
            before = {(query.sentence.kind, query.sentence.target) for query in fit}


def _names_one_of_several(query: HeldOutQuery) -> bool:
    kinds = [thing.kind for thing in episode_of(query.seed).scene.things]
    return query.sentence.answer in query.sentence.text.split() and kinds.count(query.sentence.answer) > 1


def _stays_in_view(query: HeldOutQuery, shown_s: float) -> bool:
    episode, looks_s = episode_of(query.seed), np.arange(query.end_s, query.end_s + shown_s, 1.0)
    return all(episode.visible_fractions(float(look_s))[query.sentence.target] >= SEEN for look_s in looks_s)
