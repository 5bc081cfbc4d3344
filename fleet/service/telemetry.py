"""Takes windows in: checks them against their release, keeps them once, adds them up, feeds gates, drift and scores.

Runs in the service's thread, inside its transactions.
"""

import logging
import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hedgerow.fleet.drift import alerts, scores
from hedgerow.fleet.drift.alerts import DriftState, observe
from hedgerow.fleet.drift.baselines import Baselines, grown_baseline, normal_before, without_outputs
from hedgerow.fleet.drift.findings import DriftPlan
from hedgerow.fleet.drift.scores import ScoreState, observe_score
from hedgerow.fleet.errors import UnknownReleaseError
from hedgerow.fleet.registry import Device
from hedgerow.fleet.rollout.floors import floor_of
from hedgerow.fleet.rollout.gates import GatePlan, measurement_alpha
from hedgerow.fleet.rollout.state import Rollout, RolloutState, exposed
from hedgerow.fleet.service.after_commit import AfterCommit
from hedgerow.fleet.service.events import AlertChanged, ReleaseProven, WindowArrived
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.writing import Store
from hedgerow.fleet.trust.catalogue import Catalogue
from hedgerow.reference import Reference
from hedgerow.window import Window
from hedgerow.wire.telemetry import Telemetry

__all__ = ["TelemetryIntake", "is_older", "on_our_clock", "period_of"]

_log = logging.getLogger(__name__)
_LATEST_S, _EARLIEST_S = 300.0, 7 * 86400.0
_CLOCKS_DIFFER_S = 60.0


