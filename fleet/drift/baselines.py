"""What the world looked like when a release was trained on devices: one picture for the release, one for each device.

The data never left the devices, but their windows are counts in the bins of the release before, which the new release
keeps. That picture becomes normal only once the release has proven itself on labelled samples: a world in which the
new model fails too is not normal because it was trained there. Until then the picture of the release before stays.
Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

from hedgerow.features import is_output_feature
from hedgerow.fleet.drift.findings import OUT_OF_RANGE, counts_of
from hedgerow.fleet.records import StoredWindow
from hedgerow.reference import MISSING, Reference
from hedgerow.window import Window, merge_windows

__all__ = [
    "Baseline",
    "Baselines",
    "device_baselines",
    "grown_baseline",
    "normal_before",
    "reference_counts",
    "without_outputs",
]

Baseline = Mapping[str, Sequence[int]]
"""Feature -> counts, as :func:`hedgerow.fleet.drift.findings.counts_of` names them."""

Baselines = Mapping[str, Baseline]
"""Device -> its baseline."""


def _merged(windows: Sequence[StoredWindow], since: float) -> dict[str, Window]:
    """Return each device's windows since a time, added up; of a device without any, the last one before."""
    found: dict[str, list[Window]] = {}
    last: dict[str, Window] = {}
    for stored in windows:
        last[stored.device] = stored.window
        if stored.received_at >= since:
            found.setdefault(stored.device, []).append(stored.window)
    return {device: reduce(merge_windows, found.get(device, [last[device]])) for device in sorted(last)}


def device_baselines(windows: Sequence[StoredWindow], since: float) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return what each device saw of the world: device -> feature -> counts, without the model's outputs.

    A release that was trained in a world that differs from device to device cannot be compared with one reference for
    all; each device is compared with its own. Outputs are left out: they were the model's before.
    """
    baselines = {}
    for device, window in _merged(windows, since).items():
        baselines[device] = {
            name: counts
            for name, counts in counts_of(window).items()
            if name == OUT_OF_RANGE or not is_output_feature(name.removeprefix(MISSING))
        }
    return baselines


def reference_counts(windows: Sequence[StoredWindow], since: float) -> dict[str, tuple[int, ...]]:
    """Return what the fleet saw of the world, in the bins of the release: input feature -> counts.

    Where values were missing, ``missing:<feature>`` says how many were present and missing.
    """
    merged = list(_merged(windows, since).values())
    if not merged:
        return {}
    whole = reduce(merge_windows, merged)
    seen = {name: feature for name, feature in whole.features.items() if not is_output_feature(name)}
    missing = {MISSING + name: (whole.samples - f.missing, f.missing) for name, f in seen.items() if f.missing}
    return {**{name: feature.counts for name, feature in seen.items()}, **missing}


def normal_before(reference: Reference, before: Reference) -> Reference:
    """Return what a release that has not proven itself is compared with.

    Args:
        reference: The release's own: its inputs are what the fleet saw when it was trained, its outputs the model's.
        before: What its parent is compared with.

    Returns:
        *reference* with the inputs of *before*, where both have the same bins.
    """
    earlier = {feature.name: feature for feature in before.features}
    return Reference(
        tuple(
            replace(feature, counts=earlier[feature.name].counts, missing=earlier[feature.name].missing)
            if not is_output_feature(feature.name)
            and feature.name in earlier
            and earlier[feature.name].edges == feature.edges
            else feature
            for feature in reference.features
        )
    )


def without_outputs(baselines: Baselines) -> dict[str, dict[str, Sequence[int]]]:
    """Return baselines without what a model answered; of another model it says nothing."""
    return {
        device: {n: counts for n, counts in own.items() if not is_output_feature(n.removeprefix(MISSING))}
        for device, own in baselines.items()
    }


def grown_baseline(own: Baseline, window: Window, samples: int) -> dict[str, tuple[int, ...]]:
    """Return a device's baseline with a window added where it holds fewer than *samples* values yet.

    What a retrained model answers on a device is not known before it runs there: in a world that has moved it may well
    be less sure of itself than on the training side, and still right. So its outputs are first counted on the device,
    in the windows that the rollout's gate judges it by, and compared with that from then on. A device that joined
    later begins like this with its inputs too.
    """
    grown = {name: tuple(counts) for name, counts in own.items()}
    for name, counts in counts_of(window).items():
        before = grown.get(name)
        if before is None:
            grown[name] = counts
        elif sum(before) < samples and len(before) == len(counts):
            grown[name] = tuple(a + b for a, b in zip(before, counts, strict=True))
    return grown
