"""Example inputs that exporters trace with."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from hedgerow.schema import ModelSchema

__all__ = ["example_inputs"]


def example_inputs(
    schema: ModelSchema, batch: int, dtypes: Mapping[str, str] = MappingProxyType({})
) -> tuple[torch.Tensor, ...]:
    """Return zeros of every input of *schema*: contiguous, because Core ML refuses any other layout.

    Args:
        schema: Names the inputs.
        batch: Samples.
        dtypes: Element type of the schema -> the one to use instead.
    """
    return tuple(
        torch.zeros((batch, *spec.shape), dtype=getattr(torch, dtypes.get(spec.dtype, spec.dtype)))
        for spec in schema.inputs
    )
