"""``decaf bench``: where its pages and figures go, which seeds it takes, and what its parts are asked to measure."""

import importlib
import inspect
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from decaf_ros.bench.figures import Measured
from decaf_ros.bench.part import Part
from decaf_ros.bench.parts import PARTS
from decaf_ros.cli.main import main

PAGE = Measured("# Scores\n", {"held.pointing": 0.5, "held.contested_pointing": math.nan, "held.queries": 2})
PAGES = Path(__file__).parents[2] / "docs" / "benchmarks"


@pytest.fixture
def stand_in(monkeypatch):
    """Put a function in the place of a part's own ``measure``."""

    def put(name, measure):
        (part,) = (part for part in PARTS if part.name == name)
        monkeypatch.setitem(sys.modules, part.module, SimpleNamespace(measure=measure))

    return put


def is_measured(run, **values):
    pytest.fail("it is measured")


def test_pages_pictures_and_figures_lie_where_they_are_wanted(tmp_path, stand_in, capsys):
    stand_in("held-out", lambda run, queries: PAGE)
    stand_in("rollout", lambda run, repetitions: Measured("# Rollout\n", {"error": 0.0}, {"rollout-memory.png": b"pixels"}))
    out = ["--write", str(tmp_path / "pages"), "--json", str(tmp_path / "data" / "figures.json")]
    assert main(["bench", "--parts", "held-out", "rollout", *out]) == 0
    assert capsys.readouterr().out == "# Scores\n\n# Rollout\n\n"
    written = {path.name: path.read_bytes() for path in (tmp_path / "pages").iterdir()}
    assert written == {"held-out.md": b"# Scores\n", "rollout.md": b"# Rollout\n", "rollout-memory.png": b"pixels"}
    figures = json.loads((tmp_path / "data" / "figures.json").read_text(), parse_constant=pytest.fail)
    scores = {"held.pointing": 0.5, "held.contested_pointing": None, "held.queries": 2}
    assert figures == {"held-out": scores, "rollout": {"error": 0.0}}


def test_a_part_that_fails_costs_no_figures_of_those_before_it(tmp_path, stand_in, capsys):
    def fail(run, presence_queries):
        raise ValueError("the model's tokenizer has no token for 'yes'")

    stand_in("held-out", lambda run, queries: PAGE)
    stand_in("presence", fail)
    assert main(["bench", "--parts", "presence", "held-out", "--json", str(tmp_path / "figures.json")]) == 1
    assert "no token for 'yes'" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "figures.json").read_text())) == ["held-out"]


@pytest.mark.parametrize("seed", ["1000000", "-1", "7.5"])
def test_seeds_that_are_not_held_out_are_refused(seed, stand_in, capsys):
    stand_in("held-out", is_measured)
    with pytest.raises(SystemExit):
        main(["bench", "--parts", "held-out", f"--first-seed={seed}"])
    assert "--first-seed: " in capsys.readouterr().err.replace("seed 1000000 is not held out", "")


def test_the_first_seed_and_the_sizes_reach_the_parts_and_the_foot_of_the_page(stand_in):
    seen = []
    stand_in("tracking", lambda run, **sizes: seen.append((run.first_seed, sizes, run.command)) or PAGE)
    assert main(["bench", "--parts", "tracking", "--first-seed", "700000", "--episodes", "3"]) == 0
    assert main(["bench", "--parts", "tracking", "--quick"]) == 0
    assert seen == [
        (700_000, {"episodes": 3, "doubles": 50}, "decaf bench --parts tracking --episodes 3 --doubles 50"),
        (500_000, {"episodes": 1, "doubles": 2}, "decaf bench --parts tracking --episodes 1 --doubles 2"),
    ]


def test_what_takes_a_plain_reference_or_a_large_model_runs_only_when_it_is_named(stand_in):
    seen = []
    for part in PARTS:
        stand_in(part.name, lambda run, name=part.name, **sizes: seen.append(name) or PAGE)
    assert main(["bench"]) == 0
    assert seen == [
        "held-out",
        "presence",
        "objects-3d",
        "ablation",
        "grounders",
        "tracking",
        "live",
        "standing",
        "query",
        "node",
        "ros",
    ]
    assert main(["bench", "--parts", "full-size", "tracker", "rollout"]) == 0
    assert seen[11:] == ["rollout", "tracker", "full-size"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--queries", "0"], "--queries: '0' is no number above 0"),
        (["--tracker-frames", "17"], "--tracker-frames: 17 is less than 18"),
        (["--full-size-queries", "-1"], "--full-size-queries: "),
    ],
)
def test_sizes_that_measure_nothing_are_refused(options, reason, capsys):
    with pytest.raises(SystemExit):
        main(["bench", *options])
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_part_measures_what_its_options_say(part: Part):
    for needed in ("mujoco", "mujoco_warp", "rclpy", "matplotlib"):
        pytest.importorskip(needed, reason="parts are imported with what they need")
    measure = importlib.import_module(part.module).measure
    assert list(inspect.signature(measure).parameters) == ["run", *(option.key for option in part.options)]


def test_every_page_of_the_documentation_is_one_of_a_part():
    files = {name for part in PARTS for name in part.files}
    assert {path.name for path in PAGES.iterdir()} <= files


def test_a_published_model_of_unknown_sizes_is_named_with_those_that_are_known(capsys):
    assert main(["bench", "--parts", "full-size", "--mllms", "Qwen/Qwen9"]) == 1
    assert "'Qwen/Qwen9' is no language model whose sizes are known: those are Qwen/Qwen2.5-VL-7B" in capsys.readouterr().err


def test_without_what_draws_the_plot_its_extra_is_named_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for module in ("matplotlib.figure", "decaf_ros.bench.parts.rollout"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert main(["bench", "--parts", "rollout"]) == 1
    expected = "decaf bench needs matplotlib, which is not installed: pip install 'decaf_ros[dev]'\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("target", ["file", "missing"])
@pytest.mark.parametrize("option", ["--write", "--json"])
@pytest.mark.parametrize(("part", "name"), [("held-out", "held-out.md"), ("rollout", "rollout-memory.png")])
def test_links_in_place_of_pages_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys, stand_in, target, option, part, name
):
    stand_in(part, is_measured)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / name).symlink_to(tmp_path / target)
    where = tmp_path / "pages" if option == "--write" else tmp_path / "pages" / name
    assert main(["bench", "--parts", part, option, str(where)]) == 1
    assert f"{name} is a link" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "missing").exists()
