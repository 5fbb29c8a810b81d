"""A second opinion on sentences about the robot's table: it reads their words, and judges them by masks, depths and raw tracks.

It shares nothing with the code that makes sentences but the names of kinds, colours and uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

import numpy as np

from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS, USES
from decaf_ros.synthetic.table.episodes import Episode
from decaf_ros.synthetic.table.scene import ROBOT_XY

_N = f"(?P<n>object|thing|one|{'|'.join(KINDS)})"
_C = f"(?P<c>{'|'.join(COLOURS_RGB)})"
_A, _B = (f"(?P<{name}>{'|'.join(KINDS)})" for name in "ab")
_FEW_PIXELS = 25


class SecondOpinion:
    """What holds between two times.

    Args:
        episode: what was played.
        start_s, end_s: the window.
    """

    def __init__(self, episode: Episode, start_s: float, end_s: float) -> None:
        self.episode = episode
        self.things = episode.scene.things
        self.views = [episode.render(time_s) for time_s in np.linspace(start_s, end_s, 9)]
        self.pixels_tn = np.array([[view.mask_of(i).sum() for i in range(len(self.things))] for view in self.views])
        times = episode.recording.times_s
        inside = (times >= start_s - 1e-6) & (times <= end_s + 1e-6)
        self.track_tn3 = self._track(inside)
        self.tilts_tn = episode.recording.tilts_tn[inside]
        self.arm_t7 = episode.recording.qpos_tq[inside, :7]

    def _track(self, inside: np.ndarray) -> np.ndarray:
        """``(T, things, 3)`` where the things are: the means of their vertices, less their height when they stand."""
        numbers = self.episode.recording.qpos_tq[inside][:, 7:].reshape(int(inside.sum()), -1, 7)
        means = np.stack([shape.mesh.vertices_n3.mean(axis=0) for shape in self.episode.recording.shapes])
        w, v = numbers[..., 3:4], numbers[..., 4:]
        turned = means + 2 * np.cross(v, np.cross(v, means) + w * means)  # by the quaternion
        track: np.ndarray = numbers[..., :3] + turned - means * np.array([0.0, 0.0, 1.0])
        return track

    @cached_property
    def in_view(self) -> list[int]:
        """Things of which something can be seen."""
        return np.flatnonzero(self.pixels_tn.max(axis=0) >= _FEW_PIXELS).tolist()

    @cached_property
    def barely_in_view(self) -> list[int]:
        """Things of which one may say that they can be seen, or not."""
        most = self.pixels_tn.max(axis=0)
        return np.flatnonzero((most > 0) & (most < 2 * _FEW_PIXELS)).tolist()

    def things_meant(self, text: str) -> set[int]:
        """Things of which a sentence is true."""
        for use in USES.values():
            if text in use.wordings:
                return {i for i in self.in_view if self.things[i].kind in use.kinds}
        for pattern, judge in self._judges().items():
            if found := re.fullmatch(pattern, text):
                words = found.groupdict()
                noun = words.get("n", "thing")
                candidates = [i for i in self.in_view if noun in ("object", "thing", "one", self.things[i].kind)]
                return set(judge(candidates, words))
        raise AssertionError(f"a sentence that nobody understands: {text!r}")

    def _judges(self) -> dict[str, Callable[[list[int], dict[str, str]], list[int]]]:
        def coloured(candidates: list[int], words: dict[str, str]) -> list[int]:
            return [i for i in candidates if self.things[i].colour == words["c"]]

        def best(value: Callable[[int], float]) -> Callable[[list[int], dict[str, str]], list[int]]:
            return lambda candidates, words: [max(candidates, key=value)] if candidates else []

        def which(holds: Callable[[int], bool]) -> Callable[[list[int], dict[str, str]], list[int]]:
            return lambda candidates, words: [i for i in candidates if holds(i)]

        look = "(?:find |where is )?"
        return {
            f"{look}the {_N}|the object that is an? {_N.replace('?P<n>', '?P<k>')}": self._named,
            f"{look}the {_C} {_N}": coloured,
            f"the {_N} that is {_C}": coloured,
            f"the {_N} in {_C}": coloured,
            f"the (?:largest|biggest) {_N}|the {_N.replace('?P<n>', '?P<k>')} that is the largest": self._sized(1.0),
            f"the (?:smallest|tiniest) {_N}|the {_N.replace('?P<n>', '?P<k>')} that is the smallest": self._sized(-1.0),
            f"the {_N} (?:on|farthest to) the left": best(lambda i: -self._column(i)),
            f"the {_N} (?:on|farthest to) the right": best(self._column),
            f"the leftmost {_N}": best(lambda i: -self._column(i)),
            f"the rightmost {_N}": best(self._column),
            f"the {_N} (?:nearest to the camera|closest to the camera|at the front)": best(lambda i: -self._depth(i)),
            f"the {_N} (?:farthest from the camera|at the back)": best(self._depth),
            f"the {_N} (?:nearest|closest) to the robot": best(lambda i: -self._from_robot(i)),
            f"the {_N} (?:that is the )?farthest from the robot": best(self._from_robot),
            f"the {_N} (?:next to|beside|close to) the {_A}": self._next_to,
            f"the {_N} (?:that is )?(?P<r>behind|in front of|(?:to the )?(?:left|right) of) the {_A}": self._beyond,
            f"the {_N} (?:that is )?between the {_A} and the {_B}": self._between,
            f"the {_N} that (?:was moved|the robot moved|has been moved|changed its place)": which(
                lambda i: self._way(i) > 0.03
            ),
            f"the {_N} that (?:has not been touched|was not moved|stayed where it was|the robot did not touch)": which(
                lambda i: self._way(i) < 0.015
            ),
            f"the {_N} that (?:was picked up|the robot picked up|was lifted)": which(self._was_lifted),
            f"the {_N} (?:that the robot is holding|in the gripper|that the robot holds)": which(self._hangs),
            "what (?:the robot is holding|is in the gripper)": which(self._hangs),
            f"the {_N} that (?:was just put down|was put down|the robot put down|the robot let go of)": which(self._came_down),
            f"the (?:last )?{_N} that was put down(?: last)?": self._came_down_last,
            f"the {_N} that (?:was pushed|the robot pushed|was shoved along the table)": which(self._was_slid),
            f"the {_N} that (?:fell over|was knocked over|tipped over)": which(self._fell),
            f"the {_N} that (?:the robot brought|was brought in|was not there before)": which(
                lambda i: self.pixels_tn[0, i] == 0 and self.pixels_tn[-1, i] >= _FEW_PIXELS and self._way(i) > 0.1
            ),
            f"the {_N} that (?:was taken away|the robot took away|is no longer there)": which(
                lambda i: self.pixels_tn[-1, i] == 0 and self._way(i) > 0.1
            ),
        }

    def _named(self, candidates: list[int], words: dict[str, str]) -> list[int]:
        kind = words.get("k") or words.get("n")
        return [i for i in self.in_view if self.things[i].kind == kind]

    def _sized(self, sign: float) -> Callable[[list[int], dict[str, str]], list[int]]:
        def judge(candidates: list[int], words: dict[str, str]) -> list[int]:
            noun = words.get("k") or words.get("n")
            candidates = [i for i in self.in_view if noun in ("object", "thing", "one", self.things[i].kind)]
            return [max(candidates, key=lambda i: sign * self._longest(i))]

        return judge

    def _longest(self, thing: int) -> float:
        return float(np.linalg.norm(np.ptp(self.episode.recording.shapes[thing].mesh.vertices_n3, axis=0)))

    def _column(self, thing: int) -> float:
        """Where its pixels are on average, left to right."""
        columns = [np.nonzero(view.mask_of(thing))[1].mean() for view in self.views if view.mask_of(thing).any()]
        return float(np.mean(columns))

    def _depth(self, thing: int) -> float:
        depths = [np.median(view.depth_hw[view.mask_of(thing)]) for view in self.views if view.mask_of(thing).any()]
        return float(np.mean(depths))

    def _from_robot(self, thing: int) -> float:
        return float(np.linalg.norm(self.track_tn3[:, thing, :2] - np.array(ROBOT_XY), axis=-1).mean())

    def _surface(self, thing: int) -> np.ndarray:
        """Points strewn over the surface of a thing, in the world."""
        mesh, pose = self.episode.recording.shapes[thing].mesh, self.views[-1].poses_n44[thing]
        rng = np.random.default_rng(0)
        corners = mesh.vertices_n3[mesh.faces_f3]
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        chosen = corners[rng.choice(len(corners), 1500, p=areas / areas.sum())]
        points: np.ndarray = np.einsum("nij,ni->nj", chosen, rng.dirichlet((1, 1, 1), 1500)) @ pose[:3, :3].T + pose[:3, 3]
        return points

    def _middle(self, thing: int) -> np.ndarray:
        points = self._surface(thing)[:, :2]
        middle: np.ndarray = 0.5 * (points.min(axis=0) + points.max(axis=0))
        return middle

    def _only(self, kind: str) -> int:
        (reference,) = (i for i in self.in_view if self.things[i].kind == kind)
        return reference

    def _next_to(self, candidates: list[int], words: dict[str, str]) -> list[int]:
        """The one whose surface is within 7 cm, along the table."""
        here = self._surface(self._only(words["a"]))[:, :2]
        gaps = {}
        for thing in candidates:
            if thing != self._only(words["a"]):
                there = self._surface(thing)[:, :2]
                gaps[thing] = np.linalg.norm(here[:, None] - there[None], axis=-1).min()
        return [thing for thing, gap in gaps.items() if gap < 0.07]

    def _beyond(self, candidates: list[int], words: dict[str, str]) -> list[int]:
        """Those in a direction from the reference, by 45 degrees at most, seen from the camera along the table."""
        view = self.views[-1]
        right = view.world_from_camera[:2, 0] / np.linalg.norm(view.world_from_camera[:2, 0])
        away = np.array([-right[1], right[0]])
        towards = {"behind": away, "in front of": -away, "left": -right, "right": right}
        direction = towards[words["r"].replace("to the ", "").removesuffix(" of")] if "front" not in words["r"] else -away
        reference = self._only(words["a"])
        found = []
        for thing in candidates:
            step = self._middle(thing) - self._middle(reference)
            if thing != reference and step @ direction > np.cos(np.pi / 4) * np.linalg.norm(step):
                found.append(thing)
        return found

    def _between(self, candidates: list[int], words: dict[str, str]) -> list[int]:
        one, other = (self._middle(self._only(words[name])) for name in "ab")
        found = []
        for thing in candidates:
            if self.things[thing].kind in (words["a"], words["b"]):
                continue
            middle = self._middle(thing)
            detour = np.linalg.norm(middle - one) + np.linalg.norm(middle - other) - np.linalg.norm(one - other)
            if detour < 0.03:
                found.append(thing)
        return found

    def _way(self, thing: int) -> float:
        track = self.track_tn3[:, thing]
        return float(np.linalg.norm(track - track[0], axis=-1).max())

    def _was_lifted(self, thing: int) -> bool:
        heights = self.track_tn3[:, thing, 2]
        risen = heights - np.minimum.accumulate(heights) > 0.025
        stood = np.minimum.accumulate(heights) < 0.02
        return bool((risen & stood & (self.tilts_tn[:, thing] < 0.6)).any())

    def _hangs(self, thing: int) -> bool:
        heights = self.track_tn3[-10:, thing, 2]
        return bool(heights.min() > 0.0008 and self.tilts_tn[-1, thing] < 0.6 and self._near_the_hand(thing))

    def _near_the_hand(self, thing: int) -> bool:
        """It lies in the direction to which the arm has turned."""
        bearing = self.arm_t7[-1, 0]
        x, y = self.track_tn3[-1, thing, :2] - np.array(ROBOT_XY)
        return bool(abs(np.angle(np.exp(1j * (np.arctan2(y, x) - bearing)))) < 0.45)

    def _came_down(self, thing: int) -> bool:
        heights = self.track_tn3[:, thing, 2]
        upright = self.tilts_tn[-1, thing] < 0.6
        return bool(upright and heights.max() > 0.008 and heights[-1] < 0.004 and int(heights.argmax()) < len(heights) - 1)

    def _came_down_last(self, candidates: list[int], words: dict[str, str]) -> list[int]:
        landed = {i: np.flatnonzero(self.track_tn3[:, i, 2] > 0.01)[-1] for i in candidates if self._came_down(i)}
        return [max(landed, key=lambda i: landed[i])] if landed else []

    def _was_slid(self, thing: int) -> bool:
        lies = self.tilts_tn[-1, thing] > 0.8 and self.tilts_tn[0, thing] < 0.3 and KINDS[self.things[thing].kind].upright
        return self._way(thing) > 0.03 and np.ptp(self.track_tn3[:, thing, 2]) < 0.02 and not lies

    def _fell(self, thing: int) -> bool:
        tilts = self.tilts_tn[:, thing]
        return bool(KINDS[self.things[thing].kind].upright and tilts.min() < 0.3 and tilts[-1] > 1.0 and tilts[0] < 0.3)
