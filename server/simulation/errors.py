"""What can go wrong in a simulation before it trains; ``server/errors.py`` draws the whole tree.

- ServerError: the root of the folder's errors.
  - SimulationError: settings that no simulation can have.
    - NoGpuError: a GPU was asked for and there is none.
"""

from hedgerow.server.errors import ServerError

__all__ = ["NoGpuError", "SimulationError"]


class SimulationError(ServerError):
    """Settings contradict each other or the data."""

    def __init__(self, expected: str, found: str, advice: str) -> None:
        super().__init__(f"expected {expected}, found {found}; {advice}")
        self.expected, self.found = expected, found


class NoGpuError(SimulationError):
    """A GPU was asked for and torch has none."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "a CUDA GPU that torch can use", reason, "leave --device out or say --device cpu, or install torch for CUDA"
        )
