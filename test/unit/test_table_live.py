"""Tables that live in step with a clock, without ROS: what is shown when, and what the arm is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from decaf_ros.synthetic.table.episodes import Episode
from decaf_ros.synthetic.table.live import LiveTable
from decaf_ros.synthetic.table.reel import Reel, Showing, Source
from decaf_ros.synthetic.table.scene import Action, Camera, Look, Scene, Thing

SIZE_HW = (48, 64)
SECOND = 1_000_000_000


def scene_of(kind: str, *actions: Action, xy: tuple[float, float] = (0.0, 0.1), duration_s: float = 2.0) -> Scene:
    camera = Camera(target=(0.0, 0.0, 0.0), distance=0.9, azimuth=0.0, elevation=0.8, fov_y=0.8, sway=(0.1, 0.0, 0.0))
    return Scene((Thing(kind, "red", 1.0, xy, 0.3),), actions, camera, Look(), duration_s)


def test_at_any_time_it_shows_what_the_episode_shows_and_lives_on_after_its_end() -> None:
    scene = scene_of("can", Action("push", 0, (0.0, 0.25)), duration_s=4.0)
    episode, table = Episode(scene), LiveTable(scene)
    for time_s in (0.0, 0.013, 1.0, 2.51, 2.52, 3.777):
        expected, shown = episode.render(time_s, SIZE_HW), table.render(time_s, SIZE_HW)
        assert np.array_equal(shown.image_rgb, expected.image_rgb)
        assert np.array_equal(shown.depth_hw, expected.depth_hw)
        assert np.array_equal(shown.poses_n44, expected.poses_n44)
    assert (table.arm.busy, table.arm.order, table.arm.outcome) == (True, "script", "under way")
    table.advance(9.0)
    assert (table.arm.busy, table.arm.order, table.arm.outcome) == (False, "script", "done")
    assert table.world.pose_of(0)[0][1] > 0.2


@pytest.mark.parametrize(
    ("kind", "order", "points", "reason"),
    [
        ("can", "pick", [(0, 0.1, 0.05), (0, 0, 0)], "pick takes one point"),
        ("can", "juggle", [(0, 0.1, 0.05)], "unknown order 'juggle'; known are pick, place, push"),
        ("can", "push", [(0, 0.1, 0.05)], "push takes two points, from and to"),
        ("can", "pick", [(np.inf, 0, 0)], "three finite coordinates"),
        ("can", "pick", [(0.3, 0.3, 0)], r"nothing is at \(0\.300, 0\.300, 0\.000\) m"),
        ("can", "push", [(0, 0.1, 0.05), (5, 0, 0)], "is not on the table"),
        ("can", "place", [(0, 0.1, 0)], "the hand holds nothing"),
        ("plate", "pick", [(0, 0.1, 0.01)], "the gripper cannot lift a plate"),
    ],
)
def test_what_the_arm_cannot_do_is_refused_with_the_reason(kind: str, order: str, points: list[object], reason: str) -> None:
    table = LiveTable(scene_of(kind))
    before = table.arm
    with pytest.raises(ValueError, match=reason):
        table.order(order, *points)
    table.advance(0.1)
    assert table.arm == before


def test_one_order_at_a_time_and_what_became_of_it() -> None:
    table = LiveTable(scene_of("can"))
    table.order("push", (0.0, 0.1, 0.05), (0.5, 0.85, 0.0))
    with pytest.raises(ValueError, match="the arm is busy"):
        table.order("pick", (0.0, 0.1, 0.05))
    table.advance(1.0)
    assert (table.arm.outcome, table.arm.reason) == ("failed", "it is out of reach")
    table.order("pick", (0.0, 0.1, 0.05))
    table.advance(8.0)
    assert (table.arm.outcome, table.arm.reason, table.arm.holds) == ("done", "", True)


@pytest.fixture
def reel() -> Iterator[Callable[..., Reel]]:
    made = []

    def make(*sources: Source, seconds: float = 0.0) -> Reel:
        made.append(Reel(SIZE_HW, seconds))
        made[-1].show(sources)
        return made[-1]

    yield make
    for each in made:
        each.close()


def shown(reel: Reel, stamp_ns: int, before: Showing | None = None) -> Showing:
    """What is shown once it is something else than before."""
    while (found := reel.look(stamp_ns)) is before:
        time.sleep(0.01)
    assert found is not None
    return found


def test_each_is_shown_from_its_time_0_for_as_long_as_it_is_to_be(reel: Callable[..., Reel]) -> None:
    tables = reel(Source("can", scene_of("can")), Source("mug", scene_of("mug")), seconds=2.0)
    first = shown(tables, 100 * SECOND)
    assert (first.name, first.time_at(100 * SECOND)) == ("can", 0.0)
    second = shown(tables, 103 * SECOND, first)  # the first goes on until it is ready
    assert (second.name, second.time_at(103 * SECOND), second.time_at(104 * SECOND)) == ("mug", 0.0, 1.0)
    assert tables.look(104 * SECOND) is second


def test_a_clock_that_leaps_does_not_make_the_table_leap(reel: Callable[..., Reel]) -> None:
    tables = reel(Source("can", scene_of("can")))
    first = shown(tables, 100 * SECOND)
    first.table.advance(first.time_at(101 * SECOND))
    for leap_ns in (5000 * SECOND, 3 * SECOND):
        leapt = tables.look(leap_ns)
        assert leapt is not None
        assert leapt.table is first.table
        assert leapt.time_at(leap_ns) == pytest.approx(1.0, abs=0.03)
        assert tables.look(leap_ns + 100_000_000) is leapt


def test_a_table_that_cannot_be_is_told_and_the_next_one_shown(
    reel: Callable[..., Reel], caplog: pytest.LogCaptureFixture
) -> None:
    broken = scene_of("box", xy=(-0.5, 0.0))  # in the arm's foot
    tables = reel(Source("broken", broken), Source("mug", scene_of("mug")), seconds=5.0)
    assert shown(tables, SECOND).name == "mug"
    assert "no table of broken: ValueError: " in caplog.text
