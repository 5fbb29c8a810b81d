"""What is said about /dev/shm, by the room that the system says there is."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from decaf_ros.ros.shared_memory import free_shared_memory_mib, shared_memory_problem


@pytest.mark.parametrize(("blocks", "problem"), [(16, "/dev/shm has 0.1 MiB left: Fast DDS"), (16384, "")])
def test_little_room_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch, blocks: int, problem: str) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=blocks, f_frsize=4096))
    assert free_shared_memory_mib() == blocks / 256
    told = shared_memory_problem()
    assert told.startswith(problem)
    assert bool(told) == bool(problem)
    assert ("--shm-size" in told) == bool(problem)


def test_a_system_without_the_folder_has_no_such_problem(tmp_path: Path) -> None:
    assert shared_memory_problem(tmp_path / "absent") == ""
