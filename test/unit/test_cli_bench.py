"""``decaf bench``: where its pages and figures go, and which seeds it takes."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.bench.figures import Measured
from decaf_ros.cli import bench
from decaf_ros.cli.main import main

PAGE = Measured("# Scores\n", {"held.pointing": 0.5, "held.contested_pointing": math.nan, "held.queries": 2})


def test_pages_and_figures_lie_where_they_are_wanted(tmp_path, monkeypatch):
    monkeypatch.setitem(bench._PARTS, "held-out", lambda setup, arguments: PAGE)
    out = ["--write", str(tmp_path / "pages"), "--json", str(tmp_path / "data" / "figures.json")]
    assert main(["bench", "--parts", "held-out", *out]) == 0
    assert (tmp_path / "pages" / "held-out.md").read_text() == "# Scores\n"
    figures = json.loads((tmp_path / "data" / "figures.json").read_text(), parse_constant=pytest.fail)
    assert figures == {"held-out": {"held.pointing": 0.5, "held.contested_pointing": None, "held.queries": 2}}


def test_a_part_that_fails_costs_no_figures_of_those_before_it(tmp_path, monkeypatch, capsys):
    def fail(setup, arguments):
        raise ValueError("the model's tokenizer has no token for 'yes'")

    monkeypatch.setitem(bench._PARTS, "held-out", lambda setup, arguments: PAGE)
    monkeypatch.setitem(bench._PARTS, "presence", fail)
    assert main(["bench", "--parts", "presence", "held-out", "--json", str(tmp_path / "figures.json")]) == 1
    assert "no token for 'yes'" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "figures.json").read_text())) == ["held-out"]


@pytest.mark.parametrize("seed", ["1000000", "-1", "7.5"])
def test_seeds_that_are_not_held_out_are_refused(seed, monkeypatch, capsys):
    monkeypatch.setitem(bench._PARTS, "held-out", lambda *_: pytest.fail("it is measured"))
    with pytest.raises(SystemExit):
        main(["bench", "--parts", "held-out", f"--first-seed={seed}"])
    assert "--first-seed: " in capsys.readouterr().err.replace("seed 1000000 is not held out", "")


def test_the_first_seed_and_the_sizes_reach_the_parts(monkeypatch):
    seen = []
    monkeypatch.setitem(bench._PARTS, "held-out", lambda setup, arguments: seen.append(arguments) or PAGE)
    assert main(["bench", "--parts", "held-out", "--first-seed", "700000", "--queries", "3"]) == 0
    assert main(["bench", "--parts", "held-out", "--quick"]) == 0
    assert [(each.first_seed, each.queries) for each in seen] == [(700_000, 3), (500_000, 1)]


@pytest.mark.parametrize("target", ["file", "missing"])
@pytest.mark.parametrize("option", ["--write", "--json"])
def test_links_in_place_of_pages_are_refused_before_anything_is_measured(tmp_path: Path, capsys, monkeypatch, target, option):
    monkeypatch.setitem(bench._PARTS, "held-out", lambda *_: pytest.fail("it is measured"))
    (tmp_path / "file").write_text("precious")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "held-out.md").symlink_to(tmp_path / target)
    where = tmp_path / "pages" if option == "--write" else tmp_path / "pages" / "held-out.md"
    assert main(["bench", "--parts", "held-out", option, str(where)]) == 1
    assert "held-out.md is a link" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "missing").exists()
