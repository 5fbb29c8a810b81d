"""The datasets' layouts, written by hand from two videos of two rectangles each, and COCO's run lengths."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from decaf_ros.evaluation.datasets import DATASETS, DatasetVideo, ImageFiles, PngMasks, read_dataset
from decaf_ros.evaluation.entries import DatasetError
from decaf_ros.evaluation.rle import decode_rle
from decaf_ros.video import VideoError

SIZE_HW = (48, 64)
VIDEOS = {"harbour": 3, "alley": 11}  # how far from the left they begin
FRAMES = ("00000", "00005", "00010")


def instances(video: str, frame: str) -> np.ndarray:
    """``(H, W)`` uint8: object numbers from 1 on."""
    labels, left = np.zeros(SIZE_HW, np.uint8), VIDEOS[video] + int(frame)
    labels[6:20, left : left + 16] = 1
    labels[14:40, left + 10 : left + 24] = 2  # before the other one
    return labels


def image_rgb(video: str, frame: str) -> np.ndarray:
    """``(H, W, 3)`` uint8: each object in a colour of its own."""
    return np.array([(40, 120, 90), (200, 40, 30), (30, 60, 190)], np.uint8)[instances(video, frame)]


def truth(video: str, numbers: list[int]) -> np.ndarray:
    return np.stack([np.isin(instances(video, frame), numbers) for frame in FRAMES])


def write_images(folder: Path, video: str) -> None:
    (folder / video).mkdir(parents=True)
    for frame in FRAMES:
        cv2.imwrite(str(folder / video / f"{frame}.jpg"), image_rgb(video, frame)[..., ::-1])
    cv2.imwrite(str(folder / video / "99999.jpg"), image_rgb(video, frame))  # a frame that the dataset does not list


def write_numbered(folder: Path, video: str) -> None:
    """Indexed PNGs whose palette is not the identity, as DAVIS publishes them."""
    (folder / video).mkdir(parents=True)
    for frame in FRAMES:
        image = Image.fromarray(instances(video, frame), mode="P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128])
        image.save(folder / video / f"{frame}.png")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def rle(mask: np.ndarray) -> dict[str, Any] | None:
    """Run lengths as a list, down the columns, background first."""
    if not mask.any():
        return None
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, flat.size]).tolist()}


def ref_davis17(root: Path) -> None:
    videos = {}
    for video in VIDEOS:
        write_images(root / "valid/JPEGImages", video)
        write_numbered(root / "valid/Annotations", video)
        sentences = {str(n): {"exp": f"{video} {n}", "obj_id": str(1 + n // 4)} for n in reversed(range(8))}
        videos[video] = {"frames": list(FRAMES), "expressions": sentences}
    write_json(root / "meta_expressions/valid/meta_expressions.json", {"videos": videos})


def ref_youtube_vos(root: Path) -> None:
    for video in VIDEOS:
        write_images(root / "valid/JPEGImages", video)
    entry = {"frames": list(FRAMES), "expressions": {"0": {"exp": "one"}, "1": {"exp": "two"}}}
    write_json(root / "meta_expressions/valid/meta_expressions.json", {"videos": {**dict.fromkeys(VIDEOS, entry), "x": entry}})
    write_json(root / "meta_expressions/test/meta_expressions.json", {"videos": {"x": entry}})


def encoded(images: Path, meta: Path, mask_dict: Path, sentences: dict[str, Any], prefix: str = "") -> None:
    """Two objects a video; the objects of the second video come after those of the first."""
    masks: dict[str, Any] = {}
    videos = {}
    for index, video in enumerate(VIDEOS):
        write_images(images / prefix, video)
        for number in (1, 2):
            masks[str(2 * index + number)] = [rle(mask) for mask in truth(video, [number])]
        videos[prefix + video] = {
            "frames": list(FRAMES),
            "expressions": {
                name: {**about, "anno_id": [2 * index + number for number in about["obj_id"]]}
                for name, about in sentences.items()
            },
        }
    write_json(meta, {"videos": videos})
    write_json(mask_dict, masks)


def mevis(root: Path) -> None:
    folder = root / "valid_u"
    sentences = {"0": {"exp": "one", "obj_id": [2]}, "1": {"exp": "both", "obj_id": [1, 2]}}
    encoded(folder / "JPEGImages", folder / "meta_expressions.json", folder / "mask_dict.json", sentences)


def revos(root: Path) -> None:
    sentences = {
        "0": {"exp": "one", "obj_id": [1], "type_id": 0},
        "1": {"exp": "which of them?", "obj_id": [1, 2], "type_id": 1},
        "2": {"exp": "an elephant", "obj_id": [], "type_id": 2},
    }
    encoded(root / "JPEGImages", root / "meta_expressions_valid_.json", root / "mask_dict.json", sentences, "TAO/")


def reasonvos(root: Path) -> None:
    videos = {}
    for video in VIDEOS:
        write_images(root / "JPEGImages", video)
        for number in (1, 2):
            folder = root / "Annotations" / f"MOSE_{video}_{number}"
            folder.mkdir(parents=True)
            for frame, mask in zip(FRAMES, truth(video, [number]), strict=True):
                cv2.imwrite(str(folder / f"{frame}.png"), mask.astype(np.uint8) * 255)
        sentences = [{"exp_text": "why?", "obj_id": n, "exp_id": 0, "is_sent": True} for n in (1, 2)]
        videos[video] = {"source": "MOSE", "frames": list(FRAMES), "expressions": sentences}
    write_json(root / "meta_expressions.json", {"videos": videos})


WRITERS: dict[str, Callable[[Path], None]] = {
    "ref-davis17": ref_davis17,
    "ref-youtube-vos": ref_youtube_vos,
    "mevis": mevis,
    "revos": revos,
    "reasonvos": reasonvos,
}


def read(name: str, root: Path) -> dict[str, DatasetVideo]:
    WRITERS[name](root)
    return {video.name: video for video in read_dataset(name, root)}


def masks_of(video: DatasetVideo, expression: int) -> np.ndarray:
    masks = video.expressions[expression].truth
    assert masks is not None
    return np.stack([masks.read(frame, SIZE_HW) for frame in range(len(video.images))])


@pytest.mark.parametrize(
    ("name", "prefix", "numbers"),
    [
        ("ref-davis17", "", [[1]] * 4 + [[2]] * 4),
        ("mevis", "", [[2], [1, 2]]),
        ("revos", "TAO/", [[1], [1, 2], []]),
        ("reasonvos", "", [[1], [2]]),
    ],
)
def test_every_sentence_has_its_masks(tmp_path, name, prefix, numbers):
    videos = read(name, tmp_path)
    assert list(videos) == [prefix + video for video in sorted(VIDEOS)]
    for video in VIDEOS:
        assert truth(video, [1]).any()
        assert truth(video, [2]).any()
        found = videos[prefix + video]
        assert [path.stem for path in found.images] == list(FRAMES)
        assert len(found.expressions) == len(numbers)
        for index, expected in enumerate(numbers):
            assert np.array_equal(masks_of(found, index), truth(video, expected)), (video, index)


def test_ref_davis17_has_four_annotators_and_sentences_in_order(tmp_path):
    expressions = read("ref-davis17", tmp_path)["harbour"].expressions
    assert [each.text for each in expressions] == [f"harbour {number}" for number in range(8)]
    assert len({each.category for each in expressions[:4]}) == 4
    assert [each.category for each in expressions[:4]] == [each.category for each in expressions[4:]]


def test_revos_sentences_have_categories(tmp_path):
    expressions = read("revos", tmp_path)["TAO/alley"].expressions
    assert [each.category for each in expressions] == ["referring", "reasoning", "hallucination"]


def test_revos_may_come_with_all_objects_of_each_video(tmp_path):
    videos = read("revos", tmp_path)
    assert videos["TAO/alley"].foreground is None

    def pixels(**frames: Any) -> list[int]:
        content = {f"TAO/{video}": {"masks_rle": frames.get(video, [None] * 3)} for video in VIDEOS}
        write_json(tmp_path / "mask_dict_foreground.json", content)
        foreground = {video.name: video for video in read_dataset("revos", tmp_path)}["TAO/alley"].foreground
        return [foreground.pixels(frame, SIZE_HW) for frame in range(3)]

    first, second = (rle(truth("alley", [number])[0]) for number in (1, 2))
    small, large = 14 * 16 - 6 * 6, 26 * 14  # what is behind the second one does not count
    assert pixels(alley=[first, [first, second], None]) == [small, small + large, 0]
    assert pixels(alley=[[second, second], [], first]) == [2 * large, 0, small]
    with pytest.raises(DatasetError, match=r"'masks_rle' is a list, and a list of 3 frames is expected"):
        pixels(alley=[first])
    with pytest.raises(DatasetError, match=r"mask_dict_foreground\.json: a mask of frame 0 is broken"):
        pixels(alley=[{"size": [1, 1], "counts": [1]}, None, None])
    write_json(tmp_path / "mask_dict_foreground.json", {"TAO/harbour": {"masks_rle": [None] * 3}})
    with pytest.raises(DatasetError, match=r"mask_dict_foreground\.json lacks the field 'TAO/alley'"):
        read_dataset("revos", tmp_path)


def test_reasonvos_sentences_of_one_number_are_kept_apart(tmp_path):
    assert len({each.expression_id for each in read("reasonvos", tmp_path)["alley"].expressions}) == 2


def test_ref_youtube_vos_has_no_ground_truth_and_no_test_videos(tmp_path):
    videos = read("ref-youtube-vos", tmp_path)
    assert sorted(videos) == sorted(VIDEOS)
    assert all(each.truth is None for video in videos.values() for each in video.expressions)


def test_frames_are_those_listed_at_the_rate_given(tmp_path):
    video = read("ref-youtube-vos", tmp_path)["alley"]
    source = ImageFiles(video.images, frames_per_second=2.0)
    frames = source.read(1, 3)
    assert len(source) == 3
    assert [frame.stamp_ns for frame in frames] == [500_000_000, 1_000_000_000]
    expected = image_rgb("alley", FRAMES[1])
    assert np.abs(frames[0].image_rgb.astype(int) - expected).mean() < 12  # JPEG; swapped channels are further off


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_folder_is_told_the_layout(tmp_path, name):
    with pytest.raises(DatasetError, match=r"meta_expressions\S*json is missing\n(.*\n)*.*JPEGImages/<video>"):
        read_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [
        ("ref-davis17", "valid/Annotations/alley/00005.png", "alley lacks 1 of 3 frames, the first of them 00005"),
        ("ref-davis17", "valid/JPEGImages/alley/00010.jpg", "alley lacks 1 of 3 frames, the first of them 00010"),
        ("mevis", "valid_u/mask_dict.json", "mask_dict.json is missing"),
        ("reasonvos", "Annotations/MOSE_alley_2/00000.png", "MOSE_alley_2 lacks 1 of 3 frames"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, lost, message):
    WRITERS[name](tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(DatasetError, match=message):
        read_dataset(name, tmp_path)


def test_damaged_files_are_named(tmp_path):
    revos(tmp_path)
    write_json(tmp_path / "mask_dict.json", {})
    with pytest.raises(DatasetError, match=r"mask_dict\.json lacks masks of TAO/alley: objects \[3\]"):
        read_dataset("revos", tmp_path)
    (tmp_path / "mask_dict.json").write_text("{")
    with pytest.raises(DatasetError, match=r"mask_dict\.json is no JSON file"):
        read_dataset("revos", tmp_path)
    write_json(tmp_path / "meta_expressions_valid_.json", {"videos": {"a": {"frames": ["0"], "expressions": {"0": {}}}}})
    with pytest.raises(DatasetError, match=r"expressions', '0' lacks the field 'exp'"):
        read_dataset("revos", tmp_path)


VIDEO: dict[str, Any] = {"frames": ["0"], "expressions": {"0": {"exp": "one", "anno_id": [1], "type_id": 0}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": "0"}, r"'v', 'frames' is '0', and a list is expected"),
        ({"frames": {"0": 0}}, "'frames' is an object, and a list is expected"),
        ({"frames": [["0"]]}, "'frames', entry 0 is a list, and a text is expected"),
        ({"frames": ["0", None]}, "'frames', entry 1 is null, and a text is expected"),
        ({"frames": ["0", "1", "0"]}, "'frames' holds '0' twice"),
        ({"frames": []}, "the video 'v' has no frames"),
        ({"expressions": {}}, "the video 'v' has no expressions"),
        ({"expressions": ["one"]}, "'expressions' is a list, and an object is expected"),
        ({"expressions": {"0": "one"}}, "'expressions', '0' is 'one', and an object is expected"),
        ({"exp": 5}, "'0', 'exp' is 5, and a text is expected"),
        ({"exp": "\ud800"}, r"'0', 'exp' is '\\ud800', which is not Unicode"),
        ({"anno_id": 1}, "'0', 'anno_id' is 1, and a list is expected"),
        ({"anno_id": [True]}, "'anno_id', entry 0 is true, and a whole number from 0"),
        ({"anno_id": [1.0]}, r"'anno_id', entry 0 is 1\.0, and a whole number from 0"),
        ({"anno_id": [10**400]}, r"'anno_id', entry 0 is 10{79}\.\.\. \(401 characters\), and a whole number from 0"),
        ({"anno_id": [2]}, r"mask_dict\.json lacks masks of v: objects \[2\]"),
        ({"type_id": ["referring"]}, "'type_id' is a list, and a whole number from 0 to 2 is expected"),
        ({"type_id": -1}, "'type_id' is -1, and a whole number from 0 to 2 is expected"),
        ({"type_id": 3}, "'type_id' is 3, and a whole number from 0 to 2 is expected"),
    ],
)
def test_what_a_field_cannot_be_is_named_with_its_place(tmp_path, change, message):
    entry = json.loads(json.dumps(VIDEO))
    (entry if set(change) <= set(entry) else entry["expressions"]["0"]).update(change)
    (tmp_path / "JPEGImages/v").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "JPEGImages/v/0.png"), np.zeros((2, 3, 3), dtype=np.uint8))
    write_json(tmp_path / "meta_expressions_valid_.json", {"videos": {"v": VIDEO}})
    write_json(tmp_path / "mask_dict.json", {"1": [None]})
    assert len(read_dataset("revos", tmp_path)) == 1
    write_json(tmp_path / "meta_expressions_valid_.json", {"videos": {"v": entry}})
    with pytest.raises(DatasetError, match=message) as raised:
        read_dataset("revos", tmp_path)
    assert str(raised.value).startswith(str(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\xfd", "is no JSON file"),
        (b"[" * 100_000, "is no JSON file: it is nested too deeply"),
        (b'{"videos": NaN}', "is no JSON file: NaN"),
        (b'{"videos": {"v": {}, "v": {}}}', "is no JSON file: the name 'v' stands twice in an object"),
        (b"[]", "is a list, and an object is expected"),
        (b'{"videos": ["v"]}', "'videos' is a list, and an object is expected"),
        (b'{"videos": {}}', 'holds no "videos"'),
        (b'{"videos": {"v": 7}}', "'v' is 7, and an object is expected"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, content, message):
    (tmp_path / "meta_expressions.json").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"{tmp_path}/meta_expressions\.json.*{message}"):
        read_dataset("reasonvos", tmp_path)


def test_a_file_that_no_memory_holds_is_not_read(tmp_path):
    with (tmp_path / "meta_expressions.json").open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room on the disk
    with pytest.raises(DatasetError, match="larger than 4 GiB"):
        read_dataset("reasonvos", tmp_path)


def test_two_files_of_one_frame_and_pipes_are_named(tmp_path):
    reasonvos(tmp_path)
    folder = tmp_path / "JPEGImages/alley"
    (folder / "00005.png").touch()
    with pytest.raises(DatasetError, match=r"alley has two files of one frame: 00005\.(png and 00005\.jpg|jpg and 00005\.png)"):
        read_dataset("reasonvos", tmp_path)
    for ending in ("png", "jpg"):
        (folder / f"00005.{ending}").unlink()
    os.mkfifo(folder / "00005.jpg")
    with pytest.raises(DatasetError, match="alley lacks 1 of 3 frames, the first of them 00005"):
        read_dataset("reasonvos", tmp_path)


def png_of(width: int, height: int) -> bytes:
    """A file of some bytes that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [17_000, 100_000])
