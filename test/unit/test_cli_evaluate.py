"""``decaf evaluate`` with a sentence that no model can take, and with datasets and results that somebody tampered with."""

import csv
import json
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from test_datasets import FRAMES as NAMES
from test_datasets import SIZE_HW, WRITERS
from test_evaluate import FRAMES, RIGHT, make_video

from decaf_ros.cli import evaluate as command
from decaf_ros.cli.main import main
from decaf_ros.evaluation.runner import Prediction
from decaf_ros.models.errors import NoBoxesError, PromptError
from decaf_ros.video import FrameSource


def test_a_sentence_that_the_model_cannot_take_is_not_found_and_the_next_one_is_asked(tmp_path, capsys, monkeypatch):
    def segment(source: FrameSource, expression: str) -> Prediction:
        if expression == "left":
            raise PromptError("the prompt holds '<|im_end|>'")
        return Prediction((0,), RIGHT[None], iter([RIGHT] * FRAMES), "thing", confident=True)

    monkeypatch.setattr(command, "read_dataset", lambda *_: [make_video(tmp_path / "video", "video")])
    monkeypatch.setattr(command, "load_models", lambda *_, **__: (None, None))
    monkeypatch.setattr(command, "GroundingSegmenter", lambda *_: segment)
    out = tmp_path / "out"
    assert command.main(["--dataset", "mevis", "--root", str(tmp_path), "--out", str(out)]) == 0
    assert "'left' counts as not found: the prompt holds '<|im_end|>'" in capsys.readouterr().err
    with (out / "expressions.csv").open() as file:
        scores = [(row["expression"], float(row["J"])) for row in csv.DictReader(file)]
    assert scores == [("left", 0.0), ("right", 75.0)]  # right is gone on the last frame of four


@pytest.mark.parametrize("options", [[], ["--live", "--frames-per-second", "2"]])
def test_a_model_that_was_not_taught_boxes_is_refused_and_not_every_sentence(tmp_path, capsys, monkeypatch, options):
    def box_format() -> None:
        raise NoBoxesError("models of the family other were not taught to answer with boxes as JSON")

    monkeypatch.setattr(command, "read_dataset", lambda *_: [make_video(tmp_path / "video", "video")])
    monkeypatch.setattr(command, "load_models", lambda *_, **__: (SimpleNamespace(box_format=box_format), None))
    out = tmp_path / "out"
    arguments = ["--dataset", "mevis", "--root", str(tmp_path), "--out", str(out), "--methods", "both", *options]
    assert command.main(arguments) == 1
    assert "decaf evaluate: models of the family other were not taught" in capsys.readouterr().err
    assert len((out / "results.jsonl").read_text().splitlines()) == 1  # the settings


@pytest.fixture
def run(tmp_path, monkeypatch) -> Callable[[str], int]:
    """Evaluate the dataset in ``dataset`` by a method that finds everything everywhere; masks are written."""

    def everything(source: FrameSource, expression: str) -> Prediction:
        size_hw = source.read(0, len(source))[0].size_hw
        mask = np.ones(size_hw, dtype=np.bool_)
        return Prediction((0,), mask[None], iter([mask] * len(source)), "thing | of\nlines", confident=True)

    monkeypatch.setattr(command, "load_models", lambda *_, **__: (None, None))
    monkeypatch.setattr(command, "GroundingSegmenter", lambda *_: everything)
    root, out = tmp_path / "dataset", tmp_path / "out"
    return lambda name: main(["evaluate", "--dataset", name, "--root", str(root), "--out", str(out), "--save-masks"])


META = {
    "ref-davis17": "meta_expressions/valid/meta_expressions.json",
    "ref-youtube-vos": "meta_expressions/valid/meta_expressions.json",
    "mevis": "valid_u/meta_expressions.json",
    "revos": "meta_expressions_valid_.json",
    "reasonvos": "meta_expressions.json",
}


