"""Queries about scenes of the robot's table that no model was trained on, and their clips.

A query looks at a window as the node's own: 16 key frames, four a second. Its clip has every moment between them as well, and
one before: 32 frames at 8 Hz that end when one asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count

import numpy as np

from decaf_ros.datatypes import BoolArray, Frame, FrameWindow
from decaf_ros.synthetic.table.episodes import Episode, sample_episode
from decaf_ros.synthetic.table.happenings import STILL
from decaf_ros.synthetic.table.rendering import DEFAULT_SIZE_HW, View
from decaf_ros.synthetic.table.sampling import FIRST_SCORED_SEED, FIRST_TRAINING_SEED, require_held_out
from decaf_ros.synthetic.table.sentences import sentences_of
from decaf_ros.synthetic.table.window import Window
from decaf_ros.synthetic.table.wordings import EVENT_KINDS, STATIC_KINDS, Sentence
from decaf_ros.video import FramesInMemory

CLIP_FRAMES, CLIP_HZ = 32, 8.0
KEY_INDICES = tuple(range(1, CLIP_FRAMES, 2))
WINDOW_S = (KEY_INDICES[-1] - KEY_INDICES[0]) / CLIP_HZ
SIZE_HW = DEFAULT_SIZE_HW
AT_REST = "moved_at_rest"
"""Sentences such as "the mug that was moved", of several mugs, once nothing moves any more: a row of their own."""
ROWS = (*STATIC_KINDS, *EVENT_KINDS, AT_REST)
MOST_A_SCENE = 4
_SEEDS_AT_A_TIME = 8
_CLIP_S = (CLIP_FRAMES - 1) / CLIP_HZ
_STEP_S = WINDOW_S / 8  # from one window of a scene to the next: as far as between the looks of a window, which they then share
_REST_S, _REST_METRES = 1.0, 0.005


@dataclass(frozen=True)
class HeldOutQuery:
    """A sentence about the scene of a seed.

    Attributes:
        seed: of the scene.
        end_s: time of the scene at which one asks.
        sentence: what is asked.
        row: where it is counted: the sentence's kind, or :data:`AT_REST`.
        contested: whether its event could be taken for another's: several of the target's kind, or several things that were
            handled, are in view.
    """

    seed: int
    end_s: float
    sentence: Sentence
    row: str
    contested: bool

    @property
    def times_s(self) -> list[float]:
        """Times of the clip's frames in seconds from the scene's start."""
        return [self.end_s - (CLIP_FRAMES - 1 - index) / CLIP_HZ for index in range(CLIP_FRAMES)]


@dataclass(frozen=True, eq=False)
class Clip:
    """A rendered clip with the truth about one query.

    Attributes:
        source: its frames.
        truth_thw: ``(T, H, W)`` bool, visible pixels of the thing that the sentence means; none where it means nothing.
    """

    source: FramesInMemory
    truth_thw: BoolArray


def sample_queries(
    counts: Mapping[str, int],
    first_seed: int = FIRST_SCORED_SEED,
    mapped: Callable[[Callable[[int], list[HeldOutQuery]], Iterable[int]], Iterable[list[HeldOutQuery]]] = map,
) -> list[HeldOutQuery]:
    """Draw queries from consecutive scenes: of each the rows that lack most, among those that the scene allows at any time.

    Args:
        counts: queries by row: a sentence's kind, or :data:`AT_REST`.
        first_seed: of the first scene. A scene gives at most :data:`MOST_A_SCENE` queries, and one a row.
        mapped: as ``map``, in which several processes may look at scenes; the queries do not depend on it.

    Raises:
        ValueError: no held-out seed, or no more of them.
    """
    missing = Counter({row: number for row, number in counts.items() if number > 0})
    queries: list[HeldOutQuery] = []
    for first in count(first_seed, _SEEDS_AT_A_TIME):
        seeds = range(require_held_out(first), min(first + _SEEDS_AT_A_TIME, FIRST_TRAINING_SEED))
        for seed, found in zip(seeds, mapped(queries_of, seeds), strict=False):
            chosen = _choose(found, missing, np.random.default_rng(seed))
            queries += chosen
            missing -= Counter(query.row for query in chosen)
            if not missing:
                return queries
    raise AssertionError("there is no last number")


def _choose(found: Sequence[HeldOutQuery], missing: Mapping[str, int], rng: np.random.Generator) -> list[HeldOutQuery]:
    """At most one a row, of the rows that lack most."""
    by_row: dict[str, list[HeldOutQuery]] = {}
    for query in found:
        by_row.setdefault(query.row, []).append(query)
    lacking = sorted((row for row in by_row if row in missing), key=lambda row: (-missing[row], row))
    return [by_row[row][int(rng.integers(len(by_row[row])))] for row in lacking[:MOST_A_SCENE]]


def queries_of(seed: int) -> list[HeldOutQuery]:
    """All queries that the scene of a seed allows, at times :data:`WINDOW_S` / 8 apart, in one wording each."""
    episode, rng = sample_episode(seed), np.random.default_rng(seed)
    ends = np.arange(_CLIP_S, episode.scene.duration_s, _STEP_S).tolist()
    return [query for end_s in ends for query in _queries_at(episode, seed, end_s, rng)]


def _queries_at(episode: Episode, seed: int, end_s: float, rng: np.random.Generator) -> Iterator[HeldOutQuery]:
    window = Window(episode, end_s - WINDOW_S, end_s)
    for sentence in sentences_of(episode, end_s, rng, WINDOW_S):
        query = HeldOutQuery(seed, end_s, sentence, sentence.kind, _is_contested(window, sentence))
        yield query
        if sentence.kind == "moved" and sentence.answer in sentence.text.split() and _rests(episode, end_s):
            yield replace(query, row=AT_REST)


def _is_contested(window: Window, sentence: Sentence) -> bool:
    if sentence.target is None or sentence.kind not in EVENT_KINDS:
        return False
    history = window.episode.history
    moved = history.moved_metres(window.start_s, window.end_s) > STILL
    handled = (moved | history.held_within(window.start_s, window.end_s)) & window.present_n
    return len(window.of_kind(window.kinds[sentence.target])) > 1 or int(handled.sum()) > 1


def _rests(episode: Episode, end_s: float) -> bool:
    """Whether no thing has moved or was held for a second."""
    moved = episode.history.moved_metres(end_s - _REST_S, end_s) > _REST_METRES
    return not (moved | episode.history.held_within(end_s - _REST_S, end_s)).any()


@lru_cache(maxsize=2)
def episode_of(seed: int) -> Episode:
    """The scene of a seed, played; those of the last ones are kept, for queries come in the order of their seeds."""
    return sample_episode(require_held_out(seed))


def render_clip(query: HeldOutQuery, indices: Sequence[int] = range(CLIP_FRAMES)) -> Clip:
    """Render the query's clip, or some of its frames: :data:`KEY_INDICES` are those that a query looks at."""
    return _render(query, [query.times_s[index] for index in indices])


