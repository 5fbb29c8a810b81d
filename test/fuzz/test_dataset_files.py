"""Datasets that somebody tampered with: whatever their files hold, the only error is one that names the cause."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from decaf_ros.evaluation.datasets import DATASETS, ImageFiles, read_dataset
from decaf_ros.evaluation.entries import DatasetError
from decaf_ros.evaluation.rle import decode_rle
from decaf_ros.video import VideoError

SIZE_HW = (3, 4)
FRAMES = ["0", "1"]
RLE = {"size": list(SIZE_HW), "counts": [5, 2, 5]}

META = {
    "ref-davis17": "meta_expressions/valid/meta_expressions.json",
    "ref-youtube-vos": "meta_expressions/valid/meta_expressions.json",
    "mevis": "valid_u/meta_expressions.json",
    "revos": "meta_expressions_valid_.json",
    "reasonvos": "meta_expressions.json",
}
NUMBERED = {"videos": {"v": {"frames": FRAMES, "expressions": {"0": {"exp": "one", "obj_id": "1"}, "1": {"exp": "two"}}}}}
ENCODED = {"videos": {"v": {"frames": FRAMES, "expressions": {"0": {"exp": "one", "anno_id": [7], "type_id": 0}}}}}
SENTENCES = {
    "ref-davis17": NUMBERED,
    "ref-youtube-vos": NUMBERED,
    "mevis": ENCODED,
    "revos": ENCODED,
    "reasonvos": {"videos": {"v": {"source": "s", "frames": FRAMES, "expressions": [{"exp_text": "why?", "obj_id": 1}]}}},
}
FOLDERS = ("valid/JPEGImages/v", "valid/Annotations/v", "valid_u/JPEGImages/v", "JPEGImages/v", "Annotations/s_v_1")
FOREGROUND = "mask_dict_foreground.json"
MASKS = {"mevis": "valid_u/mask_dict.json", "revos": "mask_dict.json"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["..", "../v", "/", "v", "0", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["exp", "size"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Of everything in a value."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


@st.composite
def tampered(draw: Callable[..., Any], content: Any) -> bytes:
    """A file in which some values are other ones, gone, or under other names; or in which some bytes are."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(list(places(content))))
        if not place:
            content = draw(json_values)
            continue
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
        old = inner.pop(place[-1]) if kind != "replace" or isinstance(inner, dict) else inner[place[-1]]
        if kind == "replace":
            inner[place[-1]] = draw(json_values)
        elif kind == "rename" and isinstance(inner, dict):
            inner[draw(st.text() | st.sampled_from(["..", "/", "V"]))] = old
    written = json.dumps(content).encode()
    if draw(st.integers(0, 4)) == 0:
        start = draw(st.integers(0, len(written)))
        written = written[:start] + draw(st.binary(max_size=4)) + written[start + draw(st.integers(0, 4)) :]
    return written


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root") / "dataset"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
        for frame in FRAMES:
            cv2.imwrite(str(root / folder / f"{frame}.png"), np.ones(SIZE_HW, np.uint8))
    shutil.copytree(root / "valid/JPEGImages/v", root.parent / "v")  # what a name with .. would find
    for name in META:
        (root / META[name]).parent.mkdir(parents=True, exist_ok=True)
    return root


@contextmanager
def failing_only_by(*kinds: type[Exception]) -> Iterator[None]:
    """Whatever the block does, it ends well or with such an error, whose message can be shown."""
    message = ""
    try:
        yield
    except kinds as error:
        message = str(error).splitlines()[0]
    assert message.isprintable()


def read_all(name: str, root: Path) -> None:
    """All that an evaluation reads; whatever it is, lies in the dataset."""
    for video in read_dataset(name, root):
        assert video.images
        assert all(path.resolve().is_relative_to(root.resolve()) for path in video.images)
        for frame in range(len(video.images)) if video.foreground else ():
            assert video.foreground.pixels(frame, SIZE_HW) >= 0
        for expression in video.expressions:
            expression.text.encode()
            for frame in range(len(video.images)) if expression.truth else ():
                mask = expression.truth.read(frame, SIZE_HW)
                assert (mask.shape, mask.dtype) == (SIZE_HW, np.bool_)


@pytest.mark.parametrize("name", DATASETS)
@examples(100)
@given(st.data())
def test_sentences(root, name, data):
    if name in MASKS:
        (root / MASKS[name]).write_text(json.dumps({"7": [RLE, None]}))
    (root / META[name]).write_text(json.dumps(SENTENCES[name]))
    read_all(name, root)  # as it should be
    (root / META[name]).write_bytes(data.draw(tampered(SENTENCES[name])))
    with failing_only_by(DatasetError):
        read_all(name, root)


@pytest.mark.parametrize("name", MASKS)
@examples(100)
@given(st.data())
def test_run_lengths_of_a_dataset(root, name, data):
    (root / META[name]).write_text(json.dumps(SENTENCES[name]))
    (root / MASKS[name]).write_bytes(data.draw(tampered({"7": [RLE, {**RLE, "counts": "525"}]})))
    with failing_only_by(DatasetError):
        read_all(name, root)


@examples(100)
@given(st.data())
def test_run_lengths_of_all_objects(root, data):
    (root / META["revos"]).write_text(json.dumps(SENTENCES["revos"]))
    (root / MASKS["revos"]).write_text(json.dumps({"7": [RLE, None]}))
    try:
        (root / FOREGROUND).write_bytes(data.draw(tampered({"v": {"masks_rle": [RLE, [RLE, RLE]]}})))
        with failing_only_by(DatasetError):
            read_all("revos", root)
    finally:
        (root / FOREGROUND).unlink(missing_ok=True)


@examples(300)
@given(
    st.fixed_dictionaries(
        {"size": st.lists(st.integers(0, 10**7), max_size=3) | json_values},
        optional={
            "counts": json_values
            | st.lists(st.integers(-1, 10**7))
            | st.text(st.characters(min_codepoint=40, max_codepoint=120))
        },
    )
    | json_values
)
def test_run_lengths(rle):
    """Those that are large are refused before memory is taken for them."""
    try:
        mask = decode_rle(rle)
    except ValueError:
        return
    assert mask.size <= 1 << 28
    assert list(mask.shape) == rle["size"]


@pytest.mark.parametrize("kind", ["JPEGImages", "Annotations"])
@examples(100)
@given(start=st.integers(0, 300), new=st.binary(max_size=8), lost=st.integers(0, 8))
def test_images(root, kind, start, new, lost):
    (root / META["ref-davis17"]).write_text(json.dumps(NUMBERED))
    path = root / "valid" / kind / "v" / "0.png"
    good = path.read_bytes()
    path.write_bytes(good[:start] + new + good[start + lost :])
    try:
        with failing_only_by(DatasetError, VideoError):
            read_all("ref-davis17", root)
            ImageFiles([path], 1.0).read(0, 1)
    finally:
        path.write_bytes(good)
