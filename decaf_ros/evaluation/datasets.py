"""The paper's datasets as they are published: videos as folders of images, sentences about them, and ground truth masks.

Every dataset is one reader and one row of :data:`DATASETS`. Readers check that all images and masks are there, so that a run of
hours does not end at a missing file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.evaluation.entries import DatasetError, Entry, LayoutError, read_json
from decaf_ros.evaluation.rle import decode_rle
from decaf_ros.image_files import read_image, read_numbers
from decaf_ros.text import brief, quoted
from decaf_ros.video import VideoError

# Ref-DAVIS17 has four sentences about each object, always in this order.
ANNOTATORS = ("annotator 1, first frame", "annotator 1, full video", "annotator 2, first frame", "annotator 2, full video")
# ReVOS, by type_id.
REVOS_CATEGORIES = ("referring", "reasoning", "hallucination")
_MOST_OBJECTS = (1 << 16) - 1  # of a 16-bit image


class TruthMasks(Protocol):
    """Ground truth for one sentence, read frame by frame."""

    def read(self, frame: int, size_hw: tuple[int, int]) -> BoolArray:
        """``(H, W)`` bool: what the sentence refers to on a frame.

        Raises:
            DatasetError: a mask that cannot be decoded, or of another size than the image.
        """


@dataclass(frozen=True, eq=False)
class PngMasks:
    """One image a frame, whose pixels hold object numbers.

    Attributes:
        paths: by frame.
        object_id: which number; ``None`` for all but 0.
    """

    paths: Sequence[Path]
    object_id: int | None = None

    def read(self, frame: int, size_hw: tuple[int, int]) -> BoolArray:
        """See :class:`TruthMasks`."""
        path = self.paths[frame]
        try:
            pixels = read_numbers(path)
        except (OSError, ValueError) as error:  # no image, or half of one
            raise DatasetError(f"{path} cannot be decoded as an image: {brief(error)}") from error
        if pixels.shape != size_hw:
            raise DatasetError(f"{path} has shape {pixels.shape}; the image has {size_hw}, and a mask has one channel")
        return np.asarray(pixels != 0 if self.object_id is None else pixels == self.object_id)


@dataclass(frozen=True, eq=False)
class RleMasks:
    """Objects in COCO's run-length encoding.

    Attributes:
        objects: for each object that the sentence refers to, a mask a frame, ``None`` where it is not seen.
        source: the file that they are from.
    """

    objects: Sequence[Sequence[Mapping[str, Any] | None]]
    source: Path

    def read(self, frame: int, size_hw: tuple[int, int]) -> BoolArray:
        """See :class:`TruthMasks`."""
        union = np.zeros(size_hw, dtype=np.bool_)
        for masks in self.objects:
            rle = masks[frame]
            if rle is None:
                continue
            try:
                union |= decode_rle(rle, size_hw)
            except ValueError as error:
                raise DatasetError(f"{self.source}: a mask of frame {frame} is broken: {error}") from error
        return union


@dataclass(frozen=True, eq=False)
class Foreground:
    """How much of a video all its objects take, in COCO's run-length encoding; where objects overlap, each counts.

    Attributes:
        masks: by frame.
        source: the file that they are from.
    """

    masks: Sequence[Sequence[Any]]
    source: Path

    def pixels(self, frame: int, size_hw: tuple[int, int]) -> int:
        """Of one frame.

        Raises:
            DatasetError: a mask that cannot be decoded, or of another size than the image.
        """
        try:
            return sum(int(np.count_nonzero(decode_rle(rle, size_hw))) for rle in self.masks[frame])
        except ValueError as error:
            raise DatasetError(f"{self.source}: a mask of frame {frame} is broken: {error}") from error


@dataclass(frozen=True, eq=False)
class ReferringExpression:
    """A sentence about a video.

    Attributes:
        expression_id: unique in its video.
        text: the sentence.
        category: what its scores are grouped by; "" in datasets without groups.
        truth: the masks; ``None`` where the publishers keep them for their server.
    """

    expression_id: str
    text: str
    category: str
    truth: TruthMasks | None


@dataclass(frozen=True, eq=False)
class DatasetVideo:
    """A video of a dataset.

    Attributes:
        name: unique in the dataset; may hold slashes.
        images: its frames' files in order.
        expressions: the sentences about it.
        foreground: all objects in it, for scores that need them; ``None`` where they are not published.
    """

    name: str
    images: tuple[Path, ...]
    expressions: tuple[ReferringExpression, ...]
    foreground: Foreground | None = None


class ImageFiles:
    """Frames from image files of one size; a :class:`~decaf_ros.video.FrameSource`."""

    def __init__(self, paths: Sequence[Path], frames_per_second: float) -> None:
        self.frames_per_second = frames_per_second
        self._paths = paths
        self._size_hw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames ``start`` to ``stop - 1``.

        Raises:
            VideoError: an image that cannot be decoded, or of another size than those before.
        """
        return [self._read(index) for index in range(start, stop)]

    def _read(self, index: int) -> Frame:
        path = self._paths[index]
        try:
            image_bgr = read_image(path, oriented=False)  # ground truth knows no orientation
        except (OSError, ValueError) as error:
            raise VideoError(f"{path} cannot be decoded as an image: {brief(error)}") from error
        self._require_size(path, (image_bgr.shape[0], image_bgr.shape[1]))
        image_rgb = np.ascontiguousarray(image_bgr[..., ::-1], dtype=np.uint8)
        return Frame(round(index * 1e9 / self.frames_per_second), "camera", image_rgb)

    def _require_size(self, path: Path, size_hw: tuple[int, int]) -> None:
        """All images have the size of the one that is read first."""
        self._size_hw = self._size_hw or size_hw
        if size_hw != self._size_hw:
            raise VideoError(f"{path} has {size_hw[::-1]} pixels, an image before it {self._size_hw[::-1]}")