def change(root: Path, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the videos of a dataset."""
    path = root / META[name]
    content = json.loads(path.read_text())
    edit(content["videos"])
    path.write_text(json.dumps(content))


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", WRITERS)
def test_masks_of_every_dataset_lie_in_the_folder(tmp_path, run, name):
    WRITERS[name](tmp_path / "dataset")
    before = everything_below(tmp_path)
    assert run(name) == 0
    written = everything_below(tmp_path) - before
    assert all(each.split("/")[0] == "out" for each in written)
    masks = [each for each in written if each.startswith("out/masks/full/") and each.endswith(".png")]
    with (tmp_path / "out" / "expressions.csv").open() as file:
        assert len(masks) == len(NAMES) * len(list(csv.DictReader(file)))


ESCAPES = ["../../../escaped", "/tmp/decaf-escaped", "..", ".", "a/../../../../b", "", "a\0b", "a\nb", "x" * 300, "\ud800"]


def rename(video: str, what: str, name: str) -> Callable[[dict[str, Any]], None]:
    def edit(videos: dict[str, Any]) -> None:
        if what == "video":
            videos[name] = videos.pop(video)
        elif what == "expression":
            videos[video]["expressions"][name] = videos[video]["expressions"].pop("0")
        elif what == "frame":
            videos[video]["frames"][0] = name
        elif what == "source":
            videos[video]["source"] = name
        else:
            videos[video]["expressions"][0]["obj_id"] = name

    return edit


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *(
            (name, what)
            for name in WRITERS
            for what in ("video", "expression", "frame")
            if (name, what) != ("reasonvos", "expression")
        ),
        ("reasonvos", "source"),
        ("reasonvos", "obj_id"),
    ],
)
def test_names_that_lead_out_of_the_folders_are_refused(tmp_path, run, capsys, name, what):
    root = tmp_path / "dataset"
    WRITERS[name](root)
    original = (root / META[name]).read_text()
    video = next(iter(json.loads(original)["videos"]))
    before = everything_below(tmp_path)
    for escape in ESCAPES:
        (root / META[name]).write_text(original)
        change(root, name, rename(video, what, escape))
        assert run(name) == 1, escape
        (message,) = capsys.readouterr().err.splitlines()
        assert f"{root / META[name]}, 'videos', " in message, escape
        assert "cannot be the name of a file in the dataset" in message or "is not Unicode" in message
    assert everything_below(tmp_path) == before
    assert not Path("/tmp/decaf-escaped").exists()


@pytest.mark.parametrize("link", ["masks", "masks/full", "masks/full/TAO", "masks/full/TAO/alley", "masks/full/TAO/alley/0"])
def test_links_on_the_way_to_masks_are_refused(tmp_path, run, capsys, link):
    WRITERS["revos"](tmp_path / "dataset")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out" / link).parent.mkdir(parents=True)
    (tmp_path / "out" / link).symlink_to(outside)
    assert run("revos") == 1
    assert f"out/{link} is no folder, or a link to one" in capsys.readouterr().err
    assert not list(outside.iterdir())


@pytest.mark.parametrize("target", ["missing", "file"])
@pytest.mark.parametrize("name", ["results.jsonl", "expressions.csv", "summary.csv", "summary.md"])
def test_links_in_place_of_results_are_refused(tmp_path, run, capsys, name, target):
    WRITERS["mevis"](tmp_path / "dataset")
    (tmp_path / "out").mkdir()
    (tmp_path / "file").write_text("precious")
    (tmp_path / "out" / name).symlink_to(tmp_path / target)
    assert run("mevis") == 1
    assert f"out/{name} is a link" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_masks_that_would_take_each_others_place_are_refused(tmp_path, run, capsys):
    WRITERS["revos"](tmp_path / "dataset")
    change(tmp_path / "dataset", "revos", lambda videos: videos.update({"tao/alley": videos["TAO/alley"]}))
    (tmp_path / "dataset/JPEGImages/tao").symlink_to("TAO")
    assert run("revos") == 1
    assert "masks of 'TAO/alley/0' and 'tao/alley/0' would be one folder" in capsys.readouterr().err


def test_images_of_several_sizes_are_named(tmp_path, run, capsys):
    WRITERS["mevis"](tmp_path / "dataset")
    path = tmp_path / f"dataset/valid_u/JPEGImages/alley/{NAMES[1]}.jpg"
    cv2.imwrite(str(path), np.zeros((10, 20, 3), dtype=np.uint8))
    assert run("mevis") == 1
    assert f"{path} has (20, 10) pixels, an image before it {SIZE_HW[::-1]}" in capsys.readouterr().err


def test_a_full_disk_keeps_the_lines_that_are_whole(tmp_path, run, capsys):
    WRITERS["mevis"](tmp_path / "dataset")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, limits[1]))  # as when the disk is full: files end at 900 bytes
    try:
        assert run("mevis") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    path = tmp_path / "out" / "results.jsonl"
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == f"decaf evaluate: {path} cannot be written: File too large: make room, or choose another folder"
    )
    lines = path.read_text().splitlines(keepends=True)
    assert 1 < len(lines) < 5
    assert all(line.endswith("}\n") for line in lines)
    assert run("mevis") == 0
    assert len(path.read_text().splitlines()) == 5  # settings, and two sentences about each of two videos
