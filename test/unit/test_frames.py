"""Which frames are kept of those that pass."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from test_session import PERIOD_NS, stamps

from decaf_ros.datatypes import Frame
from decaf_ros.session.frames import CatchUpBuffer, KeyFrameBuffer, StoredFrame, uniform_selection


def stored(stamp_ns: int) -> StoredFrame:
    return StoredFrame(Frame(stamp_ns, "camera", np.zeros((1, 1, 3), dtype=np.uint8)), SimpleNamespace(encode=id))


def encoded(stamp_ns: int) -> StoredFrame:
    frame = stored(stamp_ns)
    frame.features()
    return frame


class TestKeyFrames:
    def test_selection_is_uniform_in_time_though_the_camera_changed_its_rate(self):
        buffer = KeyFrameBuffer(window_seconds=15.0, window_hz=10.0)
        for stamp_ms in [*range(0, 10_000, 500), *range(10_000, 15_001, 100)]:
            buffer.add(stored(stamp_ms * 1_000_000))
        chosen = [each.frame.stamp_ns / 1e9 for each in buffer.select(8)]
        assert chosen == pytest.approx(np.linspace(0, 15, 8), abs=0.25)

    def test_selection_takes_every_frame_once_though_the_camera_paused(self):
        buffer = KeyFrameBuffer(window_seconds=15.0, window_hz=10.0)
        for stamp_ms in (0, 100, 200, 300, 14_800, 14_900, 15_000):
            buffer.add(stored(stamp_ms * 1_000_000))
        chosen = [each.frame.stamp_ns // 1_000_000 for each in buffer.select(4)]
        assert chosen == sorted(set(chosen))
        assert (len(chosen), chosen[0], chosen[-1]) == (4, 0, 15_000)

    @pytest.mark.parametrize("camera_hz", [2, 10, 30])
    @pytest.mark.parametrize("count", [1, 5, 16])
    def test_selection_is_increasing_bounded_recent_and_ends_with_the_newest(self, camera_hz, count):
        rng = np.random.default_rng(0)
        buffer = KeyFrameBuffer(window_seconds=4.0, window_hz=4.0)
        stamp_ns = 0
        for _ in range(10 * camera_hz):
            stamp_ns += int(1e9 / camera_hz * rng.uniform(0.7, 1.3))
            buffer.add(stored(stamp_ns))
        chosen = [each.frame.stamp_ns for each in buffer.select(count)]
        assert chosen == sorted(set(chosen))
        if camera_hz > 2:
            assert count - 1 <= len(chosen) <= count
        assert chosen[-1] == stamp_ns
        assert chosen[0] >= stamp_ns - 4_000_000_000
        if count > 4:
            assert chosen[-1] - chosen[0] > 3_200_000_000

    def test_windows_begin_where_the_same_frames_make_pairs_while_they_move_on(self):
        buffer, pairs = KeyFrameBuffer(window_seconds=4.0, window_hz=4.0), {}
        for number in range(120):
            buffer.add(stored(number * PERIOD_NS))
            if number > 40:
                chosen = buffer.select(16)
                assert len(chosen) >= 15
                for earlier, later in zip(chosen[:-2:2], chosen[1:-1:2], strict=False):
                    assert pairs.setdefault(earlier, later) is later

    def test_a_shorter_look_back(self):
        buffer = KeyFrameBuffer(window_seconds=4.0, window_hz=10.0)
        for number in range(41):
            buffer.add(stored(number * PERIOD_NS))
        assert [each.frame.stamp_ns for each in buffer.select(16, 0.5)] == stamps(35, 36, 37, 38, 39, 40)

    def test_the_buffer_stays_as_long_as_its_window(self):
        buffer = KeyFrameBuffer(window_seconds=2.0, window_hz=5.0)
        for number in range(1000):
            buffer.add(stored(number * PERIOD_NS))
        assert len(buffer.select(1000)) <= 12

    def test_a_window_shorter_than_a_period_holds_the_newest_frame(self):
        buffer = KeyFrameBuffer(window_seconds=0.1, window_hz=4.0)
        for number in range(20):
            buffer.add(stored(number * PERIOD_NS // 2))
            assert buffer.select(16)[-1].frame.stamp_ns == number * PERIOD_NS // 2

    def test_uniform_selection(self):
        assert uniform_selection([*range(10)], 4) == [0, 3, 6, 9]
        assert uniform_selection([*range(10)], 1) == [9]
        assert uniform_selection([*range(3)], 4) == [0, 1, 2]


def test_the_catch_up_buffer_is_bounded_and_counts_what_it_gives_up():
    buffer = CatchUpBuffer(capacity=8)
    for number in range(1, 101):
        buffer.append(encoded(number))
    kept = [each.frame.stamp_ns for each in buffer.drain()]
    assert len(kept) <= 8 + 1
    assert len(kept) + buffer.skipped == 100
    assert kept[-1] == 100, "the newest, whatever the stride"
    steps = np.diff(kept[:-1])
    assert steps.max() <= 2 * steps.min()
