"""Scripted episodes on the robot's table: an object is hidden, leaves and returns elsewhere, or meets its double.

Where a thing is hidden or passed, nothing moves but the camera, which goes around the middle between two things: as seen by it
they pass each other head-on, and how fast it goes says for how long one hides the other. Where a thing leaves, the arm does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from decaf_ros.bench.scenery import (
    ANY_KINDS,
    LOW_KINDS,
    MIDDLE,
    draw_look,
    draw_looks,
    draw_places,
    draw_thing,
    draw_unseen_place,
    other_colour,
    still_camera,
    xy_of,
)
from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import BoolArray, Frame, ObjectMask, ObjectPrompt
from decaf_ros.evaluation.metrics import region_similarity
from decaf_ros.evaluation.replay import Replay, filmed
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.jobs import QueryRequest
from decaf_ros.synthetic.table.episodes import MOST_ATTEMPTS, Episode
from decaf_ros.synthetic.table.rendering import View
from decaf_ros.synthetic.table.scene import Action, Camera, Scene, Thing

HZ = 10.0
OCCLUSIONS = (5, 15, 40)
ASKED_AT_S, MOVES_AT_S = 1.0, 4.0
PATIENCE_S = 3.0
DOUBLE = "meets its double"
FOLLOWED_FROM_IOU = 0.5
_STEADY_FRAMES = 3
_CLEAR = 0.8  # visible share of what is in sight again
_SHOWN = 0.95  # the same of what is followed before anything happens
_TALL_KINDS = ("mug", "can", "bottle", "teapot")  # that hide a part of what they pass
_APART = 0.27  # metres from the middle of the table before the camera, where others stand to either side
_GAPS = (0.12, 0.15)  # metres between the middles of two things that pass each other
_TURN, _SWAY = 0.85, 1.2  # radians to either side that the camera goes, and would go at most
_TURN_S = 2 * math.asin(_TURN / _SWAY)  # of the scene, which the camera's way takes
_PACE = 0.22  # of the scene's time against the script's, in which the camera turns by a quarter radian a second
_DOUBLE_MOVES_AT_S = 1.0


@dataclass(frozen=True)
class Script:
    """An episode in which a thing goes out of sight, or another one passes it.

    Attributes:
        kind: one of :data:`SCRIPT_KINDS`.
        scene: what is played.
        thing: index of the thing that is followed.
        path: times of the script and of the scene, in seconds, between which time goes evenly: where nothing moves but the
            camera, it may stand still, or go at any speed.
        moves_at_s: time of the script until which nothing happens.
        back_s: time of the script from which the thing is clearly in sight again.
    """

    kind: str
    scene: Scene
    thing: int
    path: tuple[tuple[float, float], ...]
    moves_at_s: float
    back_s: float = math.nan

    @property
    def expression(self) -> str:
        """A sentence that holds for this thing alone, but for its double."""
        thing = self.scene.things[self.thing]
        return f"the {thing.colour} {thing.kind}"

    @property
    def end_s(self) -> float:
        """Of all that happens, in the script's time."""
        return self.path[-1][0]

    def scene_time(self, time_s: float) -> float:
        """The scene's time at one of the script's."""
        script_s, scene_s = zip(*self.path, strict=True)
        return float(np.interp(time_s, script_s, scene_s))


class Played:
    """A script with its pictures."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._episode = Episode(script.scene)

    def view(self, time_s: float) -> View:
        """What the camera sees at a time of the script."""
        return self._episode.render(self._script.scene_time(time_s))

    def shares(self, times_s: Sequence[float], things: Sequence[int]) -> list[float]:
        """How much of some things is visible, of that of which least is."""
        when = (self._script.scene_time(time_s) for time_s in times_s)
        return [float(self._episode.visible_fractions(time_s)[list(things)].min()) for time_s in when]

    def faults(self) -> list[str]:
        """Why it should not be shown."""
        return self._episode.faults()


@dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    Attributes:
        kind: of the script.
        found: whether the thing was followed when it began to move: what comes later says something only then.
        delay_s: time from its return until it is followed steadily again, under its old id; ``None`` when later than
            :data:`PATIENCE_S`.
        wrong: share of frames out of sight on which a mask was claimed.
    """

    kind: str
    found: bool
    delay_s: float | None
    wrong: float


def script_of(kind: str, seed: int) -> Script:
    """The script of a kind, one of :data:`SCRIPT_KINDS`, that is drawn from a seed.

    It has come off: the thing is in full sight until it moves, then out of it, and in sight again at the end; where it only
    meets another one, so are both, and one hides a part of the other.
    """
    rng, (draw, gone) = np.random.default_rng(seed), _DRAWN[kind]
    for _ in range(MOST_ATTEMPTS):
        try:
            script = draw(rng)
            played = Played(script)
        except ValueError:  # things would stand in each other
            continue
        things = (script.thing,) if gone else (0, 1)
        shares = np.array(played.shares([index / HZ for index in range(round(script.end_s * HZ) + 1)], things))
        before, unclear = shares[: round(script.moves_at_s * HZ) + 1], np.flatnonzero(shares < _CLEAR)
        came_off = before.min() >= _SHOWN and (shares.min() == 0 if gone else len(unclear) > 0) and shares[-1] >= _CLEAR
        if came_off and not played.faults():
            return replace(script, kind=kind, back_s=float(unclear[-1] + 1) / HZ)
    raise AssertionError(f"{MOST_ATTEMPTS} scripts of seed {seed} in which a thing {kind} went wrong")


