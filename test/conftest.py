"""Keeps ROS tests on this machine, apart from whatever else runs on it: each process that tests has a domain of its own."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from pathlib import Path
from typing import IO

# Domains above 101 collide with ephemeral ports.
_DOMAINS = range(1, 101)
_CLAIMED = "DECAF_TEST_CLAIMED_DOMAIN"


def _claim_domain() -> tuple[int, IO[str]]:
    """A domain that no other test run on this machine has, and the file whose lock says so until this process ends."""
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        try:
            claim = (Path(tempfile.gettempdir()) / f"ros_domain_{domain}.lock").open("a")
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another run, or another user, has it
            continue
        return domain, claim
    raise RuntimeError("every ROS domain is in use by a test run on this machine; set ROS_DOMAIN_ID")


# Read by rclpy when a context is created, and handed on to child processes.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
if "ROS_DOMAIN_ID" not in os.environ or os.environ.get(_CLAIMED) == os.environ["ROS_DOMAIN_ID"]:  # or the parent claimed it
    _domain, _claim = _claim_domain()
    os.environ["ROS_DOMAIN_ID"] = os.environ[_CLAIMED] = str(_domain)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: workers must not fight over the same cores
