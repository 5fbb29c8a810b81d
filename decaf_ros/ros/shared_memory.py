"""Whether Fast DDS has room for what it shares between the processes of a machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

_FOLDER = Path("/dev/shm")
# A process takes 0.65 MB when it starts (a segment, and two or three ports), all at once or nothing.
_WANTED_MIB = 2.0


def free_shared_memory_mib(folder: Path = _FOLDER) -> float:
    """Room in /dev/shm, in MiB; NaN where there is no such folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return math.nan
    return found.f_bavail * found.f_frsize / 2**20


def shared_memory_problem(folder: Path = _FOLDER) -> str:
    """What is wrong with it, and the way out; "" for nothing. To be asked before ``rclpy.init``."""
    free = free_shared_memory_mib(folder)
    if not free < _WANTED_MIB:
        return ""
    return (
        f"{folder} has {free:.1f} MiB left: Fast DDS sends images through the network's loopback instead, which takes longer. "
        "Remove files there, or enlarge it (docker run --shm-size=256m)"
    )
