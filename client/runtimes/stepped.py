"""A file whose state has no batch in front, while its other tensors have one of 1: it takes one step a call. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from hedgerow.client.runtimes.base import LoadedModel
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec

__all__ = ["SteppedModel", "is_stepped"]


def is_stepped(artifact: Artifact, schema: ModelSchema) -> bool:
    """Say whether an artifact's state is whole, and its other inputs are not."""
    state = [spec for spec in schema.inputs if spec.name in schema.state]
    return bool(_without_batch(artifact.inputs, state) and _with_batch(_outer_inputs(artifact), schema.given.inputs))


def _outer_inputs(artifact: Artifact) -> tuple[Tensor, ...]:
    """Return the tensors that take what a caller gives."""
    return artifact.inputs if artifact.prepare is None else artifact.prepare.inputs


def _without_batch(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[str]:
    ranks = {spec.name: len(spec.shape) for spec in specs}
    return [tensor.name for tensor in tensors if ranks.get(tensor.name) == len(tensor.shape)]


def _with_batch(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[str]:
    ranks = {spec.name: len(spec.shape) + 1 for spec in specs}
    return [tensor.name for tensor in tensors if ranks.get(tensor.name) == len(tensor.shape)]


class SteppedModel:
    """Gives the runtime each tensor with exactly the dimensions that the file has, so that it runs row by row.

    Args:
        model: What the runtime loaded.
        artifact: The file.
        schema: Of the release.
    """

    def __init__(self, model: LoadedModel, artifact: Artifact, schema: ModelSchema) -> None:
        self._model = model
        self._taken = frozenset(_with_batch(_outer_inputs(artifact), schema.given.inputs))
        self._given = frozenset(_with_batch(artifact.outputs, schema.given.outputs))

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the schema's outputs for rows, each with the state that *inputs* has for it."""
        outputs = self._model.predict(
            {name: values[:, None] if name in self._taken else values for name, values in inputs.items()}
        )
        return {name: values[:, 0] if name in self._given else values for name, values in outputs.items()}
