"""Outputs as they stand in a release: their kind, their weight, and what the kind adds."""

from dataclasses import replace
from typing import Any

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.outputs.classes import Classes
from hedgerow.outputs.custom import Custom
from hedgerow.outputs.labels import Labels
from hedgerow.outputs.output import Output
from hedgerow.outputs.reconstruction import Reconstruction
from hedgerow.outputs.tokens import Tokens
from hedgerow.outputs.values import Values

__all__ = ["KINDS", "output_from_fields", "output_to_record"]

KINDS: dict[str, type[Output]] = {kind.kind: kind for kind in (Classes, Labels, Values, Reconstruction, Tokens, Custom)}
"""Every kind of output by its name."""

_GREATEST_WEIGHT = 1e6


def output_to_record(output: Output) -> dict[str, Any]:
    """Return an output as plain JSON values."""
    return {"kind": output.kind, "weight": output.weight, **output.to_record()}


def output_from_fields(fields: Fields) -> Output:
    """Decode an output.

    Raises:
        DecodeError: A field is absent, unknown or out of bounds, or they contradict each other.
    """
    kind = fields.choice("kind", KINDS)
    weight = fields.number("weight", minimum=0, maximum=_GREATEST_WEIGHT)
    output = replace(kind.from_fields(fields), weight=weight)
    fields.finish()
    if mistakes := [*output.mistakes(), *weight_mistakes(output)]:
        raise DecodeError(fields.where, f"an output of the kind {output.kind}", mistakes[0])
    return output


def weight_mistakes(output: Output) -> list[str]:
    """Return what is wrong with the weight of an output."""
    weight = output.weight
    if isinstance(weight, int | float) and 0 < weight <= _GREATEST_WEIGHT:
        return []
    return [f"its weight must be a number above 0, at most {_GREATEST_WEIGHT:g}, found {weight!r}"]
