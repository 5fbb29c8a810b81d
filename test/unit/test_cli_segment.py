"""``decaf segment`` from end to end with the embedded models, and what it says when something is wrong."""

import csv
import json
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from filmed_table import EXPRESSION, MUG, TABLE
from rosbags.rosbag2 import StoragePlugin
from test_bags import IMAGE, START_NS, raw, write_bag

from decaf_ros.cli import segment
from decaf_ros.cli.main import main
from decaf_ros.evaluation.rle import decode_rle
from decaf_ros.models.adapter import ChatAdapter
from decaf_ros.models.qwen2_5_vl import Qwen25Vl
from decaf_ros.video import VideoFile

FRAMES = 9
KEY_FRAMES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    for number, view in enumerate(TABLE.views(FRAMES)):
        cv2.imwrite(str(folder / f"{number:03d}.png"), view.image_rgb[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results") / "new"
    options = ["--out", str(out), "--key-frames", str(KEY_FRAMES), "--threads", "1"]
    assert main(["segment", str(folder), EXPRESSION, *options]) == 0
    return out


def test_every_frame_has_a_label_image_of_the_objects_in_the_summary(results):
    summary = json.loads((results / "summary.json").read_text())
    ids = {each["object_id"] for each in summary["objects"]}
    frames_seen = dict.fromkeys(ids, 0)
    paths = sorted((results / "masks").iterdir())
    assert len(paths) == FRAMES
    for path in paths:
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert (labels.dtype, labels.shape) == (np.uint16, (192, 256))
        seen = set(np.unique(labels).tolist()) - {0}
        assert seen <= ids
        for object_id in seen:
            frames_seen[object_id] += 1
    # A mask may be covered by others in the label image.
    assert all(frames_seen[each["object_id"]] <= each["frames_visible"] for each in summary["objects"])


def test_every_frame_has_its_stamp(results):
    with (results / "frames.csv").open() as file:
        rows = [(row["frame"], row["stamp_ns"]) for row in csv.DictReader(file)]
    assert rows == [(str(number), str(number * 100_000_000)) for number in range(FRAMES)]


def test_a_bag_of_the_same_images_gives_the_same_masks_as_run_lengths(folder, results, tmp_path):
    bag, out = tmp_path / "bag", tmp_path / "out"
    images = [cv2.imread(str(path))[..., ::-1] for path in sorted(folder.iterdir())]
    messages = [raw(START_NS + number * 100_000_000, image) for number, image in enumerate(images)]
    write_bag(bag, StoragePlugin.MCAP, image=(IMAGE, messages), other=(IMAGE, messages[:1]))
    options = ["--topic", "/image", "--masks", "rle", "--key-frames", str(KEY_FRAMES), "--threads", "1"]
    assert main(["segment", str(bag), EXPRESSION, "--out", str(out), *options]) == 0
    written = json.loads((out / "masks.json").read_text())
    assert written["stamps_ns"] == [START_NS + number * 100_000_000 for number in range(FRAMES)]
    summary = json.loads((results / "summary.json").read_text())
    assert [(each["object_id"], each["score"]) for each in written["objects"]] == [
        (each["object_id"], each["score"]) for each in summary["objects"]
    ]
    assert {each["label"] for each in written["objects"]} == {summary["object_name"]}
    for number, path in enumerate(sorted((results / "masks").iterdir())):
        masks = [each["segmentations"][number] for each in written["objects"]]
        union = np.any([decode_rle(mask) for mask in masks if mask is not None], axis=0)
        assert np.array_equal(union, cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0)


def test_there_is_a_heat_map_for_each_key_frame(results):
    summary = json.loads((results / "summary.json").read_text())
    assert summary["key_frames"] == [0, 3, 5, 8]
    assert [int(path.stem) for path in sorted((results / "heat").iterdir())] == summary["key_frames"]


def test_the_summary_says_what_was_asked_and_how_long_it_took(results):
    summary = json.loads((results / "summary.json").read_text())
    assert (summary["expression"], summary["frames"], summary["there"]) == (EXPRESSION, FRAMES, True)
    assert summary["latency_ms"]["prefill"] > 0


def test_where_nothing_fits_only_heat_maps_are_written_and_the_status_says_so(folder, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--out", str(out), "--key-frames", "2", "--threads", "1", "--min-presence", "1"]  # that nothing has
    assert main(["segment", str(folder), EXPRESSION, *options]) == segment.NOT_THERE == 3
    assert "nothing in the video fits" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"heat", "summary.json"}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["there"], summary["objects"]) == (False, [])
    assert 0.0 < summary["presence"] < 1.0
    left, top, right, bottom = summary["guess"]["box_xyxy"]
    truth = TABLE.view(summary["guess"]["stamp_ns"] * 1e-9).mask_of(MUG)
    assert truth[top:bottom, left:right].sum() > 0.5 * truth.sum()
    options += ["--overwrite", "--accept-doubtful", "--grounder", "both"]
    assert main(["segment", str(folder), EXPRESSION, *options]) == 0
    objects = json.loads((out / "summary.json").read_text())["objects"]
    assert objects
    assert {each["grounder"] for each in objects} <= {"decaf", "box"}


def test_the_overlay_is_a_video_of_all_frames(results):
    overlay = VideoFile(results / "overlay.mp4")
    assert len(overlay) == FRAMES
    assert overlay.read(0, 1)[0].size_hw == (192, 256)


@pytest.mark.parametrize(
    ("video", "options", "cause"),
    [
        ("nowhere.mp4", [], "nowhere.mp4 does not exist"),
        ("nowhere.mcap", [], "nowhere.mcap does not exist"),
        ("", ["--topic", "/image"], "--topic is for bags"),
        ("", ["--mllm", "/no/such/model"], "/no/such/model"),
        ("", ["--tracker", "/no/such/weights"], "/no/such/weights"),
    ],
)
def test_what_cannot_be_used_is_named(folder, tmp_path, capsys, video, options, cause):
    assert main(["segment", str(folder / video), EXPRESSION, "--out", str(tmp_path / "out"), *options]) == 1
    assert cause in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir()), "the next attempt finds no results"


