"""Example inputs that exporters trace with."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec

__all__ = ["example_inputs", "file_shape", "one_row"]


def example_inputs(
    schema: ModelSchema, batch: int, dtypes: Mapping[str, str] = MappingProxyType({})
) -> tuple[torch.Tensor, ...]:
    """Return zeros of every input of *schema*: contiguous, because Core ML refuses any other layout.

    Args:
        schema: Names the inputs; state is that of one stream, so a model with state has a batch of 1.
        batch: Samples.
        dtypes: Element type of the schema -> the one to use instead.
    """
    return tuple(
        torch.zeros(file_shape(schema, spec, batch), dtype=getattr(torch, dtypes.get(spec.dtype, spec.dtype)))
        for spec in schema.inputs
    )


def one_row(schema: ModelSchema, inputs: Mapping[str, NDArray[Any]], row: int) -> tuple[torch.Tensor, ...]:
    """Return each input of one row of data as a model takes it, in the order of *schema*."""
    return tuple(
        torch.from_numpy(np.require(inputs[spec.name][row], requirements=["C", "W"])).reshape(
            file_shape(schema, spec, 1)
        )
        for spec in schema.inputs
    )


def file_shape(schema: ModelSchema, spec: TensorSpec, batch: int) -> tuple[int, ...]:
    """Return the shape that a tensor of *schema* has in a file; state is whole, whichever its batch dimension is."""
    if spec.name in schema.state or spec.name in schema.state.values():
        return spec.shape
    return (1 if schema.state else batch, *spec.shape)
