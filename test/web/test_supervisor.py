"""A process that crashes, hangs, ends and is interrupted, under the one that starts it again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
from harness import wait_until

TIMEOUT_S = 60.0
PROLOGUE = """
import os, signal, sys, time
from pathlib import Path
from decaf_ros.web.supervisor import keep_running, take_signals

runs = Path(sys.argv[1])

def note(crash):
    with runs.open("a") as file:
        file.write(f"{os.getpid()} {crash}\\n")
    return len(runs.read_text().splitlines())

def crash():
    os.kill(os.getpid(), signal.SIGSEGV)

"""


class Supervised:
    """A small program under ``keep_running``; ``runs`` holds process id and reason of each start."""

    def __init__(self, folder: Path, serve: str, options: str = "") -> None:
        self._runs = folder / "runs"
        program = f"{PROLOGUE}{serve}\nsys.exit(keep_running(serve{options and ', '}{options}))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(self._runs)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )

    def runs(self) -> list[tuple[int, str]]:
        """Process id, and what ended the one before."""
        lines = self._runs.read_text().splitlines() if self._runs.exists() else []
        return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]

    def child(self) -> psutil.Process:
        """The first, once it runs."""
        return psutil.Process(wait_until(self.runs, "the child", TIMEOUT_S)[0][0])

    def end(self) -> tuple[int, str]:
        """Exit status and what was said."""
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, said


def test_a_crash_is_told_and_a_status_is_passed_on(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, "def serve(reason): return 7 if note(reason) == 3 else crash()", "pauses_s=(0.0, 0.01)")
    status, said = supervised.end()
    assert status == 7
    reasons = [reason for _, reason in supervised.runs()]
    assert reasons == ["", *["it crashed: signal 11 (Segmentation fault)"] * 2]
    assert said.count("signal 11 (Segmentation fault)") == 2
    assert "starting again in 0.01 s" in said


def test_crashes_in_a_row_are_given_up(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, "def serve(reason): note(reason); crash()", "pauses_s=(0.0,) * 3")
    status, said = supervised.end()
    assert (status, len(supervised.runs())) == (1, 4)
    assert "4 times in a row" in said


def test_one_that_ran_for_long_starts_a_new_row(tmp_path: Path) -> None:
    supervised = Supervised(
        tmp_path, "def serve(reason): return 0 if note(reason) == 6 else crash()", "pauses_s=(0.0,), steady_s=0.0"
    )
    assert supervised.end()[0] == 0


def test_an_error_is_no_crash(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, "def serve(reason): note(reason); raise ValueError('a bug')")
    status, said = supervised.end()
    assert (status, len(supervised.runs())) == (1, 1)
    assert "ValueError: a bug" in said


def test_what_ends_a_program_ends_it(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, "def serve(reason): note(reason); sys.exit('no way')")
    assert supervised.end() == (1, "no way\n")
    assert len(supervised.runs()) == 1


def test_interruptions_are_passed_on(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / number.name
        folder.mkdir()
        serve = """
def serve(reason):
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(100 + number))
    note(reason)
    take_signals()
    while True:
        time.sleep(1)
"""
        supervised = Supervised(folder, serve)
        supervised.child()
        supervised.process.send_signal(number)
        assert supervised.end() == (100 + number, "")


def test_one_that_does_not_end_when_interrupted_is_killed(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, "def serve(reason): note(reason); time.sleep(1000)", "grace_s=0.2")
    child = supervised.child()
    supervised.process.send_signal(signal.SIGTERM)
    status, said = supervised.end()
    assert status == 1
    assert "had to be killed" in said
    assert not child.is_running()


def test_an_interruption_between_two_children_ends_it(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, "def serve(reason): note(reason); crash()", "pauses_s=(1000.0,)")
    wait_until(lambda: any(not psutil.pid_exists(child) for child, _ in supervised.runs()), "the crash", TIMEOUT_S)
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.end()[0] == 0
    assert len(supervised.runs()) == 1


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    """Not even one that is stopped, and could not see that it is alone."""
    supervised = Supervised(tmp_path, "def serve(reason): note(reason); time.sleep(1000)")
    child = supervised.child()
    child.suspend()
    supervised.process.kill()
    supervised.end()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child to end", TIMEOUT_S)
