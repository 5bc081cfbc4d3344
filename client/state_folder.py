"""The agent's folder on disk: who may use it, and the durable part of the agent's state."""

import contextlib
import logging
import os
from functools import partial
from pathlib import Path

from filelock import lock_descriptor

from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.errors import AgentSettingsError
from hedgerow.client.kept_record import KeptRecord, Write
from hedgerow.closing import Closing
from hedgerow.durable import write_durably
from hedgerow.errors import DecodeError

__all__ = ["StateFile", "StateFolderLock"]

_log = logging.getLogger(__name__)
_MODE = 0o600


class StateFolderLock(Closing):
    """Keeps a second agent out of a state folder, for as long as this process holds it.

    A folder that is there and cannot be written is locked too, as a folder: what lies in it can still be served.

    Raises:
        AgentSettingsError: Another agent uses the folder, its file system knows no locks, or it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refusal: OSError | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            self._refusal = exc
            self._descriptor = self._open_to_read(exc)
        try:
            self._take()
        except AgentSettingsError:
            os.close(self._descriptor)
            raise
        # What a start that was killed left of a record that it wrote; nobody else writes here now.
        with contextlib.suppress(OSError):
            for part in folder.glob(".*.json.*.part"):
                part.unlink(missing_ok=True)

    def _take(self) -> None:
        try:
            # Not by the file's name: what cannot be written is locked as well. Nothing unlocks but closing it, which
            # the kernel does for a process that is killed.
            is_taken = lock_descriptor(self._descriptor, blocking=False)
        except OSError as exc:
            raise AgentSettingsError(
                f"expected a state folder that can be locked at {self._folder}, found none ({exc.strerror}); give "
                "another --state"
            ) from exc
        if not is_taken:
            raise AgentSettingsError(
                f"expected the state folder {self._folder} for this agent alone, found another agent using it; stop "
                "that one or give another --state"
            )

    def check_writable(self) -> None:
        """Return if files can be made in the folder.

        Raises:
            AgentSettingsError: They cannot.
        """
        if self._refusal is not None:
            raise self._not_writable(self._refusal)

    def _open_to_read(self, reason: OSError) -> int:
        for path in (self._folder / "agent.lock", self._folder):
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
        raise self._not_writable(reason) from reason

    def _not_writable(self, reason: OSError) -> AgentSettingsError:
        return AgentSettingsError(
            f"expected a state folder that can be written at {self._folder}, found none ({reason.strerror}); correct "
            "--state"
        )

    def close(self) -> None:
        """Let another agent have the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class StateFile:
    """``agent.json``: what the agent must still know after a restart.

    Args:
        path: The file.
        write: Replaces a file by some bytes, durably; None: on this machine's disk.
    """

    def __init__(self, path: Path, write: Write | None = None) -> None:
        self._record = KeptRecord(path, "state", write or partial(write_durably, mode=_MODE))
        self._path = path
        self._written: dict[str, object] | None = None

    def load(self, identity: Identity) -> AgentState:
        """Return the state as it was saved, or a new one."""
        try:
            state = self._record.read(partial(AgentState.from_fields, identity))
        except DecodeError as exc:
            _log.error("%s and its spare copy are damaged (%s); starting as if nothing had been asked", self._path, exc)
            return AgentState(identity=identity)
        if state is None:
            state = AgentState(identity=identity)
        if not self._record.needs_repair:
            self._written = state.to_record()
        return state

    def save(self, state: AgentState) -> bool:
        """Write the durable part, when it changed or a copy of it is damaged; return whether it was written.

        Raises:
            OSError: It could not be written; the old file is whole.
        """
        record = state.to_record()
        if record == self._written:
            return False
        self._record.write(record)
        self._written = record
        return True
