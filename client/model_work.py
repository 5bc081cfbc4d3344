"""What the agent does with models in the threads of its jobs: install, fall back, compare.

Each returns the event that tells the agent's loop how it ended. One of them changes what serves at a time.
"""

import logging
import time
from collections.abc import Callable

from hedgerow.client import slots as rules
from hedgerow.client.errors import ClientError, RejectedError, SlotDamagedError, StoppedError
from hedgerow.client.events import Event, Installed, InstallFailed, StepEntered
from hedgerow.client.health import Health, Part
from hedgerow.client.install import Installer
from hedgerow.client.loading import LoadRuntime, ReadyModel, load_model
from hedgerow.client.serving import ActiveModel
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.slots import Slot

__all__ = ["ModelWork"]

_log = logging.getLogger(__name__)


class ModelWork:
    """Puts models to work.

    Args:
        slots: The places of releases on disk.
        installer: Brings new ones.
        active: What serves.
        runtimes: Finds a runtime by name.
        health: Is told what works and what does not.
        report: Gets what happens on the way.

    Attributes:
        ready: The model that serves, or None.
    """

    def __init__(
        self,
        slots: SlotFolders,
        installer: Installer,
        active: ActiveModel,
        runtimes: LoadRuntime,
        health: Health,
        report: Callable[[Event], None],
    ) -> None:
        self._slots, self._installer, self._active = slots, installer, active
        self._runtimes, self._health, self._report = runtimes, health, report
        self.ready: ReadyModel | None = None

    def activate(self, ready: ReadyModel | None) -> None:
        """Serve with *ready* from now on; None: serve nothing."""
        self.ready = ready
        self._active.activate(ready)

    def failing(self, release: str | None) -> str | None:
        """Return why the model that serves is not healthy: it fails on more than it answers; None: it is."""
        answers = self.ready.answers if self.ready is not None else None
        if answers is None or answers.failed <= answers.given:
            return None
        total = answers.failed + answers.given
        return f"expected answers from {release}, found that {answers.failed} of {total} failed ({answers.reason})"

    def install(self, release: str | None) -> Event | None:
        """Install *release* and put it to work; None: serve nothing from now on."""
        slots = self._slots
        try:
            if release is None:
                self.activate(None)
                slots.assume(rules.cleared)
            else:
                _log.info("installing %s", release)
                started = time.monotonic()
                self._installer.install(
                    release, enter=lambda step: self._report(StepEntered(step.value)), activate=self.activate
                )
                _log.info("installed %s in %.2f s", release, time.monotonic() - started)
        except StoppedError:
            return None
        except Exception as exc:  # noqa: BLE001 - the thread's outermost step
            is_known = isinstance(exc, ClientError)
            # Whatever an artifact does to a runtime must not end the agent.
            _log.error("installing %s failed: %s", release, exc, exc_info=not is_known)
            reason = str(exc) if is_known else f"{type(exc).__name__}: {exc}"
            is_final = isinstance(exc, RejectedError)
            state = slots.state
            return InstallFailed(reason, is_final, self._active.release, state.previous, is_proved=state.is_proved)
        return Installed(self._active.release, slots.state.previous)

    def fall_back(self, reason: str) -> Event:
        """Give the active release up for one that has proved itself, or for none."""
        slots = self._slots
        bad, state = slots.state.release, slots.assume(rules.fallen_back)
        _log.error("%s; back to %s", reason, state.release or "no release")
        ready = None
        if state.active is not None:
            try:
                ready = self._whole_or_enough(state.active)
            except ClientError as exc:
                _log.error("%s cannot be served: %s", state.release, exc)
        self.activate(ready)
        return InstallFailed(f"{bad} is refused: {reason}", True, self._active.release, state.previous)

    def _whole_or_enough(self, slot: Slot) -> ReadyModel:
        """Return the model in *slot*, also where what serving does not need is damaged."""
        try:
            return load_model(self._slots.open(slot), self._runtimes)
        except SlotDamagedError as exc:
            ready = load_model(self._slots.open(slot, must_be_whole=False), self._runtimes)
            _log.warning("%s is served although: %s", ready.release, exc)
            return ready

    def compare(self, ready: ReadyModel | None, *, is_wanted: bool) -> None:
        """Load the model before beside the active one, or let go of it."""
        shadow, previous = None, self._slots.state.previous_slot
        if ready is None:
            return
        if is_wanted and previous is not None:
            try:
                slot = self._slots.open(previous)
                now, before = ready.slot.manifest.model_schema, slot.manifest.model_schema
                if now.given.inputs == before.given.inputs and now.answers.is_like(before.answers):
                    shadow = load_model(slot, self._runtimes)
                else:
                    what = "outputs" if now.given.inputs == before.given.inputs else "inputs"
                    _log.warning("%s has other %s than the release before; not compared", ready.release, what)
            except Exception as exc:  # noqa: BLE001 - it is noted; comparing is worth no more than that
                self._health.failed(Part.COMPARISON, exc)
                return
        self._active.compare(ready, shadow)
