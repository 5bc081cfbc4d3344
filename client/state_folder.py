"""The agent's folder on disk: who may use it, and the durable part of the agent's state."""

import fcntl
import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.errors import SettingsError
from hedgerow.decode import decode_json, encode_json
from hedgerow.durable import write_durably
from hedgerow.errors import DecodeError

__all__ = ["StateFile", "StateFolderLock"]

_log = logging.getLogger(__name__)
_VERSION = 1
_LIMIT_BYTES = 64 * 1024


class StateFolderLock:
    """Keeps a second agent out of a state folder, for as long as this process holds it.

    Raises:
        SettingsError: Another agent uses the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / "agent.lock").open("a")
        except OSError as exc:
            raise SettingsError(
                f"expected a state folder that can be written at {folder}, found none ({exc.strerror}); correct --state"
            ) from exc
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._file.close()
            raise SettingsError(
                f"expected the state folder {folder} for this agent alone, found another agent using it; stop that "
                "one or give another --state"
            ) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()


class StateFile:
    """``agent.json``: what the agent must still know after a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""

    def load(self, identity: Identity) -> AgentState:
        """Return the state as it was saved, or a new one."""
        if not self._path.exists():
            return AgentState(identity=identity)
        try:
            fields = decode_json(self._path.read_bytes(), self._path.name, limit_bytes=_LIMIT_BYTES)
            fields.integer("version", minimum=_VERSION, maximum=_VERSION)
            state = AgentState.from_fields(identity, fields.nested("state"))
            fields.finish()
        except DecodeError as exc:
            _log.error("%s; starting as if nothing had been asked before", exc)
            return AgentState(identity=identity)
        return state

    def save(self, state: AgentState) -> None:
        """Write the durable part, when it changed.

        Raises:
            OSError: It could not be written; the old file is whole.
        """
        document = encode_json({"version": _VERSION, "state": state.to_record()})
        if document != self._written:
            write_durably(self._path, document, mode=0o600)
            self._written = document
