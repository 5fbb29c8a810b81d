"""The paper's datasets as they are published: videos as folders of images, sentences about them, and ground truth masks.

Every dataset is one reader and one row of :data:`DATASETS`. Readers check that all images and masks are there, so that a run of
hours does not end at a missing file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from decaf_ros.datatypes import BoolArray, Frame
from decaf_ros.evaluation.rle import decode_rle
from decaf_ros.image_files import read_image, read_numbers
from decaf_ros.text import brief
from decaf_ros.video import VideoError

# Ref-DAVIS17 has four sentences about each object, always in this order.
ANNOTATORS = ("annotator 1, first frame", "annotator 1, full video", "annotator 2, first frame", "annotator 2, full video")
# ReVOS, by type_id.
REVOS_CATEGORIES = ("referring", "reasoning", "hallucination")


class DatasetError(Exception):
    """A dataset that is not where or what it should be; the message names the path and the layout that is expected."""


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
    """

    objects: Sequence[Sequence[Mapping[str, Any] | None]]

    def read(self, frame: int, size_hw: tuple[int, int]) -> BoolArray:
        """See :class:`TruthMasks`."""
        union = np.zeros(size_hw, dtype=np.bool_)
        for masks in self.objects:
            rle = masks[frame]
            if rle is None:
                continue
            if tuple(rle["size"]) != size_hw:
                raise DatasetError(f"a mask of frame {frame} has size {rle['size']}, the image {size_hw} (height, width)")
            try:
                union |= decode_rle(rle)
            except ValueError as error:
                raise DatasetError(f"a mask of frame {frame} is broken: {error}") from error
        return union


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
    """

    name: str
    images: tuple[Path, ...]
    expressions: tuple[ReferringExpression, ...]


class ImageFiles:
    """Frames from image files of one size; a :class:`~decaf_ros.video.FrameSource`."""

    def __init__(self, paths: Sequence[Path], frames_per_second: float) -> None:
        self.frames_per_second = frames_per_second
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames ``start`` to ``stop - 1``.

        Raises:
            VideoError: an image that cannot be decoded.
        """
        return [self._read(index) for index in range(start, stop)]

    def _read(self, index: int) -> Frame:
        try:
            image_bgr = read_image(self._paths[index])
        except (OSError, ValueError) as error:
            raise VideoError(f"{self._paths[index]} cannot be decoded as an image: {brief(error)}") from error
        image_rgb = np.ascontiguousarray(image_bgr[..., ::-1], dtype=np.uint8)
        return Frame(round(index * 1e9 / self.frames_per_second), "camera", image_rgb)


@dataclass(frozen=True)
class Dataset:
    """How a dataset is published.

    Attributes:
        title: as in the literature.
        split: evaluated unless another is asked for.
        tree: the files that are expected.
        read: the videos of a split below a root folder.
        overall_of: categories whose means make up the overall score; empty: all sentences count alike.
    """

    title: str
    split: str
    tree: str
    read: Callable[[Path, str], list[DatasetVideo]]
    overall_of: tuple[str, ...] = ()


def read_dataset(name: str, root: Path, split: str | None = None) -> list[DatasetVideo]:
    """The videos of a dataset with their sentences.

    Args:
        name: one of :data:`DATASETS`.
        root: the folder that it was unpacked to.
        split: the dataset's usual one by default.

    Raises:
        DatasetError: a file is missing or not as expected; the message shows the layout.
    """
    dataset = DATASETS[name]
    split = split or dataset.split
    try:
        return dataset.read(root, split)
    except (DatasetError, KeyError) as error:
        cause = f"an entry lacks the field {error}" if isinstance(error, KeyError) else error
        tree = dataset.tree.format(root=root, split=split)
        raise DatasetError(f"{cause}\n{dataset.title} is expected as:\n{tree}") from error


def _read_ref_davis17(root: Path, split: str) -> list[DatasetVideo]:
    videos = _read_videos(root / "meta_expressions" / split / "meta_expressions.json")
    return [_read_numbered(root / split, name, entry, ANNOTATORS) for name, entry in videos.items()]


def _read_ref_youtube_vos(root: Path, split: str) -> list[DatasetVideo]:
    videos = _read_videos(root / "meta_expressions" / split / "meta_expressions.json")
    test = root / "meta_expressions" / "test" / "meta_expressions.json"
    if split == "valid" and test.exists():  # the published file of the validation split lists the test videos, too
        videos = {name: entry for name, entry in videos.items() if name not in _read_videos(test)}
    return [_read_numbered(root / split, name, entry, ("",)) for name, entry in videos.items()]


