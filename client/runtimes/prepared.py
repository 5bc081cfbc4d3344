"""A model of two files: what prepares a sample in floats, and what takes the prepared one in integers."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from hedgerow.client.runtimes.base import LoadedModel
from hedgerow.manifest.artifact import Artifact

__all__ = ["PreparedModel", "first_half"]


def first_half(artifact: Artifact) -> Artifact | None:
    """Return what prepares samples for *artifact* as an artifact of its own, or None where nothing does."""
    prepare = artifact.prepare
    if prepare is None:
        return None
    return replace(
        artifact, blob=prepare.blob, inputs=prepare.inputs, outputs=prepare.outputs, golden=None, prepare=None
    )


class PreparedModel:
    """Runs one model on what another gives.

    Args:
        first: From the schema's inputs to what is prepared.
        second: From that to the schema's outputs.
        carried: Inputs of the second that go past the first: state.
    """

    def __init__(self, first: LoadedModel, second: LoadedModel, carried: Collection[str] = ()) -> None:
        self._first, self._second, self._carried = first, second, frozenset(carried)

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the schema's outputs for a batch of any size."""
        state = {name: values for name, values in inputs.items() if name in self._carried}
        given = {name: values for name, values in inputs.items() if name not in self._carried}
        return self._second.predict({**self._first.predict(given), **state})
