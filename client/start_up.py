"""What the agent does first: give up on what keeps crashing, load what the pointer says or what can stand in for it."""

import logging
from functools import partial

from hedgerow.client import slots as rules
from hedgerow.client.errors import ClientError, RejectedError, SlotDamagedError, StoppedError
from hedgerow.client.events import Restored
from hedgerow.client.loading import LoadRuntime, ReadyModel, load_model
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.slots import Slot
from hedgerow.client.trial import Trials

__all__ = ["load_active", "rest", "settle"]

_log = logging.getLogger(__name__)


def load_active(
    folders: SlotFolders, runtimes: LoadRuntime, crash_limit: int, trials: Trials, *, wanted: str | None = None
) -> tuple[ReadyModel | None, Restored]:
    """Return the model to serve with, or None, and what became of the slots.

    The start is counted on disk before anything is loaded, so a crash of the runtime itself counts too, against what
    was being tried; :func:`settle` ends the count. A release that was never healthy here is tried in a child process
    first, and so is one with which the agent crashed and that has no stand-in. When the active one cannot be served,
    one that has proved itself takes over, else whatever passes its trial.

    Args:
        folders: The slots.
        runtimes: Finds a runtime by name.
        crash_limit: Starts without :func:`settle` after which a release is given up.
        trials: Tries what has not proved itself.
        wanted: The release that the fleet asked for last; tried first when the pointer is lost.

    Raises:
        StoppedError: The agent is stopping.
    """
    return _StartUp(folders, runtimes, trials).run(crash_limit, wanted)


class _StartUp:
    """One start: what it found out on its way."""

    def __init__(self, folders: SlotFolders, runtimes: LoadRuntime, trials: Trials) -> None:
        self._folders, self._runtimes, self._trials = folders, runtimes, trials
        self._bad: str | None = None
        self._suspect: str | None = None
        self._reason = ""
        self._is_lost = folders.was_rebuilt
        self._damaged: list[Slot] = []

    def run(self, crash_limit: int, wanted: str | None) -> tuple[ReadyModel | None, Restored]:
        folders = self._folders
        self._give_up_what_crashes(crash_limit)
        state = folders.assume(rules.started)
        serves = state.active is not None or folders.was_rebuilt
        found = self._find(wanted) if serves else None
        if found is not None:
            slot, ready = found
            if slot is not state.active:
                folders.assume(partial(rules.swapped, slot=slot))
            _log.info("serving %s", ready.release)
        for damaged in self._damaged:
            if found is None or damaged is not found[0]:
                folders.assume(partial(rules.dropped, slot=damaged))
        state = folders.state
        return found[1] if found else None, Restored(
            found[1].release if found else None,
            state.previous,
            crashed=self._bad,
            reason=self._reason,
            is_lost=self._is_lost or (serves and found is None),
            is_proved=state.is_proved,
        )

    def _give_up_what_crashes(self, limit: int) -> None:
        folders = self._folders
        trial = folders.state.trial
        if trial is not None and rules.must_give_up(folders.state, limit):
            self._blame(trial.release, f"the agent ended {limit} times while {trial.release} was in step {trial.step}")
            folders.assume(rules.given_up)
        if rules.must_fall_back(folders.state, limit):
            bad = str(folders.state.release)
            back = folders.assume(rules.fallen_back).release
            self._blame(bad, f"the agent crashed {limit} times with {bad} and fell back to {back or 'no release'}")
        elif folders.state.active is not None and folders.state.starts >= limit:
            # It has proved itself, and nothing else has; so it stays, but may not end another start before it is tried.
            self._suspect = folders.state.release
            _log.error("the agent crashed %d times with %s, and has nothing to fall back to", limit, self._suspect)

    def _blame(self, release: str, reason: str) -> None:
        self._bad, self._reason = release, reason
        _log.error("%s", reason)

    def _find(self, wanted: str | None) -> tuple[Slot, ReadyModel] | None:
        """Return the first that can be served: what runs, what has proved itself, then what passes a trial."""
        state = self._folders.state
        first = [slot for slot in (state.active, state.previous_slot) if slot is not None]
        for slot in first:
            if (ready := self._load(slot)) is not None:
                return slot, ready
        for slot in first:
            content = state.contents[slot]
            is_enough = slot in self._damaged and content.was_healthy and content.release != self._suspect
            if is_enough and (ready := self._load_what_serving_needs(slot)) is not None:
                return slot, ready

        def rank(slot: Slot) -> tuple[bool, int]:
            release = state.contents[slot].release
            return release != wanted, -int(release.rpartition("@")[2])

        for slot in sorted(set(state.contents) - set(first), key=rank):
            if (ready := self._load(slot)) is not None:
                return slot, ready
        return None

    def _load(self, slot: Slot) -> ReadyModel | None:
        folders = self._folders
        content = folders.state.contents[slot]
        try:
            opened = folders.open(slot)
            # What was healthy may crash by now, as after a change of the runtime; an agent that lives can be helped.
            if not content.was_healthy or content.release == self._suspect:
                self._trials.model(opened)
            return load_model(opened, self._runtimes)
        except StoppedError:
            raise
        except SlotDamagedError as exc:
            _log.error("%s cannot be served: %s", content.release, exc)
            self._is_lost = True
            self._damaged.append(slot)
        except ClientError as exc:
            _log.error("%s cannot be served: %s", content.release, exc)
            # One that ran here before is not thrown away: it is the device that has changed.
            self._is_lost = True
            is_final = isinstance(exc, RejectedError)
            if is_final and (not content.was_healthy or content.release == self._suspect):
                self._bad, self._reason = content.release, str(exc)
            if is_final and not content.was_healthy:
                self._damaged.append(slot)
        return None

    def _load_what_serving_needs(self, slot: Slot) -> ReadyModel | None:
        """Return a release that is damaged only where serving does not need it, or None."""
        try:
            ready = load_model(self._folders.open(slot, must_be_whole=False), self._runtimes)
        except ClientError:
            return None
        _log.warning("%s is served although its golden samples or its train graph are damaged", ready.release)
        return ready


def settle(folders: SlotFolders, release: str | None) -> None:
    """Note that *release*, if it is still the active one, was healthy for a whole health period."""
    folders.assume(lambda state: rules.committed(state) if state.release == release else state)


def rest(folders: SlotFolders) -> None:
    """Note that the agent stops in order: no start before counts as a crash, and nothing has proved itself by that."""
    folders.assume(rules.rested)
