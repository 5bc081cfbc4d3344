"""From a verified slot to a model that runs: pick the runtime, load the artifact, replay the golden samples."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hedgerow.client.errors import InstallError, RejectedError
from hedgerow.client.runtimes import LoadedModel, Runtime, load_runtime
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.errors import DecodeError, ExtraNotInstalledError, UnknownNameError
from hedgerow.weights import decode_arrays

__all__ = ["LoadRuntime", "ReadyModel", "find_runtime", "load_model", "replay_golden"]

_GOLDEN_LIMIT_BYTES = 256 * 2**20

LoadRuntime = Callable[[str], Runtime]


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model in memory, with the slot that it came from."""

    slot: OpenSlot
    model: LoadedModel

    @property
    def release(self) -> str:
        """``name@number``."""
        return self.slot.manifest.release


def find_runtime(name: str, release: str, runtimes: LoadRuntime = load_runtime) -> Runtime:
    """Return the runtime that *release* needs.

    Raises:
        RejectedError: It is unknown here or not installed.
    """
    try:
        return runtimes(name)
    except (UnknownNameError, ExtraNotInstalledError) as exc:
        raise RejectedError(release, f"the runtime {name}", str(exc), "install it or compile for another one") from exc


def load_model(slot: OpenSlot, runtimes: LoadRuntime = load_runtime) -> ReadyModel:
    """Load a slot's artifact.

    Raises:
        RejectedError: Its runtime is unknown here or not installed.
        InstallError: The runtime does not take the file.
    """
    artifact = slot.artifact
    runtime = find_runtime(artifact.runtime, slot.manifest.release, runtimes)
    return ReadyModel(slot, runtime.load(slot.blob(artifact.blob), artifact))


def replay_golden(ready: ReadyModel) -> float | None:
    """Run the golden samples and compare with what the artifact gave when it was built.

    Returns:
        The largest absolute difference, or None when the release has no golden samples.

    Raises:
        InstallError: It is above the artifact's tolerance, or the golden samples do not fit the model.
    """
    slot, artifact = ready.slot, ready.slot.artifact
    if artifact.golden is None:
        return None
    try:
        golden = decode_arrays(
            slot.blob(artifact.golden).read_bytes(), "golden samples", limit_bytes=_GOLDEN_LIMIT_BYTES
        )
    except DecodeError as exc:
        raise InstallError("the golden samples", exc.expected, exc.found, "compile the release again") from exc
    inputs = {name.removeprefix("input."): array for name, array in golden.items() if name.startswith("input.")}
    slot.manifest.model_schema.check_inputs(inputs)
    outputs = ready.model.predict(inputs)
    largest = 0.0
    for name, got in outputs.items():
        want = golden.get(f"output.{name}")
        if want is None or want.shape != got.shape:
            found = "none" if want is None else f"shape {want.shape}"
            raise InstallError("the golden samples", f"{name} of shape {got.shape}", found, "compile the release again")
        difference = np.abs(want.astype(np.float64) - got.astype(np.float64))
        # A NaN is different from everything, also when it was there at build time.
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)))
    if largest > artifact.golden_tolerance:
        raise InstallError(
            "replaying the golden samples",
            f"outputs within {artifact.golden_tolerance:g} of those at build time",
            f"a difference of {largest:g}",
            "this device computes differently; compile with a wider tolerance or for another target",
        )
    return largest
