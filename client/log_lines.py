"""Log lines that people and programs can read: ``time level where key=value... message`` on one line each."""

import logging
import time

__all__ = ["LogLines", "log_to_stderr"]


class LogLines(logging.Formatter):
    """``2026-01-02T03:04:05.678Z INFO client.agent device=kitchen message``, in UTC; never more than one line."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage()
        if record.exc_info:
            message = f"{message} | {self.formatException(record.exc_info)}"
        where = record.name.removeprefix("hedgerow.")
        line = f"{seconds}.{int(record.msecs):03d}Z {record.levelname} {where} device={self._device} {message}"
        return line.replace("\r", "").replace("\n", " | ")


def log_to_stderr(device: str, level: str) -> None:
    """Send this process's log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines(device))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # python-tuf and urllib3 narrate every request.
    for name in ("tuf", "urllib3", "securesystemslib"):
        logging.getLogger(name).setLevel(logging.WARNING)