@dataclass(frozen=True)
class Dataset:
    """How a dataset is published.

    Attributes:
        title: as in the literature.
        split: evaluated unless another is asked for.
        tree: the files that are expected.
        read: the videos of a split below a root folder.
        overall_of: categories whose means make up the overall score; empty: all sentences count alike.
        frames_per_second: of the videos as they are published; ``None`` where they differ, or it is not told.
    """

    title: str
    split: str
    tree: str
    read: Callable[[Path, str], list[DatasetVideo]]
    overall_of: tuple[str, ...] = ()
    frames_per_second: float | None = None


def read_dataset(name: str, root: Path, split: str | None = None) -> list[DatasetVideo]:
    """The videos of a dataset with their sentences.

    Args:
        name: one of :data:`DATASETS`.
        root: the folder that it was unpacked to.
        split: the dataset's usual one by default.

    Raises:
        DatasetError: a file is missing, and the message shows the layout, or holds something else than is expected.
    """
    dataset = DATASETS[name]
    split = split or dataset.split
    try:
        return dataset.read(root, split)
    except LayoutError as error:
        tree = dataset.tree.format(root=root, split=split)
        raise DatasetError(f"{error}\n{dataset.title} is expected as:\n{tree}") from error


def _read_ref_davis17(root: Path, split: str) -> list[DatasetVideo]:
    videos = _read_videos(root / "meta_expressions" / split / "meta_expressions.json")
    return [_read_numbered(root / split, name, entry, ANNOTATORS) for name, entry in videos.items()]


def _read_ref_youtube_vos(root: Path, split: str) -> list[DatasetVideo]:
    videos = _read_videos(root / "meta_expressions" / split / "meta_expressions.json")
    test = root / "meta_expressions" / "test" / "meta_expressions.json"
    if split == "valid" and test.exists():  # the published file of the validation split lists the test videos, too
        others = _read_videos(test)
        videos = {name: entry for name, entry in videos.items() if name not in others}
    return [_read_numbered(root / split, name, entry, ("",)) for name, entry in videos.items()]


