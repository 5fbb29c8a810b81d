"""Scripted episodes of the procedural world: an object is hidden, leaves and returns elsewhere, or meets its double."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import BoolArray, ObjectMask, ObjectPrompt
from decaf_ros.evaluation.metrics import region_similarity
from decaf_ros.evaluation.replay import Replay
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.grounding import Grounder
from decaf_ros.synthetic.world import (
    BACKGROUNDS,
    COLOURS_RGB,
    DEFAULT_SIZE_HW,
    SHAPES,
    Body,
    Motion,
    Path,
    Scene,
    Screen,
    with_bodies,
)

HZ = 10.0
OCCLUSIONS = (5, 15, 40)
ASKED_AT_S, MOVES_AT_S = 1.0, 4.0
PATIENCE_S = 3.0
FIRST_DOUBLE_SEED = 910_000
FOLLOWED_FROM_IOU = 0.5
_STEADY_FRAMES = 3
_RADIUS, _SPEED, _SCREEN_WIDTH = 0.1, 0.45, 0.4
_ASPECT = DEFAULT_SIZE_HW[1] / DEFAULT_SIZE_HW[0]


@dataclass(frozen=True, eq=False)
class Episode:
    """A scene in which one body goes out of sight.

    Attributes:
        kind: "hidden N frames", "leaves and returns elsewhere" or "passes another object".
        scene: the world.
        body_index: of the body.
        back_s: time in seconds from which it is all in sight, and clear of others, again.
    """

    kind: str
    scene: Scene
    body_index: int
    back_s: float

    @property
    def expression(self) -> str:
        """A sentence that holds for this body alone."""
        body = self.scene.bodies[self.body_index]
        return f"the {body.colour} {body.shape}"


@dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    Attributes:
        kind: of the episode.
        found: whether the body was followed when it began to move: what comes later says something only then.
        delay_s: time from its return until it is followed steadily again, under its old id; ``None`` when later than
            :data:`PATIENCE_S`.
        wrong: share of frames out of sight on which a mask was claimed.
    """

    kind: str
    found: bool
    delay_s: float | None
    wrong: float


def episodes(per_kind: int, first_seed: int = 900_000) -> list[Episode]:
    """Draw episodes of all kinds; none of the scenes is one that models are trained on."""
    made = []
    for number in range(per_kind):
        rng = np.random.default_rng(first_seed + number)
        made += [_hidden(frames, rng) for frames in OCCLUSIONS]
        made += [_away(rng), _touching(rng)]
    return made


def play(episode: Episode, tracker: MaskTracker, grounder: Grounder, config: SessionConfig) -> Outcome:
    """Ask for the body, let it go out of sight, and see whether it is found again."""
    replay = Replay(lambda time_s: episode.scene.render(time_s).image_rgb, tracker, grounder, config, HZ)
    replay.run_until(ASKED_AT_S)
    replay.ask(episode.expression)
    replay.run_until(episode.back_s + PATIENCE_S + _STEADY_FRAMES / HZ)
    truths = [episode.scene.render(index / HZ).mask_of(episode.body_index) for index in range(len(replay.seen))]
    scores = [_best(truth, objects) for truth, objects in zip(truths, replay.seen, strict=True)]
    before = scores[round(MOVES_AT_S * HZ)]
    back = round(episode.back_s * HZ)
    good = [score[0] >= FOLLOWED_FROM_IOU and score[1] == before[1] for score in scores]
    steady = [index for index in range(back, len(good) - _STEADY_FRAMES + 1) if all(good[index : index + _STEADY_FRAMES])]
    hidden = [objects for truth, objects in zip(truths, replay.seen, strict=True) if not truth.any()]
    claimed = [any(each.mask_hw.any() for each in objects) for objects in hidden]
    return Outcome(
        episode.kind,
        found=before[0] >= FOLLOWED_FROM_IOU,
        delay_s=(steady[0] - back) / HZ if steady else None,
        wrong=float(np.mean(claimed)) if claimed else 0.0,
    )


def _best(truth: BoolArray, objects: Sequence[ObjectMask]) -> tuple[float, int]:
    """IoU and id of the object that fits the body best."""
    return max(((region_similarity(each.mask_hw, truth), each.object_id) for each in objects), default=(0.0, 0))


def _hidden(frames: int, rng: np.random.Generator) -> Episode:
    """Behind a screen, all of it for so many frames, and out again on the other side or on the same one."""
    seconds = frames / HZ
    width = 2 * _RADIUS / _ASPECT
    crossing = (_SCREEN_WIDTH - width) / _SPEED
    speed = _SPEED * max(1.0, crossing / seconds)
    pause = max(0.0, seconds - crossing)
    y, start, end = float(rng.uniform(0.42, 0.58)), 0.14, 0.86
    behind_s = MOVES_AT_S + (0.5 - start) / speed
    out_s = behind_s + pause
    if pause and rng.random() < 0.5:
        end = start
    path = Path(((MOVES_AT_S, start, y), (behind_s, 0.5, y), (out_s, 0.5, y), (out_s + abs(end - 0.5) / speed, end, y)))
    scene = _scene(rng, path, Screen((_SCREEN_WIDTH, 0.45), Motion((0.5, 0.5))))
    return Episode(f"hidden {frames} frames", scene, 0, out_s + (_SCREEN_WIDTH + width) / 2 / speed)