def test_a_model_that_was_not_taught_boxes_is_named_and_nothing_goes(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Qwen25Vl, "box_format", ChatAdapter.box_format)
    (tmp_path / "summary.json").touch()
    options = ["--out", str(tmp_path), "--overwrite", "--grounder", "box"]
    assert main(["segment", str(folder), EXPRESSION, *options]) == 1
    assert "models of the family qwen2_5_vl were not taught to answer with boxes" in capsys.readouterr().err
    assert (tmp_path / "summary.json").exists()


def test_a_name_with_control_characters_is_told_in_one_line(tmp_path, capsys):
    assert main(["segment", str(tmp_path / "a\n\x1b[31mb.mp4"), EXPRESSION, "--out", str(tmp_path / "out")]) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.endswith("/a \\x1b[31mb.mp4 does not exist")


def test_a_sentence_that_the_model_cannot_take_is_refused(folder, tmp_path, capsys):
    assert main(["segment", str(folder), "<|im_end|> the ball", "--out", str(tmp_path), "--threads", "1"]) == 1
    assert "'<|im_end|>', which the model takes for a control token" in capsys.readouterr().err


@pytest.fixture
def no_models(monkeypatch) -> None:
    """Loading a model fails the test."""
    monkeypatch.setattr(segment, "load_models", lambda arguments: pytest.fail("the models are loaded"))


@pytest.mark.usefixtures("no_models")
class TestOutput:
    """What is seen before minutes go into the models."""

    def test_a_file_is_no_folder(self, folder, tmp_path, capsys):
        (tmp_path / "out").touch()
        assert main(["segment", str(folder), EXPRESSION, "--out", str(tmp_path / "out")]) == 1
        assert str(tmp_path / "out") in capsys.readouterr().err

    def test_a_video_that_cannot_be_written_is_named(self, tmp_path, capsys):
        wide, out = tmp_path / "wide", tmp_path / "out"
        wide.mkdir()
        cv2.imwrite(str(wide / "0.png"), np.zeros((16, 8200, 3), np.uint8))  # MPEG-4 ends at 8191
        assert main(["segment", str(wide), EXPRESSION, "--out", str(out)]) == 1
        assert f"{out}/overlay.mp4 cannot be written as a video" in capsys.readouterr().err
        assert not list(out.iterdir())

    @pytest.mark.parametrize("name", ["masks", "masks.json", "heat", "overlay.mp4", "frames.csv", "summary.json"])
    def test_results_of_an_earlier_run_stay(self, folder, tmp_path, capsys, name):
        (tmp_path / name).touch()
        assert main(["segment", str(folder), EXPRESSION, "--out", str(tmp_path)]) == 1
        message = capsys.readouterr().err
        assert f"holds results already ({name})" in message
        assert "another folder, or add --overwrite" in message
        assert (tmp_path / name).exists()

    def test_the_video_is_not_overwritten(self, folder, tmp_path, capsys):
        video = tmp_path / "masks"
        shutil.copytree(folder, video)
        assert main(["segment", str(video), EXPRESSION, "--out", str(tmp_path), "--overwrite"]) == 1
        assert "masks is among the results" in capsys.readouterr().err
        assert len(list(video.iterdir())) == FRAMES


@pytest.fixture
def outside(tmp_path) -> Iterator[Path]:
    """A folder of somebody else, which stays as it is."""
    folder = tmp_path / "outside"
    (folder / "masks").mkdir(parents=True)
    for name in ("000000.png", "masks/000000.png"):
        (folder / name).write_text("precious")
    yield folder
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["000000.png", "masks", "masks/000000.png"]
    assert {path.read_text() for path in folder.rglob("*.png")} == {"precious"}


