"""What the outermost loop of a thread says about turns that fail: few lines, however many failures."""

import logging

__all__ = ["FailureLines"]

_BETWEEN_LINES = 1000


class FailureLines:
    """Logs the first failure in a row, every thousandth after it, and the end.

    On a full disk every turn fails, many in a second; a line for each would keep it full.

    Args:
        log: The one of the thread's module.
        what: What is tried again and again, such as ``a turn of the fleet service``.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log, self._what, self._failures = log, what, 0

    def failed(self, exc: Exception) -> None:
        """Note a failure."""
        self._failures += 1
        if self._failures % _BETWEEN_LINES == 1:
            self._log.error("%s failed (%d since the last that did not)", self._what, self._failures, exc_info=exc)

    def worked(self) -> None:
        """Note a success."""
        if self._failures:
            self._log.info("%s works again; %d failed", self._what, self._failures)
            self._failures = 0
