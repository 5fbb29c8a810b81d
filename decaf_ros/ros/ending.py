"""How a program ends when it is told to: within seconds, whatever it is at. Imports nothing that takes long."""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

# launch waits for 5 s before it kills.
SECONDS = 4.0
CUT_OFF = 124
_REPORT_SECONDS = 0.4
_CALLS_SHOWN = 4
_NAME = "decaf-ending"
# What threads wait in says nothing.
_WAITING = (threading.__file__, concurrent.futures.thread.__file__)


class Ending:
    """SIGINT and SIGTERM as an event. A process that has not ended 4 s later is cut off, and says what it was at.

    Python runs handlers of signals on the main thread, between two of its instructions: not while that waits in a library.
    Hence a thread of its own, which the signal reaches through a pipe. Should the interpreter itself hang from then on, so that
    no thread of it runs, faulthandler ends the process, with status 1.

    To be made on the main thread.

    Args:
        program: its name, for what it says.
        expendable: see below.

    Attributes:
        asked: set when the process is to end.
        expendable: whether there is nothing yet that would have to be ended; the process then goes at once.
        stage: what it is at.
        whereabouts: more about that, asked for when it is cut off.
    """

    def __init__(self, program: str, expendable: bool = False) -> None:
        self.asked = threading.Event()
        self.expendable = expendable
        self.stage = "starting"
        self.whereabouts: Callable[[], str] = lambda: ""
        self._program = program
        self._begun = threading.Lock()
        signals, writer = os.pipe()
        os.set_blocking(writer, False)
        _in_background(lambda: self._listen(signals))
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # before there are handlers: no signal may fall in between
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def begin(self, cause: str) -> None:
        """The process is to end, for a reason, and has 4 s from now; a second time changes nothing."""
        if not self._begun.acquire(blocking=False):
            return
        if self.expendable:
            os._exit(0)
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            # By its number: sys.stderr would be flushed, and another thread may hold its lock and wait for who reads it.
            faulthandler.dump_traceback_later(SECONDS + 2 * _REPORT_SECONDS, exit=True, file=2)
        _in_background(lambda: self._cut_off(cause))
        self.asked.set()

    def _listen(self, signals: int) -> None:
        while number := os.read(signals, 1):
            self.begin(signal.Signals(number[0]).name)

    def _cut_off(self, cause: str) -> None:
        time.sleep(SECONDS)
        _in_background(lambda: self._report(cause)).join(_REPORT_SECONDS)  # who reads what it says may have stopped to
        os._exit(CUT_OFF)

    def _report(self, cause: str) -> None:
        stage = self.stage
        with contextlib.suppress(Exception):
            stage += "".join(f"; {each}" for each in [self.whereabouts()] if each)
        lines = [f"{self._program}: cut off {SECONDS:g} s after {cause}, with status {CUT_OFF}, while it was {stage}"]
        frames = sys._current_frames()
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)  # one that has only just begun has none
            calls = [each for each in traceback.extract_stack(frame) if each.filename not in _WAITING] if frame else []
            if thread.name != _NAME and calls:
                lines.append(f"thread {thread.name}, innermost call last:")
                lines += [line.rstrip() for line in traceback.format_list(calls[-_CALLS_SHOWN:])]
        os.write(2, ("\n".join(lines) + "\n").encode(errors="backslashreplace"))


def _in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, name=_NAME, daemon=True)
    thread.start()
    return thread
