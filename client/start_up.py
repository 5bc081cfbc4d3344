"""What the agent does first: give up on a release that keeps crashing, load what the pointer says or the one before."""

import logging
from functools import partial

from hedgerow.client import slots as rules
from hedgerow.client.errors import ClientError
from hedgerow.client.events import Restored
from hedgerow.client.loading import LoadRuntime, ReadyModel, load_model
from hedgerow.client.slot_folders import SlotFolders

__all__ = ["load_active", "settle"]

_log = logging.getLogger(__name__)


def load_active(folders: SlotFolders, runtimes: LoadRuntime, crash_limit: int) -> tuple[ReadyModel | None, Restored]:
    """Return the model to serve with, or None, and what became of the slots.

    The start is counted on disk before anything is loaded, so a crash of the runtime itself counts too; :func:`settle`
    ends the count.

    Args:
        folders: The slots.
        runtimes: Finds a runtime by name.
        crash_limit: Starts without :func:`settle` after which the other slot takes over.
    """
    crashed, is_lost = None, False
    if rules.must_fall_back(folders.state, crash_limit):
        crashed = folders.state.release
        _change(folders, rules.fallen_back)
        _log.error("%s crashed %d times; back to %s", crashed, crash_limit, folders.state.release)
    _change(folders, rules.started)
    ready = None
    while ready is None and (slot := folders.state.active) is not None:
        try:
            ready = load_model(folders.open(slot), runtimes)
            _log.info("serving %s", ready.release)
        except ClientError as exc:
            _log.error("%s cannot be served: %s", folders.state.release, exc)
            is_lost = True
            if not _change(folders, partial(rules.dropped, slot=slot)):
                break
    return ready, Restored(folders.state.release, folders.state.previous, crashed, is_lost)


def settle(folders: SlotFolders) -> None:
    """Note that the active release is healthy, or that the agent stops in order: no start counts as a crash."""
    _change(folders, rules.committed)


def _change(folders: SlotFolders, transition: rules.Transition) -> bool:
    before = folders.state
    try:
        return folders.change(transition) != before
    except OSError as exc:
        # A device whose disk is full or read-only still serves.
        _log.error("the pointer could not be written: %s", exc)
        return False
