"""Scripted episodes on the robot's table in which a thing comes into view that was asked for before: the arm brings it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from decaf_ros.bench.scenery import (
    ANY_KINDS,
    draw_look,
    draw_looks,
    draw_places,
    draw_thing,
    draw_unseen_place,
    still_camera,
    xy_of,
)
from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import EventKind, Segmentation
from decaf_ros.evaluation.metrics import region_similarity
from decaf_ros.evaluation.replay import Latency, Replay, filmed
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.attention import AttentionSource
from decaf_ros.session.grounding import Grounder
from decaf_ros.session.jobs import QueryRequest, QueryState
from decaf_ros.synthetic.table.catalogue import KINDS
from decaf_ros.synthetic.table.episodes import MOST_ATTEMPTS, Episode
from decaf_ros.synthetic.table.scene import ASPECT, Action, Scene

HZ = 10.0
ASKED_AT_S, PATIENCE_S = 1.0, 3.0
IN_TIME_S = 1.5
COMES_AFTER_S = (5.0, 30.0)
TRACKED_FROM_IOU = 0.5
LATENCY = Latency(query_s=1.0, key_frame_s=0.0)
STANDING = 4  # sentences whose cost is compared with that of one
GLIMPSED, _CLEAR = 0.02, 0.5  # visible shares: anything of it, and enough, though the fingers hide a part
_BRINGING_S, _CLEARING_S = 5.0, 9.0  # that the arm takes for it, and to move another thing, about
_WAIT_S = 600.0


@dataclass(frozen=True)
class Arrival:
    """An episode in which a thing comes into view.

    Attributes:
        scene: what is played.
        expressions: sentences about what is not in view at the beginning; the first one's is thing 0, which comes, the others'
            never does.
        glimpsed_s: when the first of it can be seen.
        in_view_s: when it has come into view as a whole, but for what the fingers hide.
        distracted: whether the arm moves another thing before.
    """

    scene: Scene
    expressions: tuple[str, ...]
    glimpsed_s: float
    in_view_s: float
    distracted: bool


@dataclass(frozen=True)
class Wait:
    """How it went.

    Attributes:
        distracted: see :class:`Arrival`.
        tracked_s: from when it was in view until it was tracked, less than 0 where that came first; ``None`` when it was not.
        early: whether something was reported before anything of it could be seen.
    """

    distracted: bool
    tracked_s: float | None
    early: bool

    @property
    def in_time(self) -> bool:
        """Whether it was tracked in time, and nothing before it."""
        return not self.early and self.tracked_s is not None and self.tracked_s <= IN_TIME_S


def arrival_of(seed: int) -> Arrival:
    """The episode that is drawn from a seed, one that came off."""
    rng = np.random.default_rng(seed)
    for _ in range(MOST_ATTEMPTS):
        try:
            drawn = _drawn(rng)
            episode = Episode(drawn.scene)
        except ValueError:  # things would stand in each other
            continue
        times_s = np.arange(0.0, drawn.scene.duration_s, 1 / HZ)
        late = times_s > ASKED_AT_S
        shares = np.array([episode.visible_fractions(float(time_s))[0] for time_s in times_s])
        whole = np.array(
            [share >= _CLEAR and _is_whole(episode, time_s) for time_s, share in zip(times_s, shares, strict=True)]
        )
        if not whole.any() or (shares[~late] >= GLIMPSED).any():
            continue
        glimpsed_s, in_view_s = (float(times_s[np.argmax(seen)]) for seen in (shares >= GLIMPSED, whole))
        comes_in_time = COMES_AFTER_S[0] <= in_view_s - ASKED_AT_S <= COMES_AFTER_S[1]
        stays = (shares[times_s > in_view_s] >= _CLEAR).all()
        if comes_in_time and stays and not episode.faults():
            return replace(drawn, glimpsed_s=glimpsed_s, in_view_s=in_view_s)
    raise AssertionError(f"{MOST_ATTEMPTS} arrivals of seed {seed} went wrong")


def _is_whole(episode: Episode, time_s: float) -> bool:
    """Whether no part of thing 0 lies outside of the image."""
    camera, recording = episode.scene.camera, episode.recording
    pose, world_from_camera = recording.poses_at(time_s)[0], camera.world_from_camera(time_s)
    vertices = recording.shapes[0].mesh.vertices_n3 @ pose[:3, :3].T + pose[:3, 3]
    right, down, ahead = ((vertices - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]).T
    half = ahead * math.tan(0.5 * camera.fov_y)
    return bool(((np.abs(down) <= half) & (np.abs(right) <= half * ASPECT)).all())


def await_arrival(arrival: Arrival, tracker: MaskTracker, grounder: Grounder) -> Wait:
    """Ask for the thing before it is there, and see when it is tracked."""
    episode = Episode(arrival.scene)
    replay = _replayed(arrival, episode, tracker, grounder)
    seen: list[Segmentation] = []
    replay.tell = seen.append
    query_id = replay.ask(_standing(arrival.expressions[0])).query_id
    end_s = arrival.in_view_s + PATIENCE_S
    while replay.now_s < end_s and replay.queries()[query_id] is not QueryState.ACTIVE:
        replay.run_until(min(replay.now_s + 1 / HZ, end_s))
    replay.run_until(end_s)
    found_ns = [event.stamp_ns for event in replay.events if event.kind is EventKind.FOUND]
    tracked_s = None
    for segmentation in seen:
        truth = episode.render(segmentation.frame.stamp_ns / 1e9).mask_of(0)
        if any(region_similarity(each.mask_hw, truth) >= TRACKED_FROM_IOU for each in segmentation.objects):
            tracked_s = segmentation.frame.stamp_ns / 1e9 - arrival.in_view_s
            break
    return Wait(arrival.distracted, tracked_s, early=any(stamp_ns / 1e9 < arrival.glimpsed_s for stamp_ns in found_ns))


def cost_of_waiting(arrival: Arrival, tracker: MaskTracker, grounder: Grounder, sentences: int) -> float:
    """Seconds of CPU time that the language model takes for so many sentences that stand, until the thing comes."""
    attention = _Timed(grounder.attention)
    timed = replace(grounder, attention=cast(AttentionSource, attention))
    replay = _replayed(arrival, Episode(arrival.scene), tracker, timed)
    ids = [replay.ask(_standing(expression)).query_id for expression in arrival.expressions[:sentences]]
    while any(replay.queries()[each] is not QueryState.WAITING for each in ids):
        replay.run_until(replay.now_s + 1 / HZ)
    replay.run_until(ASKED_AT_S + STANDING * (LATENCY.query_s + 2 / HZ))  # all of them, however many there are
    began_s = attention.seconds
    replay.run_until(arrival.glimpsed_s)
    return attention.seconds - began_s


def _standing(expression: str) -> QueryRequest:
    return QueryRequest(expression, replace=False, wait_seconds=_WAIT_S)


def _replayed(arrival: Arrival, episode: Episode, tracker: MaskTracker, grounder: Grounder) -> Replay:
    last_s = arrival.scene.duration_s
    film = filmed(lambda time_s: episode.render(min(time_s, last_s)).image_rgb, HZ)
    replay = Replay(film, tracker, grounder, SessionConfig(), LATENCY)
    replay.run_until(ASKED_AT_S)
    return replay


class _Timed:
    """Notes what CPU time attention takes, in truth: ``seconds``."""

    def __init__(self, attention: AttentionSource) -> None:
        self._attention = attention
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._attention, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began

        return timed


def _drawn(rng: np.random.Generator) -> Arrival:
    """What may come off; when the thing comes is still to be seen."""
    liftable = [kind for kind in ANY_KINDS if KINDS[kind].liftable]
    looks = draw_looks(rng, liftable, liftable, *[ANY_KINDS] * (1 + STANDING))
    present, absent = looks[:4], looks[4:]
    places = draw_places(rng)
    unseen = draw_unseen_place(rng)
    things = tuple(draw_thing(rng, look, place) for look, place in zip(present, (unseen, *places), strict=False))
    wait_s = ASKED_AT_S + float(rng.uniform(*COMES_AFTER_S)) - _BRINGING_S
    distracted = wait_s > _CLEARING_S + 2.0 and rng.random() < 0.5
    actions: tuple[Action, ...] = ()
    if distracted:
        wait_s -= _CLEARING_S
        first_s = float(rng.uniform(1.0, wait_s - 1.0))
        actions = (Action("wait", seconds=first_s), Action("pick", 1), Action("place", xy=xy_of(places[4])))
        wait_s -= first_s
    actions += (Action("wait", seconds=wait_s), Action("pick", 0), Action("place", xy=xy_of(places[5])))
    seconds = COMES_AFTER_S[1] + ASKED_AT_S + PATIENCE_S + 1.0
    scene = Scene(things, actions, still_camera(float(rng.uniform(-0.4, 0.4))), draw_look(rng), seconds)
    expressions = tuple(f"the {colour} {kind}" for kind, colour in (looks[0], *absent))
    return Arrival(scene, expressions, math.nan, math.nan, distracted)
