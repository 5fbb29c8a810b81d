"""Frames from files and folders, and whole videos carried forwards and backwards, with a mask model that only takes notes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from filmed_table import TABLE

from decaf_ros.datatypes import BoolArray, Frame, FrameWindow, PointPrompt, Tracklet, UInt8Array, Visibility
from decaf_ros.models.protocols import TrackOutput
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.attention import Attention
from decaf_ros.session.frames import uniform_selection
from decaf_ros.session.grounding import GroundedObject, Grounding
from decaf_ros.session.offline import GroundedVideo, segment_video
from decaf_ros.video import FramesInMemory, ImageFolder, VideoError, VideoFile, VideoWriter, open_frames

SIZE_HW = (48, 64)


def grey(number: int, size_hw: tuple[int, int] = SIZE_HW) -> UInt8Array:
    """An image that tells its number by its brightness, also after lossy compression."""
    return np.full((*size_hw, 3), 24 + 5 * number, dtype=np.uint8)


def number_of(frame: Frame) -> int:
    return int((frame.image_rgb.mean() - 20) // 5)  # codecs are a few levels off


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "video.mp4"
    with VideoWriter(path, frames_per_second=25.0) as writer:
        for number in range(40):
            writer.write(grey(number))
    return path


class TestReading:
    def test_a_video_file_has_its_frames_with_stamps(self, video):
        source = VideoFile(video)
        assert len(source) == 40
        assert source.frames_per_second == pytest.approx(25.0)
        frames = source.read(0, 40)
        assert [number_of(frame) for frame in frames] == list(range(40))
        assert [frame.stamp_ns for frame in frames[:3]] == [0, 40_000_000, 80_000_000]

    def test_frames_can_be_read_in_any_order(self, video):
        source = VideoFile(video)
        for start, stop in ((30, 33), (31, 32), (5, 8), (0, 1), (39, 40)):
            assert [number_of(frame) for frame in source.read(start, stop)] == list(range(start, stop))

    def test_a_folder_is_read_in_the_order_of_names_as_rgb(self, tmp_path):
        for number in (2, 0, 1):
            image = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
            image[..., 2] = 100 + number  # OpenCV writes blue, green, red
            cv2.imwrite(str(tmp_path / f"{number:03d}.png"), image)
        (tmp_path / "notes.txt").write_text("no image")
        frames = open_frames(tmp_path).read(0, 3)
        assert [frame.image_rgb[0, 0].tolist() for frame in frames] == [[100, 0, 0], [101, 0, 0], [102, 0, 0]]

    def test_what_cannot_be_read_is_named(self, tmp_path):
        with pytest.raises(VideoError, match=r"nowhere\.mp4 does not exist"):
            open_frames(tmp_path / "nowhere.mp4")
        with pytest.raises(VideoError, match=r"holds no image.*\.png"):
            open_frames(tmp_path)
        text = tmp_path / "video.mp4"
        text.write_text("no video")
        with pytest.raises(VideoError, match="cannot be opened as a video"):
            open_frames(text)

    def test_an_image_is_a_video_of_one_frame(self, tmp_path):
        for name in ("image.png", "image.jpg"):
            cv2.imwrite(str(tmp_path / name), grey(7))
        (tmp_path / "image.png").rename(tmp_path / "image.mp4")  # FFmpeg would decode it, however long that takes
        for name in ("image.mp4", "image.jpg"):
            source = open_frames(tmp_path / name)
            assert (len(source), number_of(source.read(0, 1)[0])) == (1, 7)

    def test_a_file_of_a_kilobyte_that_announces_a_gigabyte_is_refused(self, tmp_path):
        """An AVI in run lengths, of which FFmpeg makes frames of any size: of nothing."""

        def chunk(kind: bytes, data: bytes) -> bytes:
            return kind + struct.pack("<I", len(data)) + data

        main = struct.pack("<14I", 40_000, 0, 0, 16, 5, 0, 1, 0, 16_000, 16_000, 0, 0, 0, 0)
        stream = b"vidsRLE " + struct.pack("<I2H8I4h", 0, 0, 0, 0, 1, 25, 0, 5, 0, 2**32 - 1, 0, 0, 0, 0, 0)
        layout = struct.pack("<IiiHH4sIiiII", 40, 16_000, 16_000, 1, 8, b"RLE ", 0, 0, 0, 0, 0)
        lists = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", layout))
        frames = chunk(b"LIST", b"movi" + chunk(b"00dc", bytes(100)) * 5)
        path = tmp_path / "video.avi"
        path.write_bytes(b"RIFF\0\0\0\0AVI " + chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + lists) + frames)
        with pytest.raises(VideoError, match="16000 x 16000, that is 256000000 pixels; at most"):
            open_frames(path)

    def test_what_never_ends_or_names_other_files_is_refused(self, tmp_path):
        with pytest.raises(VideoError, match="neither a file nor a folder"):
            open_frames(Path("/dev/zero"))
        (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile video.mp4\n")
        with pytest.raises(VideoError, match="is a playlist"):
            open_frames(tmp_path / "list.mp4")

    def test_broken_images_and_mixed_sizes_are_refused(self, tmp_path):
        cv2.imwrite(str(tmp_path / "0.png"), grey(0))
        cv2.imwrite(str(tmp_path / "1.png"), grey(1, (10, 10)))
        (tmp_path / "2.png").write_bytes(b"broken")
        source = ImageFolder(tmp_path)
        with pytest.raises(VideoError, match=r"1\.png has \(10, 10\) pixels, the first image \(64, 48\)"):
            source.read(0, 2)
        with pytest.raises(VideoError, match=r"2\.png cannot be decoded"):
            source.read(2, 3)


class TestWriting:
    @pytest.mark.parametrize(
        ("given", "written"),
        [(29.97, 29.97), (64.9996, 65.0), (65.536, 65.54), (200 / 3, 66.67), (90.167, 90.17), (5e3, 600.0), (4e-4, 0.1)],
    )
    def test_a_rate_is_taken_as_near_as_the_format_has_it(self, tmp_path, given, written):
        path = tmp_path / "video.mp4"
        with VideoWriter(path, given) as writer:
            for number in range(3):
                writer.write(grey(number))
        source = VideoFile(path)
        assert len(source) == 3
        assert source.frames_per_second == pytest.approx(written, abs=1e-3)

    def test_sides_of_odd_length_lose_nothing(self, tmp_path):
        path = tmp_path / "video.mp4"
        with VideoWriter(path, 10.0) as writer:
            writer.write(np.full((75, 101, 3), 200, dtype=np.uint8))
        [read] = VideoFile(path).read(0, 1)
        assert read.size_hw == (76, 102)
        assert read.image_rgb.min() > 180, "the new row and column look like those beside them"

    def test_what_cannot_be_written_is_named_before_the_first_image(self, tmp_path):
        (tmp_path / "video.mp4").mkdir()
        with VideoWriter(tmp_path / "video.mp4", 10.0) as writer, pytest.raises(VideoError, match=r"video\.mp4 cannot be"):
            writer.open(SIZE_HW)

    def test_without_images_no_file_is_left(self, tmp_path):
        with VideoWriter(tmp_path / "video.mp4", 10.0) as writer:
            writer.open(SIZE_HW)
        assert not list(tmp_path.iterdir())


@dataclass(eq=False)
class CountingTrack:
    """Counts the steps since its mask was given."""

    steps: int = 0


class CountingTracker:
    """Masks whose number of pixels is one more than the steps that their track took; gone after ``lost_after`` steps."""

    def __init__(self, lost_after: int = 10**6) -> None:
        self.lost_after = lost_after

    reach = 2

    def encode(self, frame: Frame) -> int:
        return number_of(frame)

    def start_backwards(self, features: int, mask_hw: BoolArray, later: Sequence[int]) -> CountingTrack:
        assert list(later) == list(range(features + 1, min(features + 3, 45)))
        return CountingTrack()

    def start_track(self, features: int, mask_hw: BoolArray) -> CountingTrack:
        return CountingTrack()

    def condition(self, track: CountingTrack, features: int, mask_hw: BoolArray) -> None:
        track.steps = 0

    def step(self, tracks: Sequence[CountingTrack], features: int) -> list[TrackOutput]:
        for track in tracks:
            track.steps += 1
        return [TrackOutput(pixels(track.steps + 1), float(track.steps <= self.lost_after)) for track in tracks]


def pixels(count: int) -> BoolArray:
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    mask.reshape(-1)[:count] = True
    return mask


def grounded(key_indices: tuple[int, ...], *conditioned: tuple[int, ...]) -> GroundedVideo:
    """Objects with a mask of one pixel on each of the given key frames (by index of the video)."""
    frames = tuple(Frame(index, "camera", grey(index)) for index in key_indices)
    objects = []
    for video_indices in conditioned:
        prompts = [PointPrompt(key_indices.index(index), (0.5, 0.5), 0.9) for index in video_indices]
        masks = np.stack([pixels(1)] * len(frames))
        objects.append(GroundedObject(tuple(Tracklet(prompt, masks, 0.9, 1.0, 0.95) for prompt in prompts)))
    attention = Attention(torch.zeros(len(frames), 1, 1), "mug", ())
    return GroundedVideo(key_indices, Grounding(FrameWindow(frames), attention, (), (), tuple(objects), confident=True))


def sizes(source: FramesInMemory, video: GroundedVideo, tracker: CountingTracker) -> list[list[int]]:
    """Pixels of each object's mask, frame by frame."""
    results = list(segment_video(source, video, tracker))
    assert [number_of(each.frame) for each in results] == list(range(len(source)))
    return [[each.pixel_count for each in result.objects] for result in results]


