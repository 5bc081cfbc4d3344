"""What can go wrong in the demo itself; everything else is the error of the part that it calls.

- FleetError: the root of the folder's errors; ``fleet/errors.py`` draws the whole tree.
  - DemoError: the demo cannot run as asked.
    - DemoInterruptedError: a signal ended the demo.
    - DemoTimeoutError: something that the demo waited for did not happen.
"""

from hedgerow.fleet.errors import FleetError

__all__ = ["DemoError", "DemoInterruptedError", "DemoTimeoutError"]


class DemoError(FleetError):
    """The demo cannot run as asked."""


class DemoTimeoutError(DemoError):
    """Something that the demo waited for did not happen."""

    def __init__(self, what: str, timeout_s: float, found: str) -> None:
        super().__init__(
            f"expected {what} within {timeout_s:g} s, found {found}; the agents' logs are in the output folder"
        )
        self.what, self.timeout_s = what, timeout_s


class DemoInterruptedError(DemoError):
    """A signal ended the demo."""

    exit_code = 130

    def __init__(self, signal_name: str) -> None:
        super().__init__(
            f"the demo was ended by {signal_name}; every process that it started is stopped; start it again"
        )
        self.signal_name = signal_name
