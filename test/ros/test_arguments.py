"""The command line of the programs: what means nothing ends them, with the reason, before they seem to work without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from decaf_ros.ros.arguments import check_arguments


def _check(*args: str) -> list[str]:
    return check_arguments("finder", "Finds things.", "docs/finder.md", args)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--ros-args",),
        ("--ros-args", "-p", "rate:=10.0", "-r", "__ns:=/left", "--log-level", "debug"),
        ("--ros-args", "-r", "image:=/camera", "--"),
    ],
)
def test_ros_arguments_are_handed_on(args: tuple[str, ...]) -> None:
    assert _check(*args) == ["finder", *args]


def test_arguments_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["finder", "--ros-args", "-p", "a:=1"])
    assert check_arguments("finder", "Finds things.", "docs/finder.md") == sys.argv


@pytest.mark.parametrize(
    ("args", "reasons"),
    [
        (("rate:=10.0",), ("rate:=10.0", "--ros-args, which is missing")),  # ROS alone would take it for a remapping
        (("-p", "rate:=10.0"), ("'-p rate:=10.0'", "--ros-args, which is missing")),
        (("--ros-args", "-p", "rate:=10.0", "--", "rest"), ("'rest'",)),
        (("--rate", "10"), ("--rate 10",)),
        (("--ros-args", "-p"), ("ROS cannot read its arguments", "-p")),
        (("--ros-args", "--rate"), ("ROS cannot read its arguments", "--rate")),
    ],
)
def test_what_means_nothing_ends_the_program(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _check(*args)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert all(reason in printed for reason in reasons), printed


def test_help_says_how_and_where_more_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _check("--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("Finds things.", "--ros-args", "docs/finder.md"))


@pytest.mark.parametrize(
    ("args", "status", "reason"),
    [
        (["rate:=10.0"], 2, "--ros-args, which is missing"),
        (["--ros-args", "-p", "rate:=10"], 1, "expecting type 'DOUBLE'"),
        (["--ros-args", "-p", "rate:=0.0"], 1, "rate"),
        (["--ros-args", "-p", "seeds:=[-1]"], 1, "seeds must be one or more numbers from 0 on"),
        (["--ros-args", "-p", f"seeds:={[1] * 1001}"], 1, "1001 seeds, at most 1000 are allowed (limit max_seeds)"),
        (["--ros-args", "-p", "encoding:=bgr8"], 1, "encoding must be one of rgb8, mono8; got 'bgr8'"),
        (["--ros-args", "-p", "rate"], 2, "ROS cannot read its arguments"),
    ],
)
def test_the_camera_ends_with_the_reason(args: list[str], status: int, reason: str) -> None:
    command = [sys.executable, "-m", "decaf_ros.ros.sim_camera", *args]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == status
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
