"""What holds processes, memory or connections, and lets go of them at the end of a ``with`` block."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Closing", "Running"]


class Closing(ABC):
    """A context manager whose end is :meth:`close`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; a second call does nothing."""

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, and let errors pass."""
        self.close()


class Running(Closing):
    """A context manager that begins with :meth:`start`, and whose end is :meth:`stop`: threads and servers."""

    @abstractmethod
    def start(self) -> Self:
        """Begin, and return this object."""

    @abstractmethod
    def stop(self) -> None:
        """End, and let go of everything; a second call does nothing."""

    def close(self) -> None:
        """Do what :meth:`stop` does."""
        self.stop()

    def __enter__(self) -> Self:
        """Start, and return this object."""
        return self.start()
