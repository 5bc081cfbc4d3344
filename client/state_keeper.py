"""Keeps what the agent knows on its disk, and tries again as long as the disk takes nothing."""

import time
from collections.abc import Callable

from hedgerow.client.agent_state import AgentState
from hedgerow.client.health import Health, Part
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.state_folder import StateFile

__all__ = ["StateKeeper"]

_SAVE_AGAIN_S = 10.0


class StateKeeper:
    """Writes the agent's state.

    Args:
        file: The file that it goes to.
        slots: What else may be behind on disk; it is tried at the same times.
        health: Is told whether the state folder can be written.
        timer: Rising seconds.

    Attributes:
        failures: How often the state could not be written since the start.
    """

    def __init__(
        self, file: StateFile, slots: SlotFolders, health: Health, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._slots, self._health, self._timer = file, slots, health, timer
        self._is_saved = True
        self._again_at = 0.0
        self.failures = 0

    def save(self, state: AgentState) -> None:
        """Write the durable part of *state*; when that fails, :meth:`tend` will try again."""
        try:
            is_written = self._file.save(state)
        except OSError as exc:
            self._is_saved = False
            self.failures += 1
            self._again_at = self._timer() + _SAVE_AGAIN_S
            self._health.failed(Part.STATE, exc)
        else:
            self._is_saved = True
            if is_written:
                self._health.worked(Part.STATE)

    def tend(self, state: AgentState) -> None:
        """Try the disk again where something could not be written, every ten seconds."""
        now = self._timer()
        is_behind = not self._is_saved or self._slots.is_behind or Part.STATE in self._health.failing
        if not is_behind or now < self._again_at:
            return
        self._again_at = now + _SAVE_AGAIN_S
        self.save(state)
        if self._slots.is_behind or Part.STATE in self._health.failing:
            try:
                self._slots.check_writable()
            except OSError as exc:
                self._health.failed(Part.STATE, exc)