def _read_numbered(folder: Path, name: str, entry: Mapping[str, Any], categories: Sequence[str]) -> DatasetVideo:
    """A video whose masks are images of object numbers; categories take turns among the sentences."""
    images = _files(folder / "JPEGImages" / name, entry["frames"])
    masks: tuple[Path, ...] = ()
    expressions = []
    for index, (expression_id, about) in enumerate(_in_order(entry["expressions"])):
        truth = None
        if "obj_id" in about:
            masks = masks or _files(folder / "Annotations" / name, entry["frames"])
            truth = PngMasks(masks, int(about["obj_id"]))
        expressions.append(ReferringExpression(expression_id, about["exp"], categories[index % len(categories)], truth))
    return DatasetVideo(name, images, tuple(expressions))


def _read_mevis(root: Path, split: str) -> list[DatasetVideo]:
    folder = root / split
    return _read_encoded(folder / "JPEGImages", folder / "meta_expressions.json", folder / "mask_dict.json")


def _read_revos(root: Path, split: str) -> list[DatasetVideo]:
    return _read_encoded(root / "JPEGImages", root / f"meta_expressions_{split}_.json", root / "mask_dict.json")


def _read_encoded(image_folder: Path, meta: Path, mask_dict: Path) -> list[DatasetVideo]:
    """Videos whose masks are in one file of run lengths, which is left out where the publishers keep the masks."""
    videos = _read_videos(meta)
    with_truth = any("anno_id" in about for entry in videos.values() for about in entry["expressions"].values())
    masks = _read_json(mask_dict) if with_truth else {}
    read = []
    for name, entry in videos.items():
        expressions = []
        for expression_id, about in _in_order(entry["expressions"]):
            objects = [masks.get(str(number), ()) for number in about["anno_id"]] if with_truth else []
            if any(len(each) != len(entry["frames"]) for each in objects):
                raise DatasetError(f"{mask_dict} lacks masks of {name}: objects {about['anno_id']}, one mask a frame")
            category = REVOS_CATEGORIES[about["type_id"]] if "type_id" in about else ""
            truth = RleMasks(objects) if with_truth else None
            expressions.append(ReferringExpression(expression_id, about["exp"], category, truth))
        read.append(DatasetVideo(name, _files(image_folder / name, entry["frames"]), tuple(expressions)))
    return read


def _read_reasonvos(root: Path, split: str) -> list[DatasetVideo]:
    if split != DATASETS["reasonvos"].split:
        raise DatasetError(f"ReasonVOS has no split {split!r}")
    read = []
    for name, entry in _read_videos(root / "meta_expressions.json").items():
        frames = entry["frames"]
        expressions = []
        for position, about in enumerate(entry["expressions"]):  # exp_id is not unique in a video
            masks = _files(root / "Annotations" / f"{entry['source']}_{name}_{about['obj_id']}", frames)
            expressions.append(ReferringExpression(str(position), about["exp_text"], "", PngMasks(masks)))
        read.append(DatasetVideo(name, _files(root / "JPEGImages" / name, frames), tuple(expressions)))
    return read


def _read_videos(path: Path) -> dict[str, Any]:
    """The videos of a file of sentences, by name in alphabetical order."""
    videos = _read_json(path).get("videos")
    if not isinstance(videos, dict) or not videos:
        raise DatasetError(f'{path} holds no "videos"')
    for name, entry in videos.items():
        for field in ("frames", "expressions"):
            if not entry.get(field):
                raise DatasetError(f"{path}: the video {name} has no {field}")
    return dict(sorted(videos.items()))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON file: {error}") from error


def _files(folder: Path, frames: Sequence[object]) -> tuple[Path, ...]:
    """The file of each frame, whatever its ending."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing")
    by_name = {path.stem: path for path in folder.iterdir()}
    missing = [str(frame) for frame in frames if str(frame) not in by_name]
    if missing:
        raise DatasetError(f"{folder} lacks {len(missing)} of {len(frames)} frames, the first of them {missing[0]}")
    return tuple(by_name[str(frame)] for frame in frames)


def _in_order(expressions: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Sentences by number: "2" before "10"."""
    yield from sorted(expressions.items(), key=lambda item: (len(item[0]), item[0]))


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
    ),
    "ref-youtube-vos": Dataset(
        "Ref-YouTube-VOS", "valid", _NUMBERED_TREE.replace("{note}", "; published for train only"), _read_ref_youtube_vos
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
