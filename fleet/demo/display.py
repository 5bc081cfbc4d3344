"""What a person sees while the demo works: the steps, and the progress of each long piece of work, on stderr."""

import time

from hedgerow.progress_display import ProgressDisplay

__all__ = ["Display"]

_INDENT = " " * 10


class Display(ProgressDisplay):
    """Progress below headlines that tell how long the demo has run."""

    def __init__(self) -> None:
        super().__init__(indent=_INDENT)
        self._started = time.monotonic()

    def step(self, text: str) -> None:
        """Print a headline."""
        self.say(f"{time.monotonic() - self._started:6.1f} s  {text}", bold=True)

    def note(self, text: str) -> None:
        """Print a line below the headline."""
        self.say(f"{_INDENT}{text}")