def play(script: Script, tracker: MaskTracker, grounder: Grounder, config: SessionConfig) -> Outcome:
    """Ask for the thing, let it go out of sight, and see whether it is found again."""
    played = Played(script)
    seen: list[tuple[ObjectMask, ...]] = []
    replay = Replay(_film(played), tracker, grounder, config, tell=lambda each: seen.append(each.objects))
    replay.run_until(ASKED_AT_S)
    replay.ask(QueryRequest(script.expression))
    replay.run_until(script.back_s + PATIENCE_S + (_STEADY_FRAMES - 1) / HZ)
    truths = [played.view(index / HZ).mask_of(script.thing) for index in range(len(seen))]
    scores = [_best(truth, objects) for truth, objects in zip(truths, seen, strict=True)]
    before = scores[round(MOVES_AT_S * HZ)]
    back = round(script.back_s * HZ)
    good = [score[0] >= FOLLOWED_FROM_IOU and score[1] == before[1] for score in scores]
    steady = [index for index in range(back, len(good) - _STEADY_FRAMES + 1) if all(good[index : index + _STEADY_FRAMES])]
    hidden = [objects for truth, objects in zip(truths, seen, strict=True) if not truth.any()]
    claimed = [any(each.mask_hw.any() for each in objects) for objects in hidden]
    return Outcome(
        script.kind,
        found=before[0] >= FOLLOWED_FROM_IOU,
        delay_s=(steady[0] - back) / HZ if steady else None,
        wrong=float(np.mean(claimed)) if claimed else 0.0,
    )


def keeps_identity(script: Script, tracker: MaskTracker, grounder: Grounder) -> bool:
    """Whether the thing, pointed out by its mask, is followed on most frames of the last half second, and not its double."""
    played = Played(script)
    seen: list[tuple[ObjectMask, ...]] = []
    config = SessionConfig(reacquire=False)
    replay = Replay(_film(played), tracker, grounder, config, tell=lambda each: seen.append(each.objects))
    replay.run_until(0.5)
    replay.point_out(ObjectPrompt(mask_hw=played.view(replay.now_s).mask_of(script.thing)))
    replay.run_until(script.end_s)
    kept = []
    for index in range(len(seen))[-round(HZ / 2) :]:
        truth, (tracked,) = played.view(index / HZ), seen[index]
        own, other = (region_similarity(tracked.mask_hw, truth.mask_of(thing)) for thing in (script.thing, 1 - script.thing))
        kept.append(own >= FOLLOWED_FROM_IOU and own > other)
    return sum(kept) > len(kept) / 2


def _film(played: Played) -> Iterator[Frame]:
    return filmed(lambda time_s: played.view(time_s).image_rgb, HZ)


def _best(truth: BoolArray, objects: Sequence[ObjectMask]) -> tuple[float, int]:
    """IoU and id of the object that fits the thing best."""
    return max(((region_similarity(each.mask_hw, truth), each.object_id) for each in objects), default=(0.0, 0))


def _hidden(frames: int, rng: np.random.Generator) -> Script:
    """Behind a tall box, all of it for so many frames, and out again on the other side or on the same one."""
    thing, *others = draw_looks(rng, LOW_KINDS, ANY_KINDS, ANY_KINDS)
    scene = _orbited(rng, (thing, ("box", other_colour(rng, thing, *others))), others, gap=0.2, scales=(1.1, 1.35))
    times_s = np.linspace(0.0, _TURN_S, 80)
    shares = Played(Script("", scene, 0, ((0.0, 0.0), (_TURN_S, _TURN_S)), 0.0)).shares(times_s.tolist(), (0,))
    hidden = times_s[np.array(shares) == 0]
    first, last = (hidden[0], hidden[-1]) if len(hidden) else (0.5 * _TURN_S, 0.55 * _TURN_S)  # which will not come off
    middle, seconds = float(0.5 * (first + last)), frames / HZ
    pace = max(_PACE, float(last - first) / seconds)
    pause = max(0.0, seconds - float(last - first) / pace)
    end = 0.0 if pause and rng.random() < 0.5 else _TURN_S
    behind_s = MOVES_AT_S + middle / pace
    path = ((0.0, 0.0), (MOVES_AT_S, 0.0), (behind_s, middle), (behind_s + pause, middle))
    return Script("", scene, 0, (*path, (behind_s + pause + abs(end - middle) / pace, end)), MOVES_AT_S)


