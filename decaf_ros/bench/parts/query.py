"""A query by stage: with nothing read, with the window read ahead, and asked again; and a refresh. All answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeAlias

import numpy as np
import torch

from decaf_ros.bench.figures import Measured, named
from decaf_ros.bench.measuring import AwaitedClock, Time, apart, machine, timed
from decaf_ros.bench.part import Run
from decaf_ros.bench.report import conditions, progress
from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.evaluation.held_out import SIZE_HW, WINDOW_S, episode_of
from decaf_ros.evaluation.setups import Setup, models_of
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.attention import AttentionSource, MllmAttention
from decaf_ros.session.frames import KeyFrameBuffer, StoredFrame, window_of
from decaf_ros.session.grounding import Grounder, Grounding
from decaf_ros.session.stages import STAGES
from decaf_ros.synthetic.table.sentences import sentences_of

KEY_FRAMES, KEY_FRAME_S = SessionConfig.key_frames, 1 / SessionConfig.window_hz
CACHE_MB = 1 << 14  # more than any window takes
REFRESHED = (1, 4)  # queries
CACHE_OFF, COLD, WARM, SECOND, MOVED = "cold, cache off", "cold", "warm", "second query, same window", "re-query"
SECOND_OFF = f"{SECOND}, cache off"
READ_AHEAD = "a key frame read ahead"

AttentionOf: TypeAlias = Callable[[int], AttentionSource]
"""A source of attention that has read nothing yet and keeps so many MiB of what it reads; 0 switches that off."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is looked at and asked.

    Attributes:
        frames: key frames: a window, and one more.
        queries: expression and object name of at least four; the first two are asked, all are refreshed.
    """

    frames: Sequence[Frame]
    queries: Sequence[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a query or a refresh, and when.

    Attributes:
        time: that it took.
        stages_ms: the same by stage; empty for a refresh.
        maps: heat maps.
        name: of the object; "" for a refresh.
        masks_nthw: bool, of each object over the window; none for a refresh.
    """

    time: Time
    stages_ms: dict[str, float]
    maps: torch.Tensor
    name: str = ""
    masks_nthw: BoolArray = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.bool_))


@dataclass(eq=False)
class Row:
    """Answers to one question under one condition.

    Attributes:
        reference: the row whose time it is compared with; "" for none.
        times: by repetition.
        stages_ms: the same by stage, where there are any.
        map_difference: the largest of any map to that of the same question without a cache.
        pixel_difference: the same of masks: the largest share of an object's pixels over the window that differ.
        same_objects: whether names and numbers of objects were always the same.
    """

    reference: str
    times: list[Time] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)
    map_difference: float = 0.0
    pixel_difference: float = 0.0
    same_objects: bool = True

    def add(self, answer: Answer, expected: Answer) -> None:
        """Take the time of an answer, and compare it with the one that is expected."""
        self.times.append(answer.time)
        if answer.stages_ms:
            self.stages_ms.append(answer.stages_ms)
        self.map_difference = max(self.map_difference, float((answer.maps - expected.maps).abs().max()))
        if answer.name != expected.name or answer.masks_nthw.shape != expected.masks_nthw.shape:
            self.same_objects = False
        else:
            differing_n = (answer.masks_nthw != expected.masks_nthw).mean(axis=(1, 2, 3))
            self.pixel_difference = max(self.pixel_difference, float(differing_n.max(initial=0.0)))

    def p50(self) -> Time:
        """Medians."""
        return Time(*np.median(self.times, axis=0).tolist())

    def p95_ms(self) -> float:
        """By the clock."""
        return float(np.percentile([time.wall_ms for time in self.times], 95))

    def stage_p50_ms(self) -> dict[str, float]:
        """Median of each stage."""
        return {stage: float(np.median([each[stage] for each in self.stages_ms])) for stage in STAGES if self.stages_ms}


def measure(run: Run, query_repetitions: int) -> Measured:
    """With one thread, all conditions in turn."""
    subject = subject_from(run.first_seed)
    return report(run, apart(measured_rows, run.setup, subject, query_repetitions))


def subject_from(first_seed: int) -> Subject:
    """The first scene from a seed on of which enough can be said: its last key frames."""
    for seed in count(first_seed):
        episode, rng = episode_of(seed), np.random.default_rng(seed)
        times_s = episode.scene.duration_s - KEY_FRAME_S * np.arange(KEY_FRAMES, -1, -1)
        said = [each for each in sentences_of(episode, float(times_s[-2]), rng, WINDOW_S) if each.target is not None]
        said.sort(key=lambda each: each.kind != "colour_category")  # those first that models know best
        queries = list({each.text: (each.text, each.answer) for each in said}.values())
        if len(queries) >= max(REFRESHED):
            views = [episode.render(time_s, SIZE_HW) for time_s in times_s.tolist()]
            pairs = zip(times_s.tolist(), views, strict=True)
            return Subject([Frame(round(time_s * 1e9), "camera", view.image_rgb) for time_s, view in pairs], queries)
    raise AssertionError("there is no last number")


