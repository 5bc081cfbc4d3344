"""A model of two files: what prepares a sample in floats, and what takes the prepared one in integers."""

from collections.abc import Mapping
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
    """

    def __init__(self, first: LoadedModel, second: LoadedModel) -> None:
        self._first, self._second = first, second

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the schema's outputs for a batch of any size."""
        return self._second.predict(self._first.predict(inputs))
