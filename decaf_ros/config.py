"""Settings of a query and of the session, with the paper's defaults.

Every class is frozen and checks its values when built. :func:`from_mapping` builds one from plain keys and values (a YAML
file, ROS parameters) and names the nearest known key when one is misspelt.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from decaf_ros.text import quoted

ConfigT = TypeVar("ConfigT")

GrounderName = Literal["decaf", "box", "both"]
GROUNDERS: tuple[GrounderName, ...] = get_args(GrounderName)


def _check_range(owner: object, name: str, low: float, high: float) -> None:
    value = getattr(owner, name)
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")


def checked_grounder(name: str) -> GrounderName:
    """The grounder of that name.

    Raises:
        ValueError: there is none.
    """
    for known in GROUNDERS:
        if name == known:
            return known
    raise ValueError(f"grounder must be one of {', '.join(GROUNDERS)}, got {quoted(name)}")


@dataclass(frozen=True)
class GroundingConfig:
    """How a sentence becomes tracklets (DecAF, section 4.1 for the defaults).

    Attributes:
        grounder: where candidates come from: "decaf", points where the language model looks; "box", boxes that it answers with
            on a few key frames; or "both".
        paths: which attention paths are fused; "video" and "frame" are ablations.
        contrast: whether the background prompt's map is subtracted; off is an ablation.
        point_threshold: ``tau_pq``, heat from which a grid cell becomes a point prompt.
        tracklet_threshold: ``tau_trk``, score above which a tracklet is kept.
        nms_iou: mask IoU above which two masks are taken for the same object.
        min_presence: probability, by the language model, that there is such a thing, below which a query finds nothing; with 0
            it is not asked.
        prefix_cache_mb: MiB, at most, of what the language model has read of key frames and keeps for the next question about
            them; with 0 every question reads them anew.
    """

    grounder: GrounderName = "decaf"
    paths: Literal["both", "video", "frame"] = "both"
    contrast: bool = True
    point_threshold: float = 0.8
    tracklet_threshold: float = 0.8
    nms_iou: float = 0.7
    min_presence: float = 0.34
    prefix_cache_mb: int = 2048

    def __post_init__(self) -> None:
        checked_grounder(self.grounder)
        if self.paths not in ("both", "video", "frame"):
            raise ValueError(f'paths must be "both", "video" or "frame", got {self.paths!r}')
        for name in ("point_threshold", "tracklet_threshold", "nms_iou", "min_presence"):
            _check_range(self, name, 0.0, 1.0)
        _check_range(self, "prefix_cache_mb", 0, 1 << 20)


@dataclass(frozen=True)
class SessionConfig:
    """How frames are kept and objects followed.

    Attributes:
        frame_wait_seconds: how long a query waits for a frame when there is none yet: at the start, or after a reset.
        key_frames: most key frames that a query looks at.
        window_seconds: how far back the window reaches, in seconds.
        window_hz: key frames kept per second.
        catch_up_frames: most frames kept for objects that were found in the past and must be carried to the present.
        catch_up_seconds: how long that may take, but for eight steps: fewer of the frames are used where one takes long.
        time_jump_seconds: a stamp that lies further back than this is a new start (a looping bag), not a late frame; so is the
            fifth in a row that lies less far back and goes on (a short bag).
        refresh_hz: how often heat maps are computed anew between queries, in at most half of the worker's time; 0: never.
        read_ahead: whether the language model reads key frames before anybody asks, as far as ``prefix_cache_mb`` keeps them:
            "on", whenever it has nothing else to do; "auto", in at most half of the time that following objects leaves.
        reacquire: whether the query of an object that is lost, or that attention disagrees with, is asked again.
        reacquire_seconds: how long an object must be lost before, and how long to wait after the first attempt.
        reacquire_longest_pause_seconds: what that wait grows to while attempts fail.
        reacquire_window_seconds: how far back such an attempt looks.
        reacquire_consistency: attention consistency below which a heat map disagrees with a mask.
        reacquire_after_refreshes: how many heat maps in a row must disagree.
        same_object_likeness: cosine similarity of appearances from which a find is the object that was lost; -1 takes any.
        max_expression_length: longest sentence accepted, in characters.
        max_pending_queries: queries that may wait; more are refused.
        max_standing_queries: queries that may look again and again for what is not there yet; more are refused.
        standing_longest_pause_seconds: what the pause between their looks grows to while the scene does not change.
        max_queries: queries that may be active at a time; more are refused.
        max_objects: objects tracked at a time; a query that would exceed it keeps the best.
    """

    frame_wait_seconds: float = 1.0
    key_frames: int = 16
    window_seconds: float = 4.0
    window_hz: float = 4.0
    catch_up_frames: int = 64
    catch_up_seconds: float = 1.0
    time_jump_seconds: float = 1.0
    refresh_hz: float = 1.0
    read_ahead: Literal["off", "auto", "on"] = "auto"
    reacquire: bool = True
    reacquire_seconds: float = 0.5
    reacquire_longest_pause_seconds: float = 5.0
    reacquire_window_seconds: float = 1.0
    reacquire_consistency: float = 0.0
    reacquire_after_refreshes: int = 2
    same_object_likeness: float = 0.97
    max_expression_length: int = 500
    max_pending_queries: int = 8
    max_standing_queries: int = 8
    standing_longest_pause_seconds: float = 5.0
    max_queries: int = 16
    max_objects: int = 32

    def __post_init__(self) -> None:
        _check_range(self, "frame_wait_seconds", 0.0, 60.0)
        _check_range(self, "key_frames", 1, 64)
        _check_range(self, "window_seconds", 0.1, 600.0)
        _check_range(self, "window_hz", 0.1, 60.0)
        _check_range(self, "catch_up_frames", 2, 1024)
        _check_range(self, "catch_up_seconds", 0.05, 60.0)
        _check_range(self, "time_jump_seconds", 0.0, 3600.0)
        _check_range(self, "refresh_hz", 0.0, 60.0)
        if self.read_ahead not in ("off", "auto", "on"):
            raise ValueError(f'read_ahead must be "off", "auto" or "on", got {self.read_ahead!r}')
        _check_range(self, "reacquire_seconds", 0.0, 600.0)
        _check_range(self, "reacquire_longest_pause_seconds", 0.0, 3600.0)
        _check_range(self, "reacquire_window_seconds", 0.1, 600.0)
        _check_range(self, "reacquire_consistency", -1.0, 1.0)
        _check_range(self, "reacquire_after_refreshes", 1, 1000)
        _check_range(self, "same_object_likeness", -1.0, 1.0)
        _check_range(self, "max_expression_length", 1, 100_000)
        _check_range(self, "max_pending_queries", 1, 1000)
        _check_range(self, "max_standing_queries", 0, 1000)
        _check_range(self, "standing_longest_pause_seconds", 0.0, 3600.0)
        _check_range(self, "max_queries", 1, 1000)
        _check_range(self, "max_objects", 1, 65535)


def from_mapping(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build a config class from keys and values.

    Raises:
        ValueError: an unknown key (the nearest known one is named) or a value out of its range.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known keys: {', '.join(known)}"
            raise ValueError(f"unknown setting {key!r} for {kind.__name__}{hint}")
    return kind(**values)
