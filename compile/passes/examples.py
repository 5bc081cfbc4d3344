"""Example inputs that exporters trace with."""

import torch

from hedgerow.schema import ModelSchema

__all__ = ["example_inputs"]


def example_inputs(schema: ModelSchema, batch: int) -> tuple[torch.Tensor, ...]:
    """Return zeros of every input of *schema*: contiguous, because Core ML refuses any other layout."""
    return tuple(torch.zeros((batch, *spec.shape), dtype=getattr(torch, spec.dtype)) for spec in schema.inputs)
