"""What can be seen in a window of time: which things, and where they are to each other, to the camera and to the robot."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import BoolArray, Float32Array
from decaf_ros.synthetic.table.episodes import Episode, times_of
from decaf_ros.synthetic.table.scene import ASPECT, ROBOT_XY

Float64Array = npt.NDArray[np.float64]
SEEN, GLIMPSED = 0.3, 0.02  # visible shares: enough to be spoken of, and enough to be a rival


class Window:
    """The facts about an episode between two times, looked at twice a second.

    Args:
        episode: what was played.
        start_s, end_s: the window, both included.

    Attributes:
        kinds, colours: of each thing.
        present_n: ``(things,)``: glimpsed at any time, and so a rival of every other.
        shown_n: ``(things,)``: seen well in at least half of the looks, and so worth speaking of.
    """

    def __init__(self, episode: Episode, start_s: float, end_s: float) -> None:
        if not 0 <= start_s < end_s <= episode.scene.duration_s + 1e-6:
            raise ValueError(f"a window lies within 0 to {episode.scene.duration_s:.1f} s, got {start_s} to {end_s}")
        self.episode, self.start_s, self.end_s = episode, start_s, end_s
        self.kinds = [thing.kind for thing in episode.scene.things]
        self.colours = [thing.colour for thing in episode.scene.things]
        self.times_s = times_of(start_s, end_s)
        self._hulls: dict[int, list[Float32Array]] = {}
        self.visible_tn = np.stack([episode.visible_fractions(time_s) for time_s in self.times_s])
        self.present_n: BoolArray = np.asarray((self.visible_tn >= GLIMPSED).any(axis=0), dtype=np.bool_)
        self.shown_n: BoolArray = np.asarray((self.visible_tn >= SEEN).mean(axis=0) >= 0.5, dtype=np.bool_)

    @property
    def present(self) -> list[int]:
        """Indices of the things that are present."""
        return np.flatnonzero(self.present_n).tolist()

    def of_kind(self, kind: str) -> list[int]:
        """Indices of the present things of a kind."""
        return [thing for thing in self.present if self.kinds[thing] == kind]

    def is_seen_between(self, thing: int, start_s: float, end_s: float) -> bool:
        """Whether a thing is seen well at one of the looks between two times, or at the look nearest to them."""
        times = np.asarray(self.times_s)
        inside = (times >= start_s - 1e-6) & (times <= end_s + 1e-6)
        if not inside.any():
            inside[np.argmin(np.abs(times - 0.5 * (start_s + end_s)))] = True
        return bool((self.visible_tn[inside, thing] >= SEEN).any())

    @cached_property
    def centres_tn3(self) -> Float64Array:
        """``(T, things, 3)`` middles of the things in the world."""
        recording = self.episode.recording
        ticks = [int(np.argmin(np.abs(recording.times_s - time_s))) for time_s in self.times_s]
        return np.asarray(recording.middles_tn3[ticks], dtype=np.float64)

    def gap(self, look: int, one: int, other: int) -> float:
        """Metres between the outlines of two things seen from above, at one of the looks; 0 where they overlap."""
        first, second = self._outlines(look)[one], self._outlines(look)[other]
        if any(cv2.pointPolygonTest(second, point.tolist(), False) >= 0 for point in first) or any(
            cv2.pointPolygonTest(first, point.tolist(), False) >= 0 for point in second
        ):
            return 0.0
        return min(_from_edges(first, second), _from_edges(second, first))

    def _outlines(self, look: int) -> list[Float32Array]:
        """Convex outlines ``(points, 2)`` of the things on the table."""
        if look not in self._hulls:
            poses = self.episode.recording.poses_at(self.times_s[look])
            placed = [
                shape.mesh.vertices_n3 @ pose[:3, :3].T + pose[:3, 3]
                for shape, pose in zip(self.episode.recording.shapes, poses, strict=True)
            ]
            self._hulls[look] = [cv2.convexHull(vertices[:, :2].astype(np.float32))[:, 0] for vertices in placed]
        return self._hulls[look]

    @cached_property
    def extents_n3(self) -> Float64Array:
        """``(things, 3)`` sizes of the boxes around the things in their own frames."""
        return np.stack([np.ptp(shape.mesh.vertices_n3, axis=0) for shape in self.episode.recording.shapes])

    @cached_property
    def camera_tn3(self) -> Float64Array:
        """``(T, things, 3)`` middles in the camera's frame: right, down, forward in metres."""
        poses = [self.episode.scene.camera.world_from_camera(time_s) for time_s in self.times_s]
        return np.stack([(centres - pose[:3, 3]) @ pose[:3, :3] for centres, pose in zip(self.centres_tn3, poses, strict=True)])

    @cached_property
    def image_x_tn(self) -> Float64Array:
        """``(T, things)`` where the middles are in the image from left to right, 0 to 1."""
        half = ASPECT * np.tan(0.5 * self.episode.scene.camera.fov_y)
        x: Float64Array = 0.5 + 0.5 * self.camera_tn3[..., 0] / np.maximum(self.camera_tn3[..., 2], 1e-6) / half
        return x

    @cached_property
    def floor_tn2(self) -> Float64Array:
        """``(T, things, 2)`` along the table as the camera sees it: to the right, and away."""
        floor = []
        for centres, time_s in zip(self.centres_tn3, self.times_s, strict=True):
            right = self.episode.scene.camera.world_from_camera(time_s)[:3, 0]
            away = np.array([-right[1], right[0]])
            floor.append(np.stack([centres[:, :2] @ right[:2], centres[:, :2] @ away], axis=1))
        return np.stack(floor)

    @cached_property
    def robot_distance_tn(self) -> Float64Array:
        """``(T, things)`` metres along the table from the robot's foot."""
        distances: Float64Array = np.linalg.norm(self.centres_tn3[..., :2] - np.asarray(ROBOT_XY), axis=-1)
        return distances

    @cached_property
    def at_rest_n(self) -> BoolArray:
        """``(things,)``: neither held nor moved throughout."""
        history = self.episode.history
        held = history.held_within(self.start_s, self.end_s)
        return np.asarray(~held & (history.moved_metres(self.start_s, self.end_s) < 0.01), dtype=np.bool_)


def _from_edges(points: Float32Array, outline: Float32Array) -> float:
    """The smallest distance of any point from the edges of a polygon."""
    starts, edges = outline, np.roll(outline, -1, axis=0) - outline
    offsets = points[:, None] - starts[None]
    shares = np.clip((offsets * edges).sum(axis=-1) / np.maximum((edges**2).sum(axis=-1), 1e-12), 0.0, 1.0)
    return float(np.linalg.norm(offsets - shares[..., None] * edges, axis=-1).min())
