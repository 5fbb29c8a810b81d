"""What a track remembers, with memories that carry their time as their value."""

import pytest
import torch

from decaf_ros.models.sam2_memory import MemoryEntry, MemorySpan, ObjectPointer, Sam2Track

SPAN = MemorySpan(spatial=6, pointers=15, conditioning=3)


def entry(time: int) -> MemoryEntry:
    return MemoryEntry(torch.full((4, 2), float(time)), ObjectPointer(time, torch.full((8,), float(time))))


def started(frames: int, conditioned: tuple[int, ...] = (0,)) -> Sam2Track:
    track = Sam2Track(SPAN)
    for time in range(frames):
        (track.condition if time in conditioned else track.remember)(entry(time))
    return track


def times(tensors: tuple[torch.Tensor, ...]) -> list[int]:
    return [int(tensor.flatten()[0]) for tensor in tensors]


def test_recalls_the_conditioning_frame_the_last_6_memories_and_the_last_15_pointers():
    recalled = started(40).recall()
    assert times(recalled.spatial) == [0, 34, 35, 36, 37, 38, 39]
    assert recalled.spatial_ages == (0, 6, 5, 4, 3, 2, 1)
    assert times(recalled.pointers) == [0, *range(39, 24, -1)]
    assert recalled.pointer_ages == (40, *range(1, 16))
    assert recalled.token_counts == (7, 16)


def test_a_conditioning_frame_uses_up_a_place_of_the_window():
    recalled = started(10, conditioned=(0, 7)).recall()
    assert times(recalled.spatial) == [0, 7, 4, 5, 6, 8, 9]
    assert recalled.spatial_ages == (0, 0, 6, 5, 4, 2, 1)
    assert times(recalled.pointers) == [0, 7, 9, 8, 6, 5, 4, 3, 2, 1]


def test_the_first_and_the_newest_conditioning_frames_stay():
    recalled = started(20, conditioned=(0, 3, 5, 18, 19)).recall()
    assert times(recalled.spatial)[:3] == [0, 18, 19]
    assert recalled.token_counts[0] == 3 + 4


def test_backwards_the_clock_runs_against_the_other_and_the_nearest_later_frames_count():
    onwards = Sam2Track.starting(SPAN, entry(0), reversible=True)
    for time in range(1, 30):
        onwards.remember(entry(time))
    track = onwards.reversed()
    recalled = track.recall()  # on the frame before the start
    assert recalled.spatial_ages == (0, 6, 5, 4, 3, 2)
    assert times(recalled.spatial) == [0, 5, 4, 3, 2, 1]
    assert recalled.pointer_ages == (1, *range(2, 16))
    assert times(recalled.pointers) == [0, *range(1, 15)]

    track.remember(entry(track.next_time))
    assert times(track.recall().spatial) == [0, 4, 3, 2, 1, 1]
    assert track.recall().spatial_ages == (0, 6, 5, 4, 3, 1)


def test_a_track_takes_the_same_space_after_16_frames_and_after_1000():
    assert started(17).nbytes == started(1000).nbytes > 0


def test_one_conditioning_frame_is_too_few_to_keep():
    with pytest.raises(ValueError, match="at least 2"):
        MemorySpan(conditioning=1)