def _read_numbered(folder: Path, name: str, entry: Entry, categories: Sequence[str]) -> DatasetVideo:
    """A video whose masks are images of object numbers; categories take turns among the sentences."""
    frames = entry["frames"].names()
    images = _files(folder / "JPEGImages" / name, frames)
    masks: tuple[Path, ...] = ()
    expressions = []
    for index, (expression_id, about) in enumerate(_in_order(entry["expressions"])):
        truth = None
        if about.has("obj_id"):
            masks = masks or _files(folder / "Annotations" / name, frames)
            truth = PngMasks(masks, about["obj_id"].number(1, _MOST_OBJECTS))
        category = categories[index % len(categories)]
        expressions.append(ReferringExpression(expression_id, about["exp"].text(), category, truth))
    return DatasetVideo(name, images, tuple(expressions))


def _read_mevis(root: Path, split: str) -> list[DatasetVideo]:
    folder = root / split
    return _read_encoded(folder / "JPEGImages", folder / "meta_expressions.json", folder / "mask_dict.json")


def _read_revos(root: Path, split: str) -> list[DatasetVideo]:
    foreground = root / "mask_dict_foreground.json"
    return _read_encoded(root / "JPEGImages", root / f"meta_expressions_{split}_.json", root / "mask_dict.json", foreground)


def _read_encoded(image_folder: Path, meta: Path, mask_dict: Path, foreground: Path | None = None) -> list[DatasetVideo]:
    """Videos whose masks are in one file of run lengths, which is left out where the publishers keep the masks.

    Those of all objects of a video may be in another one; scores that need it are left out where it is missing.
    """
    videos = _read_videos(meta)
    with_truth = any(about.has("anno_id") for entry in videos.values() for _, about in _in_order(entry["expressions"]))
    masks = read_json(mask_dict).fields() if with_truth else {}
    of_all = read_json(foreground) if with_truth and foreground is not None and foreground.exists() else None
    all_objects = of_all.fields() if of_all is not None else {}
    read = []
    for name, entry in videos.items():
        frames = entry["frames"].names()
        expressions = []
        for expression_id, about in _in_order(entry["expressions"]):
            numbers = [each.number(0, 1 << 60) for each in about["anno_id"].items()] if with_truth else []
            objects = [masks[str(number)].values() if str(number) in masks else [] for number in numbers]
            if any(len(each) != len(frames) for each in objects):
                raise DatasetError(f"{mask_dict} lacks masks of {name}: objects {brief(numbers)}, one mask a frame")
            category = ""
            if about.has("type_id"):
                category = REVOS_CATEGORIES[about["type_id"].number(0, len(REVOS_CATEGORIES) - 1)]
            truth = RleMasks(objects, mask_dict) if with_truth else None
            expressions.append(ReferringExpression(expression_id, about["exp"].text(), category, truth))
        objects_of_all = None
        if foreground is not None and of_all is not None:
            objects_of_all = Foreground(_every_object(all_objects.get(name) or of_all[name], len(frames)), foreground)
        read.append(DatasetVideo(name, _files(image_folder / name, frames), tuple(expressions), objects_of_all))
    return read


def _every_object(video: Entry, frame_count: int) -> list[list[Any]]:
    """The masks of all objects of a video, by frame: of each it is a mask, a list of them, or null for none."""
    frames = video["masks_rle"].values()
    if len(frames) != frame_count:
        raise video["masks_rle"].error(f"a list of {frame_count} frames")
    return [each if isinstance(each, list) else [] if each is None else [each] for each in frames]