def measured_rows(setup: Setup, subject: Subject, repetitions: int) -> dict[str, Row]:
    """With the models of a setup; see :func:`rows_in_turn`."""
    models = models_of(setup)

    def make(cache_mb: int) -> AttentionSource:
        return MllmAttention(models.mllm, replace(setup.config, prefix_cache_mb=cache_mb))

    return rows_in_turn(make, models.tracker, subject, repetitions, setup.config)


def rows_in_turn(
    make: AttentionOf, tracker: MaskTracker, subject: Subject, repetitions: int, config: GroundingConfig | None = None
) -> dict[str, Row]:
    """All conditions in turn, so that they meet the same machine, as often as is wanted after a warm-up.

    Args:
        make: a source of attention.
        tracker: the mask model.
        subject: what is asked.
        repetitions: of each row.
        config: of the method.
    """
    asking = _Asking(make, tracker, subject, config or GroundingConfig())
    expected = asking.without_cache()
    rows: dict[str, Row] = {}
    for _ in progress("query", range(repetitions), repetitions):
        for name, reference, what, answer in asking.once():
            rows.setdefault(name, Row(reference)).add(answer, expected.get(what, answer))
    return rows


class _Asking:
    """One round of questions, under all conditions."""

    def __init__(self, make: AttentionOf, tracker: MaskTracker, subject: Subject, config: GroundingConfig) -> None:
        self._make, self._tracker, self._config = make, tracker, config
        kept = KeyFrameBuffer(SessionConfig.window_seconds, SessionConfig.window_hz)
        windows = []
        for stored in (StoredFrame(frame, tracker) for frame in subject.frames):
            kept.add(stored)
            stored.features()  # as the live thread does when a key frame comes
            windows.append(kept.select(KEY_FRAMES))
        *_, self._before, self._moved = windows
        self._queries = list(subject.queries)
        (self._first, _), (self._second, _), *_ = self._queries

    def without_cache(self) -> dict[str, Answer]:
        """What is right, by what is asked; the warm-up."""
        asked = {"first": (self._before, self._first), "second": (self._before, self._second)}
        asked["moved"] = self._moved, self._first
        answers = {what: self._ask(self._make(0), *question) for what, question in asked.items()}
        return answers | {f"refresh {many}": self._refresh(self._make(0), many) for many in REFRESHED}

    def once(self) -> Iterator[tuple[str, str, str, Answer]]:
        """Row, the row that it is compared with, what is asked, and the answer."""
        yield CACHE_OFF, CACHE_OFF, "first", self._ask(self._make(0), self._before, self._first)
        yield COLD, CACHE_OFF, "first", self._ask(self._make(CACHE_MB), self._before, self._first)
        attention = self._make(CACHE_MB)
        for stored in reversed(self._before):  # as the node does
            yield READ_AHEAD, "", "", self._read_ahead(attention, stored.frame)
        yield WARM, CACHE_OFF, "first", self._ask(attention, self._before, self._first)
        yield SECOND_OFF, SECOND_OFF, "second", self._ask(self._make(0), self._before, self._second)
        yield SECOND, SECOND_OFF, "second", self._ask(attention, self._before, self._second)
        yield MOVED, CACHE_OFF, "moved", self._ask(attention, self._moved, self._first)
        for many in REFRESHED:
            name, what = f"refresh, queries: {many}", f"refresh {many}"
            yield f"{name}, cache off", f"{name}, cache off", what, self._refresh(self._make(0), many)
            yield name, f"{name}, cache off", what, self._refresh(attention, many)

    def _ask(self, attention: AttentionSource, clip: list[StoredFrame], expression: str) -> Answer:
        """From the sentence to objects that are carried to the window's end."""
        grounder, clock = Grounder(attention, self._tracker, self._config), AwaitedClock()

        def answer() -> Grounding:
            grounding = grounder.ground(clip, expression, clock)
            with clock.stage("catch_up"):
                grounder.build_tracks(grounding, clip, clock)
                grounder.appearances(grounding, clip)
            return grounding

        found, time = timed(answer)
        masks = [np.any([each.masks_thw for each in thing.tracklets], axis=0) for thing in found.objects]
        masks_nthw = np.stack(masks) if masks else np.zeros((0, 1, 1, 1), np.bool_)
        return Answer(time, clock.latency_ms, found.attention.heat_thw, found.attention.object_name, masks_nthw)

    def _refresh(self, attention: AttentionSource, many: int) -> Answer:
        maps, time = timed(lambda: attention.refresh(self._moved[-1].frame, self._queries[:many]))
        return Answer(time, {}, torch.stack(maps))

    def _read_ahead(self, attention: AttentionSource, frame: Frame) -> Answer:
        _, time = timed(lambda: attention.prepare(window_of(self._before), frame))
        return Answer(time, {}, torch.zeros(1))