def period_of(window: Window, received_at: float, length_s: float) -> int:
    """Return the number of the period that a window belongs to.

    A device's clock counts when it is plausible: at most five minutes ahead, and a week of spooling behind. Otherwise
    the time of arrival counts, since a device without a clock starts in 1970.
    """
    return int((window.ended_at if _has_plausible_clock(window, received_at) else received_at) // length_s)


def is_older(window: Window, received_at: float, than: float) -> bool:
    """Return whether a window began before a moment, by more than clocks differ; by a plausible clock, see above.

    What a device counted before it was given a release (again), or before a change, is no evidence about the time
    after; it may come late, out of the device's spool.
    """
    return _has_plausible_clock(window, received_at) and window.started_at < than - _CLOCKS_DIFFER_S


def on_our_clock(window: Window, received_at: float) -> Window:
    """Return a window whose times can be compared with ours: as they are by a plausible clock, else as if just cut."""
    if _has_plausible_clock(window, received_at):
        return window
    length_s = max(0.0, window.ended_at - window.started_at)
    return replace(window, started_at=max(0.0, received_at - length_s), ended_at=received_at)


def _has_plausible_clock(window: Window, received_at: float) -> bool:
    return received_at - _EARLIEST_S <= window.ended_at <= received_at + _LATEST_S


class TelemetryIntake:
    """What happens to a window.

    Args:
        store: Where it goes.
        catalogue: The signed releases.
        settings: How many windows are kept, and what is drift.
    """

    def __init__(self, store: Store, catalogue: Catalogue, settings: FleetSettings) -> None:
        self._store, self._catalogue, self._settings = store, catalogue, settings
        self._references: dict[str, Reference] = {}
        # Of the release that is watched now; two at a time only while devices change over.
        self._drift: dict[str, DriftState] = {}
        self._scores: dict[str, ScoreState] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._plan = DriftPlan.by(settings)

    def reload(self) -> None:
        """Load from the store again on next use; call it when a transaction was rolled back."""
        self._drift, self._scores, self._rollouts = {}, {}, {}

    def forget_device(self, name: str) -> None:
        """Leave a device out of all that is watched from now on."""
        for release in self._store.watched_releases():
            drift, score = self._store.drift_state(release), self._store.score_state(release)
            if drift is not None:
                self._store.save_drift_state(alerts.forget_device(drift, name), drift)
            if score is not None:
                self._store.save_score_state(scores.forget_device(score, name), score)
        self.reload()

    def take(
        self, device: Device, message: Telemetry, unfinished: Mapping[str, Rollout], now: float, then: AfterCommit
    ) -> str | None:
        """Take one window.

        Returns:
            The rollout whose gate has new evidence, if any.
        """
        window = message.window
        reference = self._reference(window.release)
        if reference is None or not _fits(window, reference):
            _log.warning("a window of %s for %s does not fit that release and is dropped", device.name, window.release)
            return None
        if not self._store.add_window(device.name, message, now, keep=self._settings.recent_windows):
            return None
        period = period_of(window, now, self._settings.merge_period_s)
        for slice_name in ("fleet", f"target:{device.target}"):
            self._store.add_to_merged(slice_name, period, window)
        then.events.append(WindowArrived(device.name, window))
        self._grow_baseline(device, window)
        for rollout in unfinished.values():
            if rollout.release == window.release and device.name in exposed(rollout):
                execution = rollout.executions[device.name]
                if execution.started_at is not None and is_older(window, now, execution.started_at):
                    _log.warning(
                        "a window of %s is older than its installation of %s by its clock; it is no evidence",
                        device.name,
                        window.release,
                    )
                    return None
                self._store.add_to_gate(rollout.id, execution.stage, window)
                return rollout.id if execution.stage == rollout.stage else None
        last = self._last_rollout(window.release)
        if last is None or last.state is RolloutState.FINISHED:
            # The fleet has made up its mind for the release: a candidate is the gate's, a bad one is nobody's.
            self._watch(device, window, reference, now, then)
            if last is None or not is_older(window, now, last.created_at):
                self._watch_score(device, window, last, now, then)
        return None

    def _reference(self, release: str) -> Reference | None:
        if release not in self._references:
            try:
                self._references[release] = self._catalogue.reference(release)
            except UnknownReleaseError:
                return None
        return self._references[release]

    def _grow_baseline(self, device: Device, window: Window) -> None:
        """Only of a release that was trained on devices: the others are compared with their reference.

        And only from windows by which its gate judges it, or after it has proven itself: what a model answers while
        nobody knows whether it is right is no picture of anything.
        """
        if not self._store.has_baselines(window.release):
            return
        last = self._last_rollout(window.release)
        is_gated = last is not None and last.plan.gate is not None
        if not is_gated and not self._store.is_proven(window.release):
            return
        own = self._store.baselines(window.release).get(device.name, {})
        grown = grown_baseline(own, window, self._settings.baseline_samples)
        if grown != own:
            self._store.save_baseline(window.release, device.name, grown)

    def _last_rollout(self, release: str) -> Rollout | None:
        """Return the latest rollout of a release, without its executions."""
        found = self._store.last_rollout_state(release)
        if found is None:
            return None
        known = self._rollouts.get(release)
        if known is None or (known.id, known.state.value) != found:
            known = self._store.last_rollout_of(release)
            if known is not None:
                self._rollouts[release] = known
        return known

    def _normal(self, release: str, reference: Reference) -> tuple[Reference, Baselines]:
        """Return what the world is compared with under a release."""
        if not self._store.has_baselines(release) or self._store.is_proven(release):
            return reference, self._store.baselines(release)
        parent = self._catalogue.manifest(release).lineage.parent
        before = self._reference(parent) if parent is not None else None
        if parent is None or before is None:
            return reference, {}
        normal, baselines = self._normal(parent, before)
        return normal_before(reference, normal), without_outputs(baselines)

    def _watch(self, device: Device, window: Window, reference: Reference, now: float, then: AfterCommit) -> None:
        if device.target is None:
            return
        saved = self._drift.get(window.release) or self._store.drift_state(window.release)
        state = saved or DriftState(release=window.release)
        # Of the window alone, so that the order in which windows arrive decides nothing random.
        rng = np.random.default_rng([self._settings.seed, zlib.crc32(device.name.encode()), window.index])
        normal, baselines = self._normal(window.release, reference)
        dated = on_our_clock(window, now)
        after, raised = observe(state, normal, device.name, device.target, dated, self._plan, rng, baselines)
        self._store.save_drift_state(after, saved)
        self._drift = {window.release: after}
        for alert in raised:
            self._store.save_alert(alert, now)
            then.events.append(AlertChanged(alert, is_new=state.open is None))

    def _watch_score(
        self, device: Device, window: Window, rollout: Rollout | None, now: float, then: AfterCommit
    ) -> None:
        if window.scores.samples == 0:
            return
        gate = (rollout.plan.gate if rollout is not None else None) or GatePlan()
        manifest = self._catalogue.manifest(window.release)
        targets = {"fleet": [artifact.target for artifact in manifest.artifacts]}
        if device.target is not None:
            targets[f"device:{device.name}"] = [device.target]
        margin, alpha = gate.maximum_accuracy_drop, measurement_alpha(gate)
        found = {name: floor_of(manifest, names, gate.floor, margin, alpha) for name, names in targets.items()}
        floors = {name: floor for name, floor in found.items() if floor is not None}
        saved = self._scores.get(window.release) or self._store.score_state(window.release)
        state = saved or ScoreState(release=window.release)
        after, alert, proof = observe_score(
            state,
            device.name,
            on_our_clock(window, now),
            floors,
            self._settings.score_alpha,
            manifest.model_schema.answers,
        )
        self._store.save_score_state(after, saved)
        self._scores = {window.release: after}
        if alert is not None:
            self._store.save_alert(alert, now)
            then.events.append(AlertChanged(alert, is_new=state.open is None))
        if proof is not None and self._store.save_proof(window.release, now, proof):
            then.events.append(ReleaseProven(window.release, proof))


def _fits(window: Window, reference: Reference) -> bool:
    """Whether a window has the bins of the reference; one that has not could never be added to the others."""
    lengths = {feature.name: len(feature.counts) for feature in reference.features}
    return {name: len(feature.counts) for name, feature in window.features.items()} == lengths