def _read_reasonvos(root: Path, split: str) -> list[DatasetVideo]:
    if split != DATASETS["reasonvos"].split:
        raise DatasetError(f"ReasonVOS has no split {split!r}")
    read = []
    for name, entry in _read_videos(root / "meta_expressions.json").items():
        frames = entry["frames"].names()
        expressions = []
        for position, about in enumerate(entry["expressions"].items()):  # exp_id is not unique in a video
            folder = f"{entry['source'].name()}_{name}_{about['obj_id'].name()}"
            masks = _files(root / "Annotations" / folder, frames)
            expressions.append(ReferringExpression(str(position), about["exp_text"].text(), "", PngMasks(masks)))
        read.append(DatasetVideo(name, _files(root / "JPEGImages" / name, frames), tuple(expressions)))
    return read


def _read_videos(path: Path) -> dict[str, Entry]:
    """The videos of a file of sentences, by name in alphabetical order."""
    content = read_json(path)
    videos = content["videos"].fields() if content.has("videos") else {}
    if not videos:
        raise DatasetError(f'{path} holds no "videos"')
    for name, entry in videos.items():
        for part in name.split("/"):
            entry.checked(part)
        for field in ("frames", "expressions"):
            if not entry.has(field) or not entry[field].value:
                raise DatasetError(f"{path}: the video {quoted(name)} has no {field}")
    return dict(sorted(videos.items()))


def _files(folder: Path, frames: Sequence[str]) -> tuple[Path, ...]:
    """The file of each frame, whatever its ending."""
    if not folder.is_dir():
        raise LayoutError(f"{folder} is missing")
    wanted = set(frames)
    by_name: dict[str, Path] = {}
    for path in _printable_files(folder):
        other = by_name.setdefault(path.stem, path) if path.stem in wanted else path
        if other != path:
            raise DatasetError(f"{folder} has two files of one frame: {other.name} and {path.name}")
    missing = [frame for frame in frames if frame not in by_name]
    if missing:
        raise LayoutError(f"{folder} lacks {len(missing)} of {len(frames)} frames, the first of them {missing[0]}")
    return tuple(by_name[frame] for frame in frames)


def _printable_files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.isprintable() and entry.is_file():  # a pipe would hang
                yield folder / entry.name


def _in_order(expressions: Entry) -> list[tuple[str, Entry]]:
    """Sentences by number: "2" before "10"."""
    by_id = expressions.fields()
    for expression_id, about in by_id.items():
        about.checked(expression_id)
    return sorted(by_id.items(), key=lambda item: (len(item[0]), item[0]))


_NUMBERED_TREE = """\
{root}/meta_expressions/{split}/meta_expressions.json
{root}/{split}/JPEGImages/<video>/00000.jpg ...
{root}/{split}/Annotations/<video>/00000.png ...   (pixel = object number{note})"""

DATASETS = {
    "ref-davis17": Dataset(
        "Ref-DAVIS17",
        "valid",
        _NUMBERED_TREE.replace("{note}", "; a mask_dict.pkl is not read, since pickles can run code"),
        _read_ref_davis17,
        frames_per_second=24.0,
    ),
    "ref-youtube-vos": Dataset(
        "Ref-YouTube-VOS",
        "valid",
        _NUMBERED_TREE.replace("{note}", "; published for train only"),
        _read_ref_youtube_vos,
        frames_per_second=6.0,  # every fifth frame of 30 a second
    ),
    "mevis": Dataset(
        "MeViS",
        "valid_u",
        """\
{root}/{split}/meta_expressions.json
{root}/{split}/mask_dict.json   (published for train and valid_u only)
{root}/{split}/JPEGImages/<video>/00000.jpg ...""",
        _read_mevis,
    ),
    "revos": Dataset(
        "ReVOS",
        "valid",
        """\
{root}/meta_expressions_{split}_.json
{root}/mask_dict.json
{root}/JPEGImages/<video>/00000.jpg ...""",
        _read_revos,
        overall_of=("referring", "reasoning"),
    ),
    "reasonvos": Dataset(
        "ReasonVOS",
        "test",
        """\
{root}/meta_expressions.json
{root}/JPEGImages/<video>/00000.jpg ...
{root}/Annotations/<source>_<video>_<obj_id>/00000.png ...   (foreground = not 0)""",
        _read_reasonvos,
    ),
}
