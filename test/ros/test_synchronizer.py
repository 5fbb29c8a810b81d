"""Which colour image goes with which depth image."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest
from sensor_msgs.msg import Image

from decaf_ros.imaging import stamp_to_ns
from decaf_ros.ros import synchronizer
from decaf_ros.ros.conversions import make_header

Step = tuple[int, int]  # which input, stamp in ns
MS = 1_000_000


def pairs_of(module: ModuleType, steps: list[Step], queue_size: int = 10, slop: float = 0.05) -> list[tuple[int, int]]:
    """Stamps of the pairs, in the order in which they came."""
    filters = [module.SimpleFilter(), module.SimpleFilter()]
    pairs: list[tuple[int, int]] = []
    both = module.ApproximateTimeSynchronizer(filters, queue_size, slop)
    both.registerCallback(lambda *pair: pairs.append(tuple(stamp_to_ns(each.header.stamp) for each in pair)))
    for index, stamp in steps:
        filters[index].signalMessage(Image(header=make_header(stamp, "")))
    return pairs


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 100 * MS), (1, 100 * MS)], [(100 * MS, 100 * MS)]),
        ([(1, 130 * MS), (0, 100 * MS)], [(100 * MS, 130 * MS)]),  # in the order of the inputs, not of arrival
        ([(0, 100 * MS), (1, 150 * MS)], []),  # the slop itself is too much
        ([(0, 100 * MS), (1, 149 * MS)], [(100 * MS, 149 * MS)]),
        # The closest of those that wait; the other one stays for the next.
        ([(0, 100 * MS), (0, 133 * MS), (1, 130 * MS), (1, 140 * MS)], [(133 * MS, 130 * MS), (100 * MS, 140 * MS)]),
        ([(0, 100 * MS), (1, 100 * MS), (1, 101 * MS)], [(100 * MS, 100 * MS)]),  # nobody has two partners
    ],
)
def test_pairs(steps: list[Step], expected: list[tuple[int, int]]) -> None:
    assert pairs_of(synchronizer, steps) == expected


def test_the_latest_wait() -> None:
    steps = [(0, stamp * MS) for stamp in (1000, 2000, 3000)] + [(1, stamp * MS) for stamp in (1000, 2000, 3000)]
    assert pairs_of(synchronizer, steps, queue_size=2) == [(2000 * MS, 2000 * MS), (3000 * MS, 3000 * MS)]


def random_steps(rng: random.Random) -> list[Step]:
    """Two cameras of any rates with jitter, losses, late messages and, at times, a jump back."""
    steps: list[tuple[float, Step]] = []
    for index in (0, 1):
        period, offset, delay = rng.choice((20, 33, 50, 66)), rng.uniform(0, 50), rng.uniform(0, 120)
        for count in range(60):
            # Multiples of 5 ms, so that equal distances and distances of exactly the slop occur, and lapses of the clock.
            stamp = 5 * round((offset + count * period + rng.gauss(0, 8)) / 5) - (900 if rng.random() < 0.02 else 0)
            if rng.random() > 0.15:
                steps.append((count * period + delay + rng.uniform(0, 30), (index, max(0, stamp) * MS)))
    return [step for _, step in sorted(steps)]


def test_same_pairs_as_message_filters() -> None:
    reference: Any = pytest.importorskip("message_filters", reason="message_filters comes with a ROS distribution")
    rng = random.Random(0)
    found = 0
    for _ in range(300):
        steps, size, slop = random_steps(rng), rng.choice((1, 2, 5, 10)), rng.choice((0.005, 0.02, 0.05, 0.1))
        pairs = pairs_of(synchronizer, steps, size, slop)
        assert pairs == pairs_of(reference, steps, size, slop)
        found += len(pairs)
    assert found > 1000
