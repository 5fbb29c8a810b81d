"""``decaf demo`` beside somebody else's nodes, and what it says when something is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
from harness import wait_until

from decaf_ros.cli import demo, demo_run
from decaf_ros.cli.demo_run import Absence
from decaf_ros.cli.main import main
from decaf_ros.evaluation.held_out import HeldOutQuery
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.processes import ChildProcess
from decaf_ros.srv import Query
from decaf_ros.synthetic.table.wordings import Sentence
from decaf_ros.video import VideoError

QUERY = HeldOutQuery(3, 4.0, Sentence("the red mug", "colour_category", 0, "mug", (0.0, 4.0)), "colour_category", False)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the demo does to the environment is undone."""
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, os.environ[name])


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes need not be looked through where they are not shown."""
    monkeypatch.setattr(demo, "choose_queries", lambda first_seed, kinds, shown_s: (QUERY, QUERY, QUERY))


def _raise(error: BaseException) -> NoReturn:
    raise error


def test_no_node_but_its_own_is_asked(
    environment: None, queries: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exported domain may be the robot's, where a node is at work that must not forget what it does."""
    exported, started = os.environ["ROS_DOMAIN_ID"], []

    @contextmanager
    def start(module: str, arguments: Sequence[str], log: Path) -> Iterator[SimpleNamespace]:
        started.append((os.environ["ROS_DOMAIN_ID"], arguments[:3]))
        yield SimpleNamespace(module=module, running=False, last_words=lambda: "it ended early")

    def never_ready(client: DecafClient, timeout_s: float) -> None:
        raise TimeoutError(f"{client.target} and {client.node.resolve_topic_name('image')}")

    monkeypatch.setattr(demo_run, "ChildProcess", start)
    monkeypatch.setattr(DecafClient, "wait_until_ready", never_ready)
    assert main(["demo", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "it ended early" in printed, "nobody waits for what cannot come"
    (camera, node) = started
    assert camera == node
    domain, (*_, namespace) = node
    assert domain != exported
    name = namespace.removeprefix("__ns:=")
    assert len(name) > 8, "a namespace that nobody else has"
    assert f"{name}/decaf_node and {name}/image" in printed


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "decaf demo: interrupted"),
        (VideoError("overlay.mp4 cannot be written"), 1, "overlay.mp4 cannot be written"),
        (OSError("no space left"), 1, "no space left"),
        (TimeoutError("not ready"), 1, "not ready"),
    ],
)
def test_what_went_wrong_is_said(
    queries: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(demo, "run_node", lambda present, absent, out: _raise(error))
    assert main(["demo", "--out", str(tmp_path)]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("success", "status", "verdict"), [(False, 0, "not there"), (True, 1, "taken for there")])
def test_what_is_not_there_must_be_refused(
    queries: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    success: bool,
    status: int,
    verdict: str,
) -> None:
    found = SimpleNamespace(
        query=QUERY,
        text="the red mug",
        response=Query.Response(success=True, presence=0.9),
        scores=SimpleNamespace(j_and_f=0.8),
        cells=lambda: ["mug", *["0.8"] * 7],
    )
    absence = Absence(QUERY, Query.Response(success=success, presence=0.125))
    monkeypatch.setattr(demo, "run_node", lambda present, absent, out: ([found, found], absence))
    monkeypatch.setattr(demo, "write_video", lambda out, outcomes: None)
    monkeypatch.setattr(demo, "look_again", lambda outcomes, absence: None)
    monkeypatch.setattr(demo, "draw_sheet", lambda outcomes, absence, look: np.zeros((2, 2, 3), np.uint8))
    assert main(["demo", "--out", str(tmp_path)]) == status
    *_, last = (tmp_path / "results.md").read_text().splitlines()
    assert f"{verdict}, presence 12.5%" in last
    assert ("though there is none" in capsys.readouterr().err) == success


def test_results_that_cannot_be_written_are_said(
    queries: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["camera.log", "node.log", "overlay.mp4", "contact_sheet.png", "results.md"])
@pytest.mark.parametrize("target", ["file", "missing"])
def test_links_in_place_of_results_are_refused_before_anything_starts(
    environment: None,
    queries: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    target: str,
) -> None:
    monkeypatch.setattr(DecafClient, "wait_until_ready", lambda *_: _raise(TimeoutError("not ready")))
    (tmp_path / "file").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / target)
    assert main(["demo", "--out", str(tmp_path / "out")]) == 1
    assert f"out/{name} is a link" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("seed", "said"),
    [("-1", "'-1' is no whole number from 0 on"), ("1000000", "seed 1000000 is not held out: those are 0 to 999999")],
)
def test_scenes_that_cannot_be_shown_are_refused(capsys: pytest.CaptureFixture[str], seed: str, said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--seed", seed])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_last_words_of_a_program_are_the_end_of_its_output(tmp_path: Path) -> None:
    (tmp_path / "chatter.log").write_text("of an earlier run")
    with ChildProcess("this", [], OutputFolder(tmp_path).log("chatter.log")) as program:
        wait_until(lambda: not program.running, "its end")
        assert program.last_words(1) == "Namespaces are one honking great idea -- let's do more of those!"
        assert program.last_words(1000).startswith("The Zen of Python")
