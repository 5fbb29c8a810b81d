"""How far off objects are in space: what the node would publish as ``~/objects_3d``, against the world's truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from decaf_ros.config import SessionConfig
from decaf_ros.datatypes import Frame, ObjectPrompt
from decaf_ros.evaluation.held_out import CLIP_FRAMES, CLIP_HZ, SIZE_HW, episode_of
from decaf_ros.geometry import DepthView, Intrinsics, locate_objects, metres_from_depth
from decaf_ros.models.protocols import MaskTracker
from decaf_ros.session.roster import QueryRecord
from decaf_ros.session.session import TrackingSession
from decaf_ros.synthetic.table.happenings import MOVED
from decaf_ros.synthetic.table.rendering import View
from decaf_ros.synthetic.table.window import SEEN


@dataclass(frozen=True)
class SpaceError:
    """One object on one frame.

    Attributes:
        moved: whether the object moves in its clip.
        metres: from the centroid to that of what is truly seen of the object, divided by the distance from the camera in
            metres; infinite when no place was given.
    """

    moved: bool
    metres: float


def space_errors(seed: int, tracker: MaskTracker) -> list[SpaceError]:
    """Point out every thing that is seen well at the start of a scene's last seconds, follow all, and measure where they are.

    Things count on each later frame on which they are seen well; depth is in whole millimetres, as cameras give it.
    """
    episode = episode_of(seed)
    times_s = [episode.scene.duration_s - (CLIP_FRAMES - 1 - index) / CLIP_HZ for index in range(CLIP_FRAMES)]
    moved_n = episode.history.moved_metres(times_s[0], times_s[-1]) >= MOVED
    session, things = TrackingSession(tracker, SessionConfig()), {}
    errors = []
    for index, time_s in enumerate(times_s):
        view = episode.render(time_s, SIZE_HW)
        segmentation = session.push(Frame(1 + round(time_s * 1e9), "camera", view.image_rgb))
        seen = np.flatnonzero(episode.visible_fractions(time_s) >= SEEN).tolist()
        if index == 0:
            for thing in seen:
                things[thing] = _point_out(session, view, thing)
            continue
        assert segmentation is not None, "no frame is rejected"
        places = {each.tracked.object_id: each.placement for each in locate_objects(segmentation, _depth_of(view))}
        for thing in seen:
            if thing in things:
                truth, place = view.points_of(thing).mean(axis=0), places.get(things[thing])
                off = np.inf if place is None else float(np.linalg.norm(place.centroid_xyz - truth) / np.linalg.norm(truth))
                errors.append(SpaceError(bool(moved_n[thing]), off))
    return errors


def _point_out(session: TrackingSession, view: View, thing: int) -> int:
    """The id under which the thing is followed."""
    before = set(session.object_ids)
    session.add(QueryRecord(session.new_query_id(), "", "", 0, confident=True), ObjectPrompt(mask_hw=view.mask_of(thing)))
    session.end_query()
    (object_id,) = set(session.object_ids) - before
    return object_id


def _depth_of(view: View) -> DepthView:
    (fx, _, cx), (_, fy, cy) = view.intrinsics[:2].tolist()
    millimetres = np.round(view.depth_hw * 1e3).astype(np.uint16)
    return DepthView(metres_from_depth(millimetres), Intrinsics(fx, fy, cx, cy, millimetres.shape))


def space_figures(errors: Iterable[SpaceError]) -> dict[str, dict[str, float]]:
    """Of all objects, of those at rest and of those moved: frames, share with a place, and errors in cm at a metre."""
    errors = list(errors)
    figures = {}
    for name, moved in (("all", (False, True)), ("at_rest", (False,)), ("moved", (True,))):
        metres = np.array([error.metres for error in errors if error.moved in moved])
        if placed := metres[np.isfinite(metres)].tolist():
            median, p90 = (100 * np.percentile(placed, [50, 90])).tolist()
            located = len(placed) / len(metres)
            figures[name] = {"frames": len(metres), "located": located, "median_cm": median, "p90_cm": p90}
    return figures