def render_film(query: HeldOutQuery, after_s: float) -> Clip:
    """Render what a camera films that comes to the scene :data:`WINDOW_S` before one asks, and stays for ``after_s`` more.

    Stamps begin with 0, so that one asks at :data:`WINDOW_S`; the key frames until then are those of the query's clip. When the
    scene is over all stays as it is.
    """
    count = round((WINDOW_S + after_s) * CLIP_HZ) + 1
    clip = _render(query, [query.end_s - WINDOW_S + index / CLIP_HZ for index in range(count)])
    frames = clip.source.read(0, count)
    stamped = [replace(frame, stamp_ns=round(index / CLIP_HZ * 1e9)) for index, frame in enumerate(frames)]
    return Clip(FramesInMemory(stamped, CLIP_HZ), clip.truth_thw)


def _render(query: HeldOutQuery, times_s: Sequence[float]) -> Clip:
    episode, target = episode_of(query.seed), query.sentence.target
    views = [episode.render(time_s, SIZE_HW) for time_s in times_s]
    frames = [_frame(time_s, view) for time_s, view in zip(times_s, views, strict=True)]
    truth = [np.zeros(SIZE_HW, np.bool_) if target is None else view.mask_of(target) for view in views]
    return Clip(FramesInMemory(frames, CLIP_HZ), np.stack(truth))


def key_window(query: HeldOutQuery) -> FrameWindow:
    """Render the key frames of the query's clip alone."""
    episode, times_s = episode_of(query.seed), [query.times_s[index] for index in KEY_INDICES]
    return FrameWindow(tuple(_frame(time_s, episode.render(time_s, SIZE_HW)) for time_s in times_s))


def middle_frame(query: HeldOutQuery) -> Frame:
    """Render the middle one of these alone."""
    time_s = query.times_s[KEY_INDICES[len(KEY_INDICES) // 2]]
    return _frame(time_s, episode_of(query.seed).render(time_s, SIZE_HW))


def _frame(time_s: float, view: View) -> Frame:
    return Frame(round(time_s * 1e9), "camera", view.image_rgb)


def even_counts(rows: Sequence[str], total: int) -> dict[str, int]:
    """``total`` shared out evenly among the rows, the first ones getting what is left over."""
    return {row: total // len(rows) + (index < total % len(rows)) for index, row in enumerate(rows)}
