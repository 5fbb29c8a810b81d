"""Log records of the library, which knows no ROS, on their way to the node's logger and so to /rosout."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

from decaf_ros.text import escaped

_LONGEST = 20_000  # characters: a traceback


class RosLogHandler(logging.Handler):
    """Hands records of Python's ``logging`` on to a ROS logger."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record, with its traceback if it has one. Nothing that a library quotes in it reaches a terminal's controls.

        rclpy remembers the severity of every line that logs, hence one line for each.
        """
        text = _printable(self.format(record))
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def _printable(text: str) -> str:
    shown = escaped(text[:_LONGEST], kept="\n")
    return shown if len(text) <= _LONGEST else f"{shown}... ({len(text)} characters)"


def forward_logs(logger: RcutilsLogger, package: str = "decaf_ros") -> logging.Handler:
    """Send everything that ``package`` logs to a ROS logger, which filters by its own level; returns the handler."""
    handler = RosLogHandler(logger)
    source = logging.getLogger(package)
    source.addHandler(handler)
    source.setLevel(logging.DEBUG)
    source.propagate = False
    return handler