def _away(rng: np.random.Generator) -> Episode:
    """Out at one side, and in again some seconds later at another side and height."""
    y_out, y_in = (float(value) for value in rng.permutation([0.42, 0.58]))
    width = _RADIUS / _ASPECT
    left_s = MOVES_AT_S + (1 + width - 0.5) / _SPEED
    back_s = left_s + float(rng.uniform(1.0, 3.0))
    path = Path(
        (
            (MOVES_AT_S, 0.5, y_out),
            (left_s, 1 + width, y_out),
            (back_s, -width, y_in),
            (back_s + (0.5 + width) / _SPEED, 0.5, y_in),
        )
    )
    return Episode("leaves and returns elsewhere", _scene(rng, path), 0, back_s + 2 * width / _SPEED)


def _touching(rng: np.random.Generator) -> Episode:
    """Slowly past an object of another colour and shape, in front of it or behind it."""
    start, end, speed = 0.14, 0.86, 0.12
    y = float(rng.uniform(0.45, 0.55))
    path = Path(((MOVES_AT_S, start, y), (MOVES_AT_S + (end - start) / speed, end, y)))
    scene = _scene(rng, path)
    moving, in_the_way, *_ = scene.bodies
    in_the_way = replace(in_the_way, motion=Motion((0.5, y + float(rng.uniform(-0.1, 0.1)))))
    in_front = bool(rng.random() < 0.5)
    bodies = (moving, in_the_way) if in_front else (in_the_way, moving)
    clear_s = MOVES_AT_S + (0.5 + 2 * _RADIUS / _ASPECT - start) / speed
    return Episode("passes another object", with_bodies(scene, bodies), 0 if in_front else 1, clear_s)


def _scene(rng: np.random.Generator, path: Path, *screens: Screen) -> Scene:
    """One body on the path, and two others that stand apart from it."""
    colours, shapes = rng.permutation(list(COLOURS_RGB)), rng.permutation(list(SHAPES))
    still = [
        Body(str(shapes[index]), str(colours[index]), 0.1, Motion((float(rng.uniform(0.2, 0.8)), y), margin_xy=(0.0, 0.0)))
        for index, y in ((1, 0.13), (2, 0.87))
    ]
    moving = Body(str(shapes[0]), str(colours[0]), _RADIUS, path)
    return Scene(int(rng.integers(1 << 30)), DEFAULT_SIZE_HW, str(rng.choice(BACKGROUNDS)), (moving, *still), screens)


def crossing(seed: int) -> Scene:
    """A body (the first) and its double, of the same colour and shape, which passes it head-on and in front of it."""
    rng = np.random.default_rng(seed)
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS_RGB)))
    y = float(rng.uniform(0.4, 0.6))
    dy = float(rng.uniform(-0.08, 0.08))
    speed = float(rng.uniform(0.15, 0.3))
    seconds = 0.7 / speed
    bodies = (
        Body(shape, colour, 0.14, Path(((1.0, 0.15, y), (1.0 + seconds, 0.85, y)))),
        Body(shape, colour, 0.14, Path(((1.0, 0.85, y + dy), (1.0 + seconds, 0.15, y + dy)))),
    )
    return Scene(seed, DEFAULT_SIZE_HW, str(rng.choice(BACKGROUNDS)), bodies)


def keeps_identity(scene: Scene, tracker: MaskTracker, grounder: Grounder) -> bool:
    """Whether the first body, pointed out by its mask, is followed on most frames of the last half second."""
    path = scene.bodies[0].motion
    assert isinstance(path, Path)
    replay = Replay(lambda time_s: scene.render(time_s).image_rgb, tracker, grounder, SessionConfig(reacquire=False), HZ)
    replay.run_until(0.5)
    replay.point_out(ObjectPrompt(mask_hw=scene.render(replay.now_s - 1 / HZ).mask_of(0)))
    end_s = path.waypoints[-1][0]
    replay.run_until(end_s)
    kept = []
    for index in range(len(replay.seen))[-round(HZ / 2) :]:
        truth, (tracked,) = scene.render(index / HZ), replay.seen[index]
        own, other = (region_similarity(tracked.mask_hw, truth.mask_of(body)) for body in range(2))
        kept.append(own >= FOLLOWED_FROM_IOU and own > other)
    return sum(kept) > len(kept) / 2


@dataclass(frozen=True)
class Rate:
    """How episodes of one kind ended, those whose body was followed when it began to move.

    Attributes:
        episodes: how many.
        in_time: share found again in time.
        delay_s: median delay of those.
        wrong: share of frames out of sight on which a mask was claimed.
    """

    episodes: int
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