def report(run: Run, rows: dict[str, Row]) -> Measured:
    """The figures with their targets."""
    ratios = {name: _ratio(row, rows[row.reference]) for name, row in rows.items() if row.reference}
    exact = {name: row for name, row in rows.items() if row.reference}
    maps, pixels = (max(getattr(row, each) for row in exact.values()) for each in ("map_difference", "pixel_difference"))
    same_objects = all(row.same_objects for row in exact.values())
    reached = [
        ["warm, of cold with the cache off", f"{ratios[WARM].cpu_ms:.2f} (by the clock {ratios[WARM].wall_ms:.2f})", "<= 0.40"],
        ["warm, p50", f"{rows[WARM].p50().wall_ms:.0f} ms", "<= 800 ms"],
        ["heat maps differ, at most", f"{maps:.1e}", "<= 1e-4"],
        ["pixels of masks differ, at most", f"{100 * pixels:.3f} %", "<= 0.1 %"],
        ["the same objects", "yes" if same_objects else "no", "yes"],
    ]
    stages = (f"{stage.replace('_', '-')}, ms" for stage in STAGES)
    header = ("", *stages, "p50, ms", "p95, ms", "ratio", "CPU time, ms", "ratio")
    page = f"""# A query

{markdown_table(("figure", "measured", "target"), reached)}
{markdown_table(header, [_cells(row, ratios.get(name), name) for name, row in rows.items()])}
{KEY_FRAMES} key frames of {SIZE_HW[1]} x {SIZE_HW[0]} pixels, {KEY_FRAME_S:g} s apart, of a scene that no model was trained on;
from the sentence to objects at the window's end. Image features of the mask model are there before, as in the node. One thread;
{len(rows[WARM].times)} repetitions of all rows in turn after a warm-up, medians but for *p95*. Stages are by the clock.

- *{CACHE_OFF.capitalize()}* is what the others are compared with: nothing is read beforehand, and nothing of it is kept.
  *{COLD.capitalize()}*: nothing is read beforehand, and what is read is kept.
- *{WARM.capitalize()}*: each key frame was read ahead. *{SECOND.capitalize()}*: another sentence, right after it,
  compared with the same with the cache off, since masks of another thing take another time.
- *{MOVED.capitalize()}*: the first sentence again, when one more key frame has come, which was not read ahead; the window is
  then the one that the node chooses, of whole pairs of key frames but for the newest.
- *Refresh*: heat maps of so many queries on the newest key frame, which was read before unless the cache is off; it is compared
  with the same with the cache off.
- *Ratio*: to the time by the clock, and to that of the CPU, which other load on the machine leaves alone.
- Every answer is compared with that of the same question without a cache: heat maps by their largest difference, masks by the
  share of the window's pixels, objects by name and number.

{machine()}. {conditions(run)}
"""
    figures: dict[str, dict[str, float]] = {name: _figures(row, ratios.get(name)) for name, row in rows.items()}
    checks: dict[str, float] = {"map_difference": maps, "pixel_difference": pixels, "same_objects": float(same_objects)}
    return Measured(page, named(figures | {"largest": checks}))


def _ratio(row: Row, reference: Row) -> Time:
    return Time(*(own / other for own, other in zip(row.p50(), reference.p50(), strict=True)))


def _cells(row: Row, ratio: Time | None, name: str) -> list[str]:
    stages = row.stage_p50_ms()
    wall, cpu = ("", "") if ratio is None else (f"{each:.2f}" for each in ratio)
    totals = [f"{row.p50().wall_ms:.0f}", f"{row.p95_ms():.0f}", wall, f"{row.p50().cpu_ms:.0f}", cpu]
    return [name, *(f"{stages[stage]:.0f}" if stages else "" for stage in STAGES), *totals]


def _figures(row: Row, ratio: Time | None) -> dict[str, float]:
    p50 = row.p50()
    figures = {"p50_ms": p50.wall_ms, "p95_ms": row.p95_ms(), "cpu_ms": p50.cpu_ms}
    figures |= {f"{stage}_ms": value for stage, value in row.stage_p50_ms().items()}
    if ratio is not None:
        figures |= {"ratio": ratio.wall_ms, "cpu_ratio": ratio.cpu_ms, "map_difference": row.map_difference}
    return figures