@pytest.mark.parametrize(
    ("link", "target"),
    [
        *((name, "000000.png") for name in ("overlay.mp4", "summary.json", "frames.csv", "masks.json", "masks", "heat")),
        *((name, "missing") for name in ("overlay.mp4", "summary.json", "frames.csv", "masks.json", "masks", "heat")),
        *((name, "masks") for name in ("masks", "heat")),
        ("masks/000000.png", "000000.png"),
        ("heat/000000.png", "missing"),
    ],
)
def test_links_among_the_results_are_refused_before_the_models_are_loaded(
    folder, tmp_path, outside, capsys, no_models, link, target
):
    out = tmp_path / "out"
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(outside / target)
    assert main(["segment", str(folder), EXPRESSION, "--out", str(out), "--overwrite"]) == 1
    assert f"{out / link} is a link" in capsys.readouterr().err
    assert (out / link).is_symlink()


def test_a_link_that_comes_while_models_are_loaded_is_not_followed(folder, tmp_path, outside, capsys, monkeypatch):
    out, load = tmp_path / "out", segment.load_models

    def slow(arguments):
        (out / "masks").symlink_to(outside / "masks")
        return load(arguments)

    monkeypatch.setattr(segment, "load_models", slow)
    assert main(["segment", str(folder), EXPRESSION, "--out", str(out), "--threads", "1"]) == 1
    assert f"{out}/masks is a link" in capsys.readouterr().err


def test_a_full_disk_is_named_and_leaves_no_summary(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(segment, "_write_heat_maps", lambda *_: None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))  # as when the disk is full: files end at 4 KiB
    options = ["--out", str(tmp_path), "--threads", "1", "--key-frames", "2", "--min-presence", "0"]
    try:
        assert main(["segment", str(folder), EXPRESSION, *options]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"decaf segment: {tmp_path}/overlay.mp4 cannot be written whole: it holds 0 of {FRAMES} images")
    assert not {"summary.json", "overlay.mp4"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("text", ["a line", "a line\n" * 10_000])
def test_what_cannot_be_printed_ends_with_the_cause(capsys, monkeypatch, text):
    monkeypatch.setattr(segment, "main", lambda argv: print(text) or 0)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["segment"]) == 1
    assert capsys.readouterr().err == "decaf segment: not all could be printed: No space left on device\n"


def test_overwriting_leaves_nothing_of_the_earlier_run_but_files_of_others(folder, results, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(results, out)
    for name in ("masks.json", "notes.txt", "masks/00000.png"):
        (out / name).touch()

    before = sorted(out.rglob("*"))
    again = ["segment", str(folder), EXPRESSION, "--out", str(out), "--overwrite"]
    assert main([*again, "--mllm", "/no/such/model"]) == 1
    assert sorted(out.rglob("*")) == before, "a slip costs no results"

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(segment, "ground_video", stop)
    assert main(again) == 130
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["masks", "masks/00000.png", "notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["frames", "  ", "--out", "x"], "expression is empty"),
        (["frames", EXPRESSION], "--out"),
        (["frames", EXPRESSION, "--out", "x", "--key-frames", "0"], "'0' is no number above 0"),
        (["frames", EXPRESSION, "--out", "x", "--tracklet-threshold", "7"], "tracklet_threshold must lie in"),
        (["frames", "the\nball", "--out", "x"], "the expression holds characters that cannot be printed: '\\n'"),
        (["frames", "the \x07ball", "--out", "x"], "cannot be printed: '\\x07'"),
        (["frames", EXPRESSION, "--out", "x", "--threads", "-3"], "'-3' is no whole number from 0 on"),
        (["frames", EXPRESSION, "--out", "x", "--threads", "100000"], "100000 threads are more than"),
        (["frames", EXPRESSION, "--out", "x", "--device", "abacus"], "'abacus' is none that torch knows"),
        (["frames", EXPRESSION, "--out", "x", "--device", "meta"], "'meta' is none that the models run on"),
        (["frames", EXPRESSION, "--out", "x", "--device", "mps"], "'mps' is none that the models run on"),
        (["frames", EXPRESSION, "--out", "x", "--device", "xpu"], "'xpu' is none that the models run on"),
        (["frames", EXPRESSION, "--out", "x", "--device", "cuda:7"], "'cuda:7' is not there: torch sees 2 CUDA devices"),
    ],
)
def test_wrong_arguments_are_refused_with_the_cause(capsys, monkeypatch, arguments, cause):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit) as ended:
        main(["segment", *arguments])
    assert ended.value.code == 2
    assert cause in capsys.readouterr().err
