"""What can be said about things by what happened to them in a window, each true of one and clearly not of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from decaf_ros.synthetic.table.catalogue import KINDS
from decaf_ros.synthetic.table.descriptions import Claim
from decaf_ros.synthetic.table.events import Event, EventKind
from decaf_ros.synthetic.table.window import Window

MOVED, STILL = 0.04, 0.01  # metres
_STILL_TILT, FALLING_TILT = math.radians(10), math.radians(20)
_SHOWN_S = 0.4  # of the way down, at least, that the window shows of what was put down
_LAST_BY_S = 1.5  # that the last thing was put down after the one before


def happenings(window: Window) -> Iterator[Claim]:
    """All claims about events; of a thing whose kind is there once only, its kind is not told: it would give the event away."""
    for claim in (*_moves(window), *_grips(window), *_other_events(window)):
        seen = claim.evidence_s or (window.start_s, window.end_s)
        if claim.kind == "held":  # now: it has to be in view now
            seen = (window.end_s, window.end_s)
        if window.present_n[claim.target] and window.is_seen_between(claim.target, *seen):
            yield claim


def _nouns(window: Window, thing: int) -> list[str | None]:
    """How the thing may be called: by any word, and by its kind where several of it are present."""
    kind = window.kinds[thing]
    return [None, kind] if len(window.of_kind(kind)) > 1 else [None]


def _moves(window: Window) -> Iterator[Claim]:
    """What was moved among things that were not, and what was not among those that were."""
    moved, still = _moved_and_still(window)
    for group, noun in [(window.present, None), *((window.of_kind(kind), kind) for kind in sorted(set(window.kinds)))]:
        movers, resters = [thing for thing in group if moved[thing]], [thing for thing in group if still[thing]]
        if len(group) < 2 or len(movers) + len(resters) < len(group):  # one of them moved a little: who is to say
            continue
        if len(movers) == 1:
            yield Claim("moved", "moved", movers[0], noun, evidence_s=_motion_of(window, movers[0]))
        if len(resters) == 1:
            motions = [_motion_of(window, thing) for thing in movers]
            evidence = (min(start for start, _ in motions), window.end_s)
            yield Claim("untouched", "untouched", resters[0], noun, evidence_s=evidence)


def _moved_and_still(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """``(things,)`` bool each: clearly moved, and clearly neither moved nor touched in the window."""
    history, start_s, end_s = window.episode.history, window.start_s, window.end_s
    metres, tilts = history.moved_metres(start_s, end_s), history.tilted_within(start_s, end_s)
    touched = history.touched_within(start_s, end_s)
    return metres >= MOVED, (metres <= STILL) & (tilts <= _STILL_TILT) & ~touched


def _motion_of(window: Window, thing: int) -> tuple[float, float]:
    """From when a thing is on its way to the end of the window."""
    history = window.episode.history
    times = [time_s for time_s in window.times_s if history.moved_metres(window.start_s, time_s)[thing] > STILL]
    return (times[0] if times else window.end_s), window.end_s


def _grips(window: Window) -> Iterator[Claim]:
    history, start_s, end_s = window.episode.history, window.start_s, window.end_s
    handled = [thing for thing in range(len(window.kinds)) if history.held_within(start_s, end_s)[thing]]
    picked = history.events_within(EventKind.PICKED_UP, start_s, end_s)
    if len(picked) == 1 and handled == [picked[0].thing]:
        for noun in _nouns(window, picked[0].thing):
            yield Claim("picked_up", "picked_up", picked[0].thing, noun, evidence_s=(picked[0].start_s, end_s))
    held = history.held_at(end_s)
    if len(held) == 1:
        lifts = [event.start_s for event in history.events if event.kind is EventKind.PICKED_UP and event.thing == held[0]]
        since = max((lift_s for lift_s in lifts if lift_s <= end_s), default=start_s)
        evidence = (max(start_s, since), end_s)
        yield Claim("held", "held_what", held[0], None, evidence_s=evidence)
        for noun in _nouns(window, held[0]):
            yield Claim("held", "held", held[0], noun, evidence_s=evidence)
    yield from _put_downs(window)


def _put_downs(window: Window) -> Iterator[Claim]:
    history, start_s, end_s = window.episode.history, window.start_s, window.end_s
    put = history.events_within(EventKind.PUT_DOWN, start_s + _SHOWN_S, end_s)
    unclear = history.touches_of(EventKind.DROPPED, start_s, end_s) | history.touches_of(EventKind.PUT_DOWN, start_s, end_s)
    if not put or unclear - {event.thing for event in put} or put[-1].thing in history.held_at(end_s, 0.0):
        return
    last = put[-1]
    others = [event for event in put if event.thing != last.thing]
    if not others:
        for noun in _nouns(window, last.thing):
            yield Claim("put_down", "put_down", last.thing, noun, evidence_s=(last.start_s, end_s))
    elif last.end_s - others[-1].end_s >= _LAST_BY_S:
        for noun in _nouns(window, last.thing):
            yield Claim("put_down", "put_down_last", last.thing, noun, evidence_s=(last.start_s, end_s))


def _other_events(window: Window) -> Iterator[Claim]:
    """Pushes, falls, and ways into view and out of it."""
    history, start_s, end_s = window.episode.history, window.start_s, window.end_s
    moved = set(np.flatnonzero(history.moved_metres(start_s, end_s) > STILL).tolist())
    held = set(np.flatnonzero(history.held_within(start_s, end_s)).tolist())
    tilted = np.flatnonzero(history.tilted_within(start_s, end_s) > FALLING_TILT).tolist()
    rivals: dict[EventKind, set[int]] = {
        EventKind.PUSHED: moved - held,  # somebody might say that what fell was pushed, too
        EventKind.FELL_OVER: {thing for thing in tilted if KINDS[window.kinds[thing]].upright},
        EventKind.BROUGHT_INTO_VIEW: history.touches_of(EventKind.BROUGHT_INTO_VIEW, start_s, end_s),
        EventKind.TAKEN_AWAY: history.touches_of(EventKind.TAKEN_AWAY, start_s, end_s),
    }
    names = ("pushed", "fell_over", "brought", "taken_away")
    for name, (kind, might) in zip(names, rivals.items(), strict=True):
        events = history.events_within(kind, start_s, end_s)
        if len({event.thing for event in events}) != 1 or might - {events[0].thing}:
            continue
        for noun in _nouns(window, events[0].thing):
            yield Claim(name, name, events[0].thing, noun, evidence_s=_evidence(window, events[-1]))


def _evidence(window: Window, event: Event) -> tuple[float, float]:
    """What was taken away can be seen until it is gone, all else from when it begins to happen."""
    if event.kind is EventKind.TAKEN_AWAY:
        return window.start_s, event.end_s
    return event.start_s, window.end_s