def test_small_files_of_huge_images_are_refused(tmp_path, side):
    path = tmp_path / "0.png"
    path.write_bytes(png_of(side, side))
    with pytest.raises(VideoError, match=r"0\.png cannot be decoded as an image"):
        ImageFiles([path], 10.0).read(0, 1)
    with pytest.raises(DatasetError, match=r"0\.png cannot be decoded as an image"):
        PngMasks([path]).read(0, SIZE_HW)


def test_masks_are_png_alone(tmp_path):
    """Image libraries know formats that run programs."""
    (tmp_path / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n")
    with pytest.raises(DatasetError, match="cannot be decoded as an image: it is no PNG file"):
        PngMasks([tmp_path / "0.png"]).read(0, SIZE_HW)


def test_masks_of_another_size_are_refused(tmp_path):
    for name in ("mevis", "reasonvos"):
        video = read(name, tmp_path / name)["alley"]
        with pytest.raises(DatasetError, match=r"size|shape"):
            video.expressions[0].truth.read(0, (96, 128))


def test_broken_masks_are_named(tmp_path):
    truth = read("reasonvos", tmp_path / "reasonvos")["alley"].expressions[0].truth
    path = truth.paths[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=f"{path.name} cannot be decoded"):
        truth.read(0, SIZE_HW)
    truth = read("mevis", tmp_path / "mevis")["alley"].expressions[0].truth
    truth.objects[0][0]["counts"] = "?"
    with pytest.raises(DatasetError, match="a mask of frame 0 is broken"):
        truth.read(0, SIZE_HW)


class TestRunLengths:
    def test_runs_go_down_the_columns_and_begin_with_background(self):
        mask = decode_rle({"size": [2, 3], "counts": [1, 2, 3]})
        assert mask.tolist() == [[False, True, False], [True, False, False]]

    def test_a_mask_may_begin_with_foreground(self):
        assert decode_rle({"size": [1, 3], "counts": [0, 2, 1]}).tolist() == [[True, True, False]]

    @pytest.mark.parametrize(
        ("counts", "runs"),
        [  # compressed by pycocotools 2.0.11
            ("34m2", [3, 4, 93]),
            ("0T3", [0, 100]),
            ("X1d0Xo0AoM", [40, 20, 1000, 5, 935]),
            ("71le0m0VZOn0", [7, 1, 700, 30, 2, 60]),
        ],
    )
    def test_compressed_runs_are_those_of_coco(self, counts, runs):
        height = 10
        expected = decode_rle({"size": [height, sum(runs) // height], "counts": runs})
        assert np.array_equal(decode_rle({"size": list(expected.shape), "counts": counts}), expected)

    @pytest.mark.parametrize("counts", [[1, 2], [7, -1], "2"])
    def test_runs_that_do_not_fill_the_mask_are_refused(self, counts):
        with pytest.raises(ValueError, match="2 x 3 pixels do not add up"):
            decode_rle({"size": [2, 3], "counts": counts})
