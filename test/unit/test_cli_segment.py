"""``decaf segment`` from end to end with the embedded models, and what it says when something is wrong."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from decaf_ros.cli.main import main
from decaf_ros.synthetic.world import sample_scene
from decaf_ros.video import VideoFile

FRAMES = 9
KEY_FRAMES = 4
EXPRESSION = "the yellow mug"
HELD_OUT_SEED = 500_001  # a yellow mug is in it


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    scene = sample_scene(HELD_OUT_SEED)
    for number in range(FRAMES):
        cv2.imwrite(str(folder / f"{number:03d}.png"), scene.render(number * 0.1).image_rgb[..., ::-1])
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


def test_there_is_a_heat_map_for_each_key_frame(results):
    summary = json.loads((results / "summary.json").read_text())
    assert summary["key_frames"] == [0, 3, 5, 8]
    assert [int(path.stem) for path in sorted((results / "heat").iterdir())] == summary["key_frames"]


def test_the_summary_says_what_was_asked_and_how_long_it_took(results):
    summary = json.loads((results / "summary.json").read_text())
    assert (summary["expression"], summary["frames"]) == (EXPRESSION, FRAMES)
    assert summary["latency_ms"]["prefill"] > 0


def test_the_overlay_is_a_video_of_all_frames(results):
    overlay = VideoFile(results / "overlay.mp4")
    assert len(overlay) == FRAMES
    assert overlay.read(0, 1)[0].size_hw == (192, 256)


@pytest.mark.parametrize(
    ("video", "options", "cause"),
    [
        ("nowhere.mp4", [], "nowhere.mp4 does not exist"),
        ("", ["--mllm", "/no/such/model"], "/no/such/model"),
        ("", ["--tracker", "/no/such/weights"], "/no/such/weights"),
    ],
)
def test_what_cannot_be_used_is_named(folder, tmp_path, capsys, video, options, cause):
    assert main(["segment", str(folder / video), EXPRESSION, "--out", str(tmp_path), *options]) == 1
    assert cause in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["frames", "  ", "--out", "x"], "expression is empty"),
        (["frames", EXPRESSION], "--out"),
        (["frames", EXPRESSION, "--out", "x", "--key-frames", "0"], "'0' is no number above 0"),
        (["frames", EXPRESSION, "--out", "x", "--tracklet-threshold", "7"], "tracklet_threshold must lie in"),
        (["frames", EXPRESSION, "--out", "x", "--device", "abacus"], "abacus"),
    ],
)
def test_wrong_arguments_are_refused_with_the_cause(capsys, arguments, cause):
    with pytest.raises(SystemExit) as ended:
        main(["segment", *arguments])
    assert ended.value.code == 2
    assert cause in capsys.readouterr().err
