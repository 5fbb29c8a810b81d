"""Starts the page's process again when it crashes: a malformed message can end any process that listens to DDS.

Messages are read by compiled code below rclpy, before any code of ours sees them. So the process that talks to ROS is the child
of one that does not, which keeps the listening sockets and the token: a restart refuses no connection and locks nobody out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long to wait after one crash, the next and so on. More in a row than that are no accident.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)
_STEADY_SECONDS = 60.0
_GRACE_SECONDS = 4.0
_PR_SET_PDEATHSIG = 1


def keep_running(
    serve: Callable[[str], int],
    pauses_s: Sequence[float] = _PAUSES_S,
    steady_s: float = _STEADY_SECONDS,
    grace_s: float = _GRACE_SECONDS,
) -> int:
    """Run a function in a child process, again whenever a signal ends that; returns the exit status.

    A child that ends by itself has ended for good, and so has one that is interrupted: SIGINT and SIGTERM are passed on. If
    this process is killed, so is the child. It forks: to be called before there are threads.

    Args:
        serve: is given what ended the last child, "" at first, and returns the exit status. It begins with the signals of
            ``STOP_SIGNALS`` blocked, and unblocks them when it can be interrupted (:func:`take_signals`).
        pauses_s: after each crash; after more crashes than these in a row it gives up.
        steady_s: a child that ran for so long starts a new row.
        grace_s: how long an interrupted child may take; it is killed then.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGCHLD})
    crash, row = "", 0
    while True:
        began = time.monotonic()
        status, stopped = _run_child(serve, crash, grace_s)
        if status >= 0:
            return status
        if stopped:
            _say("had to be killed: it did not end when it was interrupted" if status == -signal.SIGKILL else _crash(status))
            return 1
        crash = _crash(status)
        row = 1 if time.monotonic() - began > steady_s else row + 1
        if row > len(pauses_s):
            _say(f"{crash}, {row} times in a row: it gives up. Malformed messages can do that: see Crashes in docs/web.md")
            return 1
        _say(f"{crash}; starting again in {pauses_s[row - 1]:g} s")
        if signal.sigtimedwait(STOP_SIGNALS, pauses_s[row - 1]):
            return 0


def take_signals() -> None:
    """Let signals in that were held back since the child began."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*STOP_SIGNALS, signal.SIGCHLD})


def _run_child(serve: Callable[[str], int], crash: str, grace_s: float) -> tuple[int, bool]:
    """Exit status of a child, the negative number of a signal that ended it, and whether it was interrupted."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _be_child(serve, crash, parent)
    deadline = None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), deadline is not None
        patience_s = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
        received = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGCHLD}, patience_s)
        if received is not None and received.si_signo in STOP_SIGNALS:
            deadline = deadline or time.monotonic() + grace_s
            os.kill(child, received.si_signo)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline += grace_s


def _be_child(serve: Callable[[str], int], crash: str, parent: int) -> None:
    """Never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # else it died before it could be noticed
            status = serve(crash)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _crash(status: int) -> str:
    return f"it crashed: signal {-status} ({signal.strsignal(-status) or 'unknown'})"


def _say(what: str) -> None:
    with contextlib.suppress(OSError):
        print(f"decaf_web: {what}", file=sys.stderr, flush=True)