@pytest.fixture
def source() -> FramesInMemory:
    return FramesInMemory([Frame(number, "camera", grey(number)) for number in range(45)], 10.0)


class TestWholeVideo:
    def test_an_object_is_carried_both_ways_from_its_key_frame(self, source):
        counted = sizes(source, grounded((0, 20, 44), (20,)), CountingTracker())
        assert counted == [[abs(number - 20) + 1] for number in range(45)]

    def test_later_conditioning_frames_are_used_and_objects_are_independent(self, source):
        counted = sizes(source, grounded((0, 20, 44), (20, 44), (0,)), CountingTracker())
        first = [*range(21, 1, -1), *range(1, 25), 1]
        second = [*range(1, 46)]
        assert counted == [list(pair) for pair in zip(first, second, strict=True)]

    def test_an_object_that_the_tracker_loses_has_no_mask(self, source):
        results = list(segment_video(source, grounded((0, 20), (20,)), CountingTracker(lost_after=3)))
        visible = [index for index, each in enumerate(results) if each.objects[0].visibility is Visibility.VISIBLE]
        assert visible == list(range(17, 24))
        assert not results[16].union_hw().any()

    def test_masks_are_those_of_a_clip_that_is_carried_both_ways_at_once(self):
        """With SAM 2: the way back knows what came after the key frame."""
        tracker, views, middle = Sam2Tracker.load("embedded"), TABLE.views(24), 12
        frames = [Frame(index, "camera", view.image_rgb) for index, view in enumerate(views)]
        mask = views[middle].mask_of(0)
        tracklet = Tracklet(PointPrompt(0, (0.5, 0.5), 0.9), mask[None], 0.9, 1.0, 0.95)
        grounding = replace(grounded((middle,)).grounding, objects=(GroundedObject((tracklet,)),))
        video = segment_video(FramesInMemory(frames, 10.0), GroundedVideo((middle,), grounding), tracker)
        [expected] = tracker.propagate([tracker.encode(frame) for frame in frames], middle, mask[None])
        np.testing.assert_array_equal(np.stack([each.union_hw() for each in video]), expected)
        assert np.count_nonzero(expected.any(axis=(1, 2))) > 18, "empty masks would agree too"

    def test_nothing_found_gives_frames_without_objects(self, source):
        assert sizes(source, grounded((0, 20)), CountingTracker()) == [[]] * 45

    @pytest.mark.parametrize(("frames", "count"), [(100, 16), (17, 16), (2, 16), (1, 1), (9, 1)])
    def test_key_frames_are_uniform_and_reach_both_ends(self, frames, count):
        indices = uniform_selection(range(frames), count)
        assert len(indices) == min(frames, count)
        assert count == 1 or indices[0] == 0
        assert indices[-1] == frames - 1
        steps = np.diff(indices)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
