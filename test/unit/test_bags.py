"""Bags as frames: both storages, raw and compressed images, topics to choose from, and what is said about useless bags."""

import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, storage_mcap
from rosbags.typesys import Stores, get_typestore

from decaf_ros.bags import BagTopic, is_bag
from decaf_ros.datatypes import Frame, UInt8Array
from decaf_ros.video import VideoError

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGE, COMPRESSED, STRING = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
START_NS = 1_700_000_000_000_000_000
STORAGES = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]


def message(kind: str, **fields: Any) -> Any:
    return TYPES.types[kind](**fields)


def header(stamp_ns: int) -> Any:
    stamp = message("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id="camera_optical")


def raw(stamp_ns: int, image: UInt8Array, encoding: str = "rgb8") -> Any:
    height, width = image.shape[:2]
    fields = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": 3 * width}
    return message(IMAGE, header=header(stamp_ns), data=image.reshape(-1), **fields)


def grey(number: int) -> UInt8Array:
    return np.full((4, 6, 3), number, dtype=np.uint8)


def write_bag(path: Path, storage: StoragePlugin, **topics: tuple[str, Iterable[Any]]) -> Path:
    """A bag of topics with their types and messages, a millisecond between recordings, whatever their stamps."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for name, (kind, messages) in topics.items():
            connection = writer.add_connection(f"/{name}", kind, typestore=TYPES)
            for index, each in enumerate(messages):
                writer.write(connection, START_NS + 1_000_000 * index, TYPES.serialize_cdr(each, kind))
    return path


def numbers(frames: list[Frame]) -> list[int]:
    return [int(frame.image_rgb[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("single_file", [False, True])
def test_images_have_stamps_frame_id_and_pixels_of_their_messages(tmp_path, storage, single_file):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    stamps_ns = [START_NS + 7 + 50_000_000 * index for index in range(5)]
    messages = [raw(stamp_ns, image[..., ::-1], "bgr8") for stamp_ns in stamps_ns]
    notes = (STRING, [message(STRING, data="a note")] * 9)
    path = write_bag(tmp_path / "bag", storage, image=(IMAGE, messages), notes=notes)
    if single_file:
        path = next(file for file in path.iterdir() if file.suffix != ".yaml")
    assert is_bag(path)
    source = BagTopic(path)
    assert (len(source), source.frames_per_second) == (5, pytest.approx(20.0))
    frames = source.read(0, 5)
    assert [(frame.stamp_ns, frame.frame_id) for frame in frames] == [(each, "camera_optical") for each in stamps_ns]
    assert all(np.array_equal(frame.image_rgb, image) for frame in frames)


@pytest.mark.parametrize("storage", STORAGES)
def test_frames_stand_in_the_order_of_their_stamps_and_are_read_in_any_order(tmp_path, storage):
    recorded = [1, 0, 3, 3, 2, 5, 4, 9, 6, 7, 8]  # late and repeated ones
    path = write_bag(tmp_path / "bag", storage, image=(IMAGE, [raw(START_NS + each * 10**8, grey(each)) for each in recorded]))
    source = BagTopic(path)
    assert len(source) == 10
    for start, stop in ((0, 10), (8, 10), (2, 4), (3, 4), (0, 1), (5, 5)):
        assert numbers(source.read(start, stop)) == list(range(start, stop))


def test_compressed_images_are_decoded(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    data = cv2.imencode(".png", image[..., ::-1])[1].reshape(-1)
    good = message(COMPRESSED, header=header(5), format="rgb8; png compressed bgr8", data=data)
    broken = message(COMPRESSED, header=header(6), format="theora", data=data[8:])
    empty = message(COMPRESSED, header=header(7), format="jpeg", data=data[:0])
    source = BagTopic(write_bag(tmp_path / "bag", StoragePlugin.MCAP, image=(COMPRESSED, [good, broken, empty])))
    assert np.array_equal(source.read(0, 1)[0].image_rgb, image)
    with pytest.raises(VideoError, match=r"/image with the stamp 6: .*'theora'"):
        source.read(0, 2)
    with pytest.raises(VideoError, match="stamp 7: 0 bytes"):
        source.read(2, 3)


def test_images_that_no_frame_can_be_made_of_are_named(tmp_path):
    small = raw(2, np.zeros((2, 2, 3), dtype=np.uint8))
    torn = replace(raw(3, grey(3)), step=1)
    source = BagTopic(write_bag(tmp_path / "bag", StoragePlugin.MCAP, image=(IMAGE, [raw(1, grey(1)), small, torn])))
    with pytest.raises(VideoError, match=r"stamp 2 has \(2, 2\) pixels, the first image \(6, 4\)"):
        source.read(0, 2)
    with pytest.raises(VideoError, match="stamp 3: step is 1 bytes"):
        source.read(2, 3)


class TestTopics:
    @pytest.fixture
    def bag(self, tmp_path) -> Path:
        left, right = (IMAGE, [raw(1, grey(10))]), (IMAGE, [raw(1, grey(20))])
        nothing: tuple[str, list[Any]] = (COMPRESSED, [])
        return write_bag(tmp_path / "bag", StoragePlugin.MCAP, right=right, left=left, nothing=nothing, notes=(STRING, []))

    def test_one_of_several_is_chosen_by_name(self, bag):
        assert numbers(BagTopic(bag, "/right").read(0, 1)) == [20]

    @pytest.mark.parametrize(
        ("topic", "cause"),
        [
            (None, r"several topics with images; choose one with --topic: /left, /nothing, /right$"),
            ("/up", r"no images on a topic /up; it has them on /left, /nothing, /right$"),
            ("/notes", r"no images on a topic /notes"),
            ("/nothing", r"has no message on /nothing"),
        ],
    )
    def test_a_choice_that_cannot_be_made_lists_what_there_is(self, bag, topic, cause):
        with pytest.raises(VideoError, match=cause):
            BagTopic(bag, topic)

    def test_a_bag_without_images_lists_its_topics(self, tmp_path):
        path = write_bag(tmp_path / "bag", StoragePlugin.SQLITE3, notes=(STRING, []))
        with pytest.raises(VideoError, match=r"no topic of type sensor_msgs/Image .*: /notes \(std_msgs/msg/String\)$"):
            BagTopic(path)

    def test_a_camera_that_sets_no_stamps(self, tmp_path):
        path = write_bag(tmp_path / "bag", StoragePlugin.MCAP, image=(IMAGE, [raw(0, grey(1))] * 3))
        with pytest.raises(VideoError, match="all 3 images of /image have one stamp"):
            BagTopic(path)


def record(kind: int, data: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(data)) + data


def sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def mcap(*records: bytes) -> bytes:
    """An MCAP file without an index."""
    magic = b"\x89MCAP0\r\n"
    return magic + record(1, sized(b"ros2") + sized(b"by hand")) + b"".join(records) + record(2, bytes(20)) + magic


def mcap_topic(number: int, name: bytes, kind: str) -> bytes:
    schema = record(3, struct.pack("<H", number) + sized(kind.encode()) + sized(b"ros2msg") + sized(b""))
    return schema + record(4, struct.pack("<HH", number, number) + sized(name) + sized(b"cdr") + sized(b""))


def mcap_chunk(compression: str, data: bytes, says: int) -> bytes:
    head = struct.pack("<QQQI", 0, START_NS, says, 0) + sized(compression.encode())
    return record(6, head + struct.pack("<Q", len(data)) + data)


GIGABYTE = 1 << 30
MEASURED = """
import sys
from pathlib import Path
from decaf_ros.bags import BagTopic, VideoError
def peak_kb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak_kb()
try:
    BagTopic(Path(sys.argv[1]))
except VideoError as error:
    print(peak_kb() - before, error)
"""


class TestSmallBagsOfGigabytes:
    """They are refused before they cost more than an image of the largest size."""

    def refused(self, path: Path, cause: str) -> None:
        command = [sys.executable, "-c", MEASURED, str(path)]
        kilobytes, told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split(" ", 1)
        assert int(kilobytes) < 700_000
        assert cause in told

    @pytest.mark.parametrize("compression", ["zstd", "lz4"])
    @pytest.mark.parametrize(("says", "cause"), [(GIGABYTE, "1073741824 bytes; at most"), (99, "expected 99 bytes, got 100")])
    def test_chunks(self, tmp_path, compression, says, cause):
        data = storage_mcap.zstd.compress(bytes(GIGABYTE)) if compression == "zstd" else lz4.frame.compress(bytes(GIGABYTE))
        path = tmp_path / "bag.mcap"
        path.write_bytes(mcap(mcap_topic(1, b"/image", IMAGE), mcap_chunk(compression, data, says)))
        self.refused(path, cause)

    @pytest.mark.parametrize(
        ("mode", "cause"),
        [(CompressionMode.MESSAGE, "a compressed message of more"), (CompressionMode.FILE, "200 times its size")],
    )
    def test_messages_and_files(self, tmp_path, mode, cause):
        writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3)
        writer.set_compression(mode, CompressionFormat.ZSTD)
        with writer:
            connection = writer.add_connection("/image", IMAGE, typestore=TYPES)
            writer.write(connection, START_NS, bytes(300_000_000))
        self.refused(tmp_path / "bag", cause)

    def test_columns_that_are_computed(self, tmp_path):
        bag = write_bag(tmp_path / "bag", StoragePlugin.SQLITE3, image=(IMAGE, [raw(1, grey(1))]))
        [path] = bag.glob("*.db3")
        with sqlite3.connect(path) as database:
            database.executescript(
                "DROP TABLE messages; CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, "
                "data GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL); "
                "INSERT INTO messages(topic_id, timestamp) VALUES (1, 1)"
            )
        self.refused(path, "too big")

    @pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
    def test_what_a_camera_recorded_is_not_refused(self, tmp_path, mode):
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3)
        writer.set_compression(mode, CompressionFormat.ZSTD)
        with writer:
            connection = writer.add_connection("/image", IMAGE, typestore=TYPES)
            writer.write(connection, START_NS, TYPES.serialize_cdr(raw(1, noise), IMAGE))
        assert np.array_equal(BagTopic(tmp_path / "bag").read(0, 1)[0].image_rgb, noise)


def test_of_thousands_of_topics_a_few_are_named(tmp_path):
    path = tmp_path / "bag.mcap"
    topics = [mcap_topic(number, b"/%04d\x1b[2J" % number + b"x" * 10_000, STRING) for number in range(1000)]
    path.write_bytes(mcap(*topics))
    with pytest.raises(VideoError, match=r"its topics: /0000\\x1b.* and 980 more$") as refused:
        BagTopic(path)
    assert len(str(refused.value)) < 4000


def test_a_topic_is_named_in_a_few_words(tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(mcap(mcap_topic(1, b"/\x1b[2J" + b"x" * 10_000, IMAGE)))
    with pytest.raises(VideoError, match=r"has no message on /\\x1b\[2Jx+\.\.\. \(10005 characters\)$") as refused:
        BagTopic(path)
    assert len(str(refused.value)) < 400


class TestDamage:
    @pytest.mark.parametrize("storage", STORAGES)
    def test_a_file_that_was_cut_anywhere_is_refused(self, tmp_path, storage):
        bag = write_bag(tmp_path / "bag", storage, image=(IMAGE, [raw(index, grey(index)) for index in range(200)]))
        whole = next(file for file in bag.iterdir() if file.suffix != ".yaml")
        data = whole.read_bytes()
        cut = tmp_path / f"cut{whole.suffix}"
        for size in (0, 1, 8, 60, 4096, len(data) // 3, len(data) // 2, len(data) - 4097, len(data) - 100):
            cut.write_bytes(data[:size])
            with pytest.raises(VideoError, match=r"cut\.(mcap|db3) is damaged, or no bag: "):
                BagTopic(cut)

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(VideoError, match=r"nowhere\.mcap does not exist"):
            BagTopic(tmp_path / "nowhere.mcap")
        bag = write_bag(tmp_path / "bag", StoragePlugin.MCAP, image=(IMAGE, [raw(1, grey(1))]))
        (bag / "metadata.yaml").unlink()
        assert is_bag(bag)
        with pytest.raises(VideoError, match=r"bag has no metadata\.yaml: name one of its files"):
            BagTopic(bag)

    def test_folders_of_images_and_videos_are_no_bags(self, tmp_path):
        (tmp_path / "0.png").touch()
        assert not is_bag(tmp_path)
        assert not is_bag(tmp_path / "video.mp4")
