"""The robot's table as tests film it: a mug, a box and a bowl before a camera that sways, or that stands still."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cached_property

from decaf_ros.synthetic.table.episodes import Episode
from decaf_ros.synthetic.table.rendering import DEFAULT_SIZE_HW, View
from decaf_ros.synthetic.table.scene import Camera, Look, Scene, Thing

HZ = 10
MUG, BOX, BOWL = range(3)
EXPRESSION, OTHER_EXPRESSION = "the red mug", "the yellow box"  # each has one answer at any time

# The camera turns about a point behind the things, so that they move through its images, by up to 20 pixels a second.
SCENE = Scene(
    things=(
        Thing("mug", "red", 1.1, (0.16, 0.12), 0.6, seed=1),
        Thing("box", "yellow", 0.95, (0.12, -0.14), 0.3, seed=2),
        Thing("bowl", "blue", 1.0, (0.0, 0.0), 0.0, seed=3),
    ),
    actions=(),
    camera=Camera((-0.05, 0.0, 0.0), 0.85, 0.1, 0.75, 0.75, sway=(0.22, 0.0, 0.0), period_s=6.0),
    look=Look(noise=2.0, seed=4),
    duration_s=1.0,
)
STILL_SCENE = replace(SCENE, camera=replace(SCENE.camera, sway=(0.0, 0.0, 0.0)))


class FilmedTable:
    """Films a scene in which nothing happens. A frame is drawn once, however often it is asked for.

    Args:
        scene: what is filmed. After a period of its camera all is as it was; within one, frames differ at least by their noise.
        size_hw: height and width in pixels.
    """

    def __init__(self, scene: Scene, size_hw: tuple[int, int] = DEFAULT_SIZE_HW) -> None:
        self.scene, self.size_hw = scene, size_hw
        self._views: dict[int, View] = {}
        self._drawing = threading.Lock()

    def view(self, time_s: float) -> View:
        """What is seen at a time in seconds, to a tenth of one."""
        number = round(time_s * HZ) % round(self.scene.camera.period_s * HZ)
        with self._drawing:
            if number not in self._views:
                self._views[number] = self._episode.render(number / HZ, self.size_hw)
            return self._views[number]

    def views(self, count: int) -> list[View]:
        """The first so many frames."""
        return [self.view(number / HZ) for number in range(count)]

    @cached_property
    def _episode(self) -> Episode:
        return Episode(self.scene)


TABLE, STILL = FilmedTable(SCENE), FilmedTable(STILL_SCENE)
