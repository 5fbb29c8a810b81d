"""``decaf bench``: where its pages go."""

from pathlib import Path

import pytest

from decaf_ros.cli import bench
from decaf_ros.cli.main import main


def test_pages_lie_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(bench._PARTS, "held-out", lambda setup, arguments: "# Scores\n")
    assert main(["bench", "--parts", "held-out", "--write", str(tmp_path / "pages")]) == 0
    assert (tmp_path / "pages" / "held-out.md").read_text() == "# Scores\n"


@pytest.mark.parametrize("target", ["file", "missing"])
def test_links_in_place_of_pages_are_refused_before_anything_is_measured(tmp_path: Path, capsys, monkeypatch, target):
    monkeypatch.setitem(bench._PARTS, "held-out", lambda *_: pytest.fail("it is measured"))
    (tmp_path / "file").write_text("precious")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "held-out.md").symlink_to(tmp_path / target)
    assert main(["bench", "--parts", "held-out", "--write", str(tmp_path / "pages")]) == 1
    assert "held-out.md is a link" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "missing").exists()
