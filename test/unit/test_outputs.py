"""Where commands write: below the folder that they were told, whatever lies in it and however names are spelt, and whole."""

from __future__ import annotations

import collections
import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from decaf_ros.outputs import OutputError, OutputFolder, alike, file_name
from decaf_ros.video import VideoError, VideoFile

NAMES = ["", ".", "..", "/etc", "a/b", "../x", "a\\b", "a\0b", "a\nb", "a\x1b[2J", "\ud800", "\u202etxt", "x" * 256, "é" * 128]
NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def write_file(out: OutputFolder, name: str) -> None:
    with out.file(name) as file:
        file.write(b"new")


def write_video(out: OutputFolder, name: str) -> None:
    with out.video(name, 10.0) as video:
        video.write(NOISE)


def keep_journal(out: OutputFolder, name: str) -> None:
    with out.journal(name) as file:
        file.write(b"new")


def keep_log(out: OutputFolder, name: str) -> None:
    with out.log(name) as file:
        file.write(b"new")


WAYS: dict[str, Callable[[OutputFolder, str], object]] = {
    "file": write_file,
    "text": lambda out, name: out.write_text(name, "new"),
    "image": lambda out, name: out.write_png(name, NOISE),
    "video": write_video,
    "journal": keep_journal,
    "log": keep_log,
    "in a folder": lambda out, name: out.folder(name).write_text("file", "new"),
    "remove": lambda out, name: out.remove(name),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def write(request) -> Callable[[OutputFolder, str], object]:
    return request.param


@pytest.fixture
def out(tmp_path) -> OutputFolder:
    return OutputFolder(tmp_path / "out")


@pytest.fixture
def outside(tmp_path) -> Iterator[Path]:
    """A folder with a file, both of which stay as they are."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("precious")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "precious"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused_by_every_way_to_write(tmp_path, out, write, name):
    with pytest.raises(ValueError, match=r"no name|separator|cannot be printed|longer than"):
        file_name(name)
    with pytest.raises(OutputError, match=r"nothing can be written to .*out under this name"):
        write(out, name)
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


@pytest.mark.parametrize("name", ["a", ".a", "-a", "a b", "mug.png", "é" * 127, "00000", "\u5348"])
def test_other_names_are_kept(name):
    assert file_name(name) == name


def test_names_that_some_file_systems_take_for_one_are_found():
    assert alike(["a", "b", "c/a"]) is None
    assert alike(["a", "a"]) is None
    assert alike(["x", "Video/1", "y", "video/1"]) == ("Video/1", "video/1")
    assert alike(["\u00e9", "e\u0301"]) == ("\u00e9", "e\u0301")


@pytest.mark.parametrize("target", ["file", "missing", ".", "missing/missing"])
def test_links_are_neither_followed_nor_replaced(out, outside, write, target):
    link = out.path / "name"
    link.symlink_to(outside / target)
    with pytest.raises(OutputError, match=r"out/name is (a|no folder, or a) link"):
        write(out, "name")
    assert link.is_symlink()
    assert [path.name for path in out.path.iterdir()] == ["name"]


def test_pipes_are_refused_and_do_not_hang(out, write):
    os.mkfifo(out.path / "name")
    with pytest.raises(OutputError, match="out/name is"):
        write(out, "name")
    assert (out.path / "name").is_fifo()


@pytest.mark.parametrize("way", [way for way in WAYS if way != "in a folder"])
def test_a_file_of_another_name_elsewhere_does_not_change(out, outside, way):
    os.link(outside / "file", out.path / "name")
    if way == "journal":
        with pytest.raises(OutputError, match="out/name is a file of several names"):
            WAYS[way](out, "name")
    else:
        WAYS[way](out, "name")


def test_the_folder_stays_the_one_that_was_opened(out, outside, write):
    """Somebody who may write beside it puts a link in its place."""
    moved = out.path.with_name("moved")
    out.path.rename(moved)
    out.path.symlink_to(outside)
    write(out, "name")
    assert [path.name for path in moved.iterdir()] == (["name"] if write is not WAYS["remove"] else [])


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    OutputFolder(tmp_path / "out").write_text("file", "new")
    assert (tmp_path / "disk" / "file").read_text() == "new"


@pytest.mark.parametrize("name", ["file", "dangling", "file/out"])
def test_a_folder_that_is_none_is_named(tmp_path, name):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(OutputError, match=f"{name} is no folder, nor a link to one"):
        OutputFolder(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


@pytest.mark.parametrize("way", ["file", "video"])
def test_an_interruption_leaves_the_earlier_file(out, way):
    (out.path / "name.mp4").write_text("earlier")
    opened = out.file("name.mp4") if way == "file" else out.video("name.mp4", 10.0)
    with contextlib.suppress(KeyboardInterrupt), opened as file:
        file.write(b"new" if way == "file" else NOISE)
        raise KeyboardInterrupt
    assert [path.name for path in out.path.iterdir()] == ["name.mp4"]
    assert (out.path / "name.mp4").read_text() == "earlier"


def test_a_video_is_there_when_it_is_whole(out):
    with out.video("name.mp4", 10.0) as video:
        for _ in range(3):
            video.write(NOISE)
        assert not (out.path / "name.mp4").exists()
    assert [path.name for path in out.path.iterdir()] == ["name.mp4"]
    assert len(VideoFile(out.path / "name.mp4")) == 3


def test_what_others_cannot_print_is_written_escaped(out):
    out.write_text("name", "\ud800 é")
    assert (out.path / "name").read_bytes() == b"\\ud800 \xc3\xa9"


class TestFullDisk:
    """As when the disk is full: files end at 16 KiB, where the system says so."""

    @pytest.fixture(autouse=True)
    def _small_files(self):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, limits[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_a_file_that_is_not_whole_is_none(self, out):
        with pytest.raises(OutputError, match=r"out/a\.png cannot be written: File too large"):
            out.write_png("a.png", np.tile(NOISE, (4, 4, 1)) + np.arange(256, dtype=np.uint8)[:, None, None])
        with pytest.raises(OutputError, match=r"out/a\.csv cannot be written: File too large"), out.text("a.csv") as file:
            file.writelines(f"{row}\n" for row in range(10_000))
        assert not list(out.path.iterdir())

    def test_a_video_that_lacks_images_is_none(self, out):
        cause = r"out/a\.mp4 cannot be written whole: it holds \d+ of 20 images. Is the disk full"
        with pytest.raises(VideoError, match=cause), out.video("a.mp4", 10.0) as video:
            collections.deque(video.write(np.roll(NOISE, 7 * index, axis=0)) for index in range(20))
        assert not list(out.path.iterdir())

    def test_errors_of_other_files_keep_their_names(self, out):
        with pytest.raises(FileNotFoundError, match="elsewhere"), out.file("a"):
            Path("elsewhere").read_bytes()
