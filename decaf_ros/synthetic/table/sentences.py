"""Sentences about a window of an episode: true of exactly one thing in view by a margin, or of none.

A window is what somebody who asks has seen: by default the node's own, four seconds. Whatever can be glimpsed in it is a rival:
a sentence holds for its target and clearly for no rival. What happened before the window has not happened for it.
"""

from __future__ import annotations

import numpy as np

from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS, USES
from decaf_ros.synthetic.table.descriptions import Claim, descriptions
from decaf_ros.synthetic.table.episodes import Episode
from decaf_ros.synthetic.table.events import EventKind
from decaf_ros.synthetic.table.happenings import FALLING_TILT, STILL, happenings
from decaf_ros.synthetic.table.window import Window
from decaf_ros.synthetic.table.wordings import NOTHING, Sentence, phrase

WINDOW_S = 4.0


def sentences_of(episode: Episode, end_s: float, rng: np.random.Generator, seconds: float = WINDOW_S) -> list[Sentence]:
    """All that can be said about the last seconds before a time, in one wording each, and a few sentences true of nothing.

    Args:
        episode: what was played.
        end_s: when one asks.
        rng: chooses the wordings, and what is asked for in vain.
        seconds: how far one looks back.
    """
    window = Window(episode, max(0.0, end_s - seconds), end_s)
    claims = [*descriptions(window), *happenings(window)]
    return [_sentence(claim, window, rng) for claim in claims] + absent_sentences(window, rng)


def times_to_ask(episode: Episode, rng: np.random.Generator, count: int) -> list[float]:
    """Times at which to ask, in their order: every second one soon after something happened, the others at any time.

    Args:
        episode: what was played.
        rng: chooses them.
        count: how many.
    """
    first, last = min(1.0, episode.scene.duration_s), episode.scene.duration_s
    ends = [event.end_s for event in episode.history.events]
    times = []
    for index in range(count):
        time_s = float(rng.uniform(first, last))
        if ends and index % 2 == 0:
            time_s = float(rng.choice(ends)) + float(rng.uniform(0.2, 0.75 * WINDOW_S))
        times.append(min(max(time_s, first), last))
    return sorted(times)


def _sentence(claim: Claim, window: Window, rng: np.random.Generator) -> Sentence:
    if claim.kind == "use":
        text = str(rng.choice(USES[claim.phrase].wordings))
    else:
        text = phrase(claim.phrase, rng, claim.noun, **dict(claim.words))
    evidence = claim.evidence_s or (window.start_s, window.end_s)
    return Sentence(text, claim.kind, claim.target, window.kinds[claim.target], evidence)


def absent_sentences(window: Window, rng: np.random.Generator) -> list[Sentence]:
    """Sentences that are true of nothing that can be glimpsed: where nothing is like it, and near misses."""
    kinds = {window.kinds[thing] for thing in window.present}
    colours = {window.colours[thing] for thing in window.present}
    looks = {(window.kinds[thing], window.colours[thing]) for thing in window.present}

    absent: list[str] = []
    if others := sorted(set(KINDS) - kinds):
        kind = str(rng.choice(others))
        absent.append(phrase("category", rng, kind))
        if strange := sorted(set(KINDS[kind].colours) - colours):
            absent.append(phrase("colour", rng, kind, colour=str(rng.choice(strange))))
    if others := sorted(set(COLOURS_RGB) - colours):
        absent.append(phrase("colour", rng, colour=str(rng.choice(others))))
    if uses := sorted(name for name, use in USES.items() if not kinds & (use.kinds | use.nearly)):
        absent.append(str(rng.choice(USES[str(rng.choice(uses))].wordings)))

    near: list[str] = []
    # The kind is there in other colours, the colour on other kinds: a red mug where there are a red can and a blue mug.
    crossed = sorted((k, c) for k in kinds for c in colours & set(KINDS[k].colours) if (k, c) not in looks)
    if crossed:
        kind, colour = crossed[int(rng.integers(len(crossed)))]
        near.append(phrase("colour", rng, kind, colour=colour))
    near += _events_that_were_not(window, rng)
    span = (window.start_s, window.end_s)
    return [Sentence(text, "absent", None, NOTHING, span) for text in absent] + [
        Sentence(text, "near_miss", None, NOTHING, span) for text in near
    ]


def _events_that_were_not(window: Window, rng: np.random.Generator) -> list[str]:
    """Things are there, but nothing of the kind happened to any of them, not even nearly."""
    history, start_s, end_s = window.episode.history, window.start_s, window.end_s
    happened = {event.kind for event in history.events if event.start_s <= end_s and event.end_s >= start_s}
    held, moved = history.held_within(start_s, end_s), history.moved_metres(start_s, end_s) > STILL
    touched = history.touched_within(start_s, end_s)
    texts: list[str] = []
    if not held.any():
        texts.append(phrase("held_what", rng) if rng.random() < 0.5 else phrase("held", rng))
        if not touched.any():
            texts.append(phrase("picked_up", rng))
    tilted = history.tilted_within(start_s, end_s) > FALLING_TILT
    unlike = {
        "put_down": (EventKind.PUT_DOWN, held),
        "fell_over": (EventKind.FELL_OVER, tilted & np.array([KINDS[kind].upright for kind in window.kinds])),
        "pushed": (EventKind.PUSHED, moved & ~held),
    }
    for name, (kind, nearly) in unlike.items():
        if kind not in happened and not nearly.any():
            texts.append(phrase(name, rng))
    # Something moved, but none of this kind did.
    quiet = [
        kind for kind in sorted(set(window.kinds)) if (of := window.of_kind(kind)) and not (moved | held | touched)[of].any()
    ]
    if moved.any() and quiet:
        texts.append(phrase("moved", rng, str(rng.choice(quiet))))
    return texts
