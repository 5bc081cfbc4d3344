"""Work that takes long, in threads of its own, so that the agent's loop never waits."""

import threading
import time
from collections.abc import Callable

__all__ = ["Jobs"]


class Jobs:
    """Runs each job in a daemon thread and knows whether any still runs. Jobs end soon when the agent stops."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, name: str, job: Callable[[], None]) -> None:
        """Run *job* now."""
        thread = threading.Thread(target=job, name=name, daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, timeout_s: float) -> None:
        """Wait until all jobs have ended, at most *timeout_s* together."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