def _passing(rng: np.random.Generator) -> Script:
    """Slowly past an object of another colour and kind, before it or behind it."""
    farther, nearer, *others = draw_looks(rng, LOW_KINDS, _TALL_KINDS, ANY_KINDS, ANY_KINDS)
    scene = _orbited(rng, (farther, nearer), others, gap=float(rng.uniform(*_GAPS)))
    return Script("", scene, int(rng.integers(2)), _turning(MOVES_AT_S), MOVES_AT_S)


def _doubled(rng: np.random.Generator) -> Script:
    """Past one of the same kind and colour, which is nearer to the camera."""
    thing, *others = draw_looks(rng, _TALL_KINDS, ANY_KINDS, ANY_KINDS)
    scene = _orbited(rng, (thing, thing), others, gap=float(rng.uniform(*_GAPS)))
    return Script("", scene, 0, _turning(_DOUBLE_MOVES_AT_S), _DOUBLE_MOVES_AT_S)


def _away(rng: np.random.Generator) -> Script:
    """The arm carries it out of sight, and some seconds later back, to another place."""
    looks = draw_looks(rng, LOW_KINDS, *[ANY_KINDS] * 3)
    places = draw_places(rng)[:5]
    things = tuple(draw_thing(rng, look, place) for look, place in zip(looks, places, strict=False))
    unseen = draw_unseen_place(rng)
    pause = float(rng.uniform(0.5, 2.0))
    actions = (
        Action("wait", seconds=MOVES_AT_S),
        *(Action("pick", 0), Action("place", xy=unseen), Action("wait", seconds=pause)),
        *(Action("pick", 0), Action("place", xy=xy_of(places[-1]))),
    )
    camera = still_camera(float(rng.uniform(-0.4, 0.4)))
    seconds = MOVES_AT_S + pause + 12.0
    return Script("", Scene(things, actions, camera, draw_look(rng), seconds), 0, ((0.0, 0.0), (seconds, seconds)), MOVES_AT_S)


_DRAWN: dict[str, tuple[Callable[[np.random.Generator], Script], bool]] = {
    **{f"hidden {frames} frames": (partial(_hidden, frames), True) for frames in OCCLUSIONS},
    "leaves and returns elsewhere": (_away, True),
    "passes another object": (_passing, False),
    DOUBLE: (_doubled, False),
}
SCRIPT_KINDS = tuple(_DRAWN)
"""In all of which but the last a sentence tells the thing apart."""


def _turning(moves_at_s: float) -> tuple[tuple[float, float], ...]:
    """The camera stands still, and then turns from one side to the other."""
    return (0.0, 0.0), (moves_at_s, 0.0), (moves_at_s + _TURN_S / _PACE, _TURN_S)


def _orbited(
    rng: np.random.Generator,
    pair: tuple[tuple[str, str], tuple[str, str]],
    others: Sequence[tuple[str, str]],
    gap: float,
    scales: tuple[float, float] = (1.1, 1.1),
) -> Scene:
    """Two things in a line with the camera when it is half way, the second one nearer to it, and others apart from them.

    Args:
        rng: draws all else.
        pair, others: kinds and colours; two others at most.
        gap: between the middles of the two, in metres.
        scales: of the two.
    """
    turn = float(rng.uniform(-0.5, 0.5))
    ahead, aside = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    middle = np.asarray(MIDDLE)
    places = [middle - 0.5 * gap * ahead, middle + 0.5 * gap * ahead]
    places += [middle + side * _APART * aside + float(rng.uniform(-0.08, 0.08)) * ahead for side in (-1, 1)]
    looks = (*pair, *others)
    seeds = {look: int(rng.integers(2**31)) for look in looks}  # a double has the same proportions and patterns
    things = tuple(
        Thing(*look, scale, xy_of(place), turn, seeds[look])
        for look, scale, place in zip(looks, (*scales, 1.0, 1.0), places, strict=False)
    )
    return Scene(things, (), _camera(turn), draw_look(rng), duration_s=_TURN_S + 0.1)


def _camera(azimuth: float) -> Camera:
    """One that goes from one side to the other within :data:`_TURN_S`."""
    sway, phase = (_SWAY, 0.0, 0.0), -math.asin(_TURN / _SWAY)
    return Camera((*MIDDLE, 0.05), 0.74, azimuth, 0.42, 0.75, sway, period_s=2 * math.pi, phase=phase)


@dataclass(frozen=True)
class Rate:
    """How scripts of one kind ended, those whose thing was followed when it began to move.

    Attributes:
        scripts: how many.
        in_time: share found again in time.
        delay_s: median delay of those.
        wrong: share of frames out of sight on which a mask was claimed.
    """

    scripts: int
    in_time: float
    delay_s: float
    wrong: float


def rates(outcomes: Sequence[Outcome]) -> dict[str, Rate]:
    """Rates by kind."""
    table = {}
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.kind == kind and outcome.found]
        delays = [outcome.delay_s for outcome in mine if outcome.delay_s is not None]
        table[kind] = Rate(
            len(mine),
            len(delays) / max(len(mine), 1),
            float(np.median(delays)) if delays else float("nan"),
            float(np.mean([outcome.wrong for outcome in mine])) if mine else float("nan"),
        )
    return table
