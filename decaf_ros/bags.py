"""Images of a rosbag2, MCAP or sqlite3, as frames; ROS need not be installed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from decaf_ros import bag_limits
from decaf_ros.datatypes import Frame
from decaf_ros.imaging import frame_from_compressed, frame_from_image, stamp_to_ns
from decaf_ros.text import brief
from decaf_ros.video import FOLDER_FRAMES_PER_SECOND, VideoError

_STORAGE_SUFFIXES = (".mcap", ".db3")
_DECODERS = {"sensor_msgs/msg/Image": frame_from_image, "sensor_msgs/msg/CompressedImage": frame_from_compressed}
# Many sqlite3 bags hold no message definitions; those of the two messages are alike in all distributions.
_TYPES = get_typestore(Stores.ROS2_HUMBLE)
_TOPICS_NAMED = 20
_NAME_CHARACTERS = 80

bag_limits.apply()


def is_bag(path: Path) -> bool:
    """Whether a path is a bag by its name: a storage file, or a folder with ``metadata.yaml`` or a storage file in it."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or any(file.suffix in _STORAGE_SUFFIXES for file in path.iterdir())
    return path.suffix in _STORAGE_SUFFIXES


class _Position(NamedTuple):
    """Where an image is: its own stamp, and the time at which it was recorded, by which bags are searched."""

    stamp_ns: int
    recorded_ns: int


class BagTopic:
    """The images of one topic of a bag as a :class:`decaf_ros.video.FrameSource`; they are read when they are asked for.

    Frames carry stamp and frame_id of their messages and stand in the order of the stamps, in whichever order they were
    recorded. Of several images with one stamp the first counts, as in a live stream.

    Args:
        path: a bag's folder, or one .mcap or .db3 file.
        topic: of type sensor_msgs/Image or CompressedImage; may be left out where the bag has only one of them.

    Raises:
        VideoError: nothing there, a damaged bag, not one topic to read, or no usable image on it.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        if not path.exists():
            raise VideoError(f"{path} does not exist")
        if path.is_dir() and not (path / "metadata.yaml").exists():
            raise VideoError(f"{path} has no metadata.yaml: name one of its files, or run 'ros2 bag reindex {path}'")
        self._path = path
        with self._naming_damage():
            self._reader = Reader(path)
            self._reader.open()
        self._topic, self._connections = self._choose(topic)
        self._positions = self._index()
        self._size_hw = self._frames(self._positions[:1])[0].size_hw
        span_ns = self._positions[-1].stamp_ns - self._positions[0].stamp_ns
        self.frames_per_second = (len(self) - 1) * 1e9 / span_ns if span_ns else FOLDER_FRAMES_PER_SECOND

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames ``start`` to ``stop - 1``.

        Raises:
            VideoError: an image that cannot be decoded, or of another size than the first; or a damaged bag.
        """
        frames = self._frames(self._positions[start:stop])
        for frame in frames:
            if frame.size_hw != self._size_hw:
                raise VideoError(
                    f"{self._path}: the image of {self._topic} with the stamp {frame.stamp_ns} has {frame.size_hw[::-1]} "
                    f"pixels, the first image {self._size_hw[::-1]}"
                )
        return frames

    def _choose(self, topic: str | None) -> tuple[str, list[Connection]]:
        """The topic to read, as messages name it, and its connections: one for each publisher."""
        images = [each for each in self._reader.connections if each.msgtype in _DECODERS]
        topics = sorted({each.topic for each in images})
        if not topics:
            others = _listed({f"{each.topic} ({each.msgtype})" for each in self._reader.connections}) or "none"
            raise VideoError(f"{self._path} has no topic of type sensor_msgs/Image or CompressedImage; its topics: {others}")
        if topic is None and len(topics) > 1:
            raise VideoError(f"{self._path} has several topics with images; choose one with --topic: {_listed(topics)}")
        chosen = topic or topics[0]
        if chosen not in topics:
            raise VideoError(f"{self._path} has no images on a topic {chosen}; it has them on {_listed(topics)}")
        return brief(chosen, _NAME_CHARACTERS), [each for each in images if each.topic == chosen]

    def _index(self) -> list[_Position]:
        """Positions of all images, by stamp; only these are kept in memory."""
        first_recorded: dict[int, int] = {}
        count = 0
        for recorded_ns, _, message in self._messages():
            first_recorded.setdefault(stamp_to_ns(message.header.stamp), recorded_ns)
            count += 1
        if not first_recorded:
            raise VideoError(f"{self._path} has no message on {self._topic}")
        if count > len(first_recorded) == 1:
            raise VideoError(f"{self._path}: all {count} images of {self._topic} have one stamp; check the camera driver")
        return [_Position(*each) for each in sorted(first_recorded.items())]

    def _frames(self, positions: Sequence[_Position]) -> list[Frame]:
        missing = {each.stamp_ns for each in positions}
        recorded = [each.recorded_ns for each in positions]
        frames = []
        for _, decode, message in self._messages(min(recorded, default=0), max(recorded, default=-1) + 1):
            stamp_ns = stamp_to_ns(message.header.stamp)
            if stamp_ns not in missing:
                continue
            missing.remove(stamp_ns)
            try:
                frames.append(decode(message))
            except ValueError as error:
                raise VideoError(f"{self._path}: the image of {self._topic} with the stamp {stamp_ns}: {error}") from error
        return sorted(frames, key=lambda frame: frame.stamp_ns)

    def _messages(self, start_ns: int | None = None, stop_ns: int | None = None) -> Iterator[tuple[int, Any, Any]]:
        """Time of recording, decoder and message, in the order of recording, of what was recorded before ``stop_ns``."""
        with self._naming_damage():
            for connection, recorded_ns, raw in self._reader.messages(self._connections, start_ns, stop_ns):
                message = _TYPES.deserialize_cdr(raw, connection.msgtype)
                yield recorded_ns, _DECODERS[connection.msgtype], message

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the library lets through whatever its parsers stumble over
            cause = brief(error).rstrip(".") or type(error).__name__
            raise VideoError(
                f"{self._path} is damaged, or no bag: {cause}. After an interrupted recording, "
                "'mcap recover' and 'ros2 bag reindex' save what is whole"
            ) from error


def _listed(names: Collection[str]) -> str:
    first = [brief(name, _NAME_CHARACTERS) for name in sorted(names)[:_TOPICS_NAMED]]
    return ", ".join(first) + (f" and {len(names) - _TOPICS_NAMED} more" if len(names) > _TOPICS_NAMED else "")
