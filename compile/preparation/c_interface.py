"""The C functions that prepare a sample for a model of integers: their names, arguments and header. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow.compile.c_text import c_comment, c_name
from hedgerow.compile.preparation.c_values import C_TYPES
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.schema import TensorSpec

__all__ = ["PREPARE", "PREPARE_HEADER", "PREPARE_SOURCE", "Interface"]

PREPARE = "prepare"
"""What messages call the step that writes C, and the check of what it wrote."""
PREPARE_SOURCE, PREPARE_HEADER = "model_prepare.c", "model_prepare.h"


@dataclass(frozen=True, slots=True)
class Interface:
    """What prepares a sample, from outside.

    Attributes:
        name: Of the model, such as the task's.
        schema: Of the first half: what the task takes, and what its model takes.
        tensors: What the file takes, by the names of the schema's outputs.
    """

    name: str
    schema: ModelSchema
    tensors: Sequence[Tensor]

    @property
    def symbol(self) -> str:
        """What the function is called, such as ``digits_model_prepare``."""
        return f"{c_name(self.name)}_prepare"

    def tensor(self, spec: TensorSpec) -> Tensor:
        """Return the file's tensor for an output of the schema."""
        return next(tensor for tensor in self.tensors if tensor.name == spec.name)

    @property
    def stored_prototype(self) -> str:
        """Of the function that gives what the file stores."""
        given = [_argument(C_TYPES[self.tensor(spec).dtype], spec) for spec in self.schema.outputs]
        return f"void {self.symbol}({', '.join([*self._taken, *given])})"

    @property
    def real_prototype(self) -> str:
        """Of the function that gives real numbers."""
        given = [_argument(C_TYPES[spec.dtype], spec) for spec in self.schema.outputs]
        return f"void {self.symbol}_real({', '.join([*self._taken, *given])})"

    @property
    def _may_miss(self) -> bool:
        return any(spec.missing for spec in self.schema.inputs)

    @property
    def _taken(self) -> list[str]:
        return [_argument(f"const {C_TYPES[spec.dtype]}", spec) for spec in self.schema.inputs]

    @property
    def header(self) -> str:
        """The header."""
        guard = f"HEDGEROW_{self.symbol.upper()}_H_"
        units = "; ".join(f"{spec.name} in {spec.unit_text}" for spec in self.schema.inputs if spec.unit_text)
        absent = "NAN stands for a value that is missing; compile without -ffast-math. " if self._may_miss else ""
        lines = [
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            *c_comment(
                "What the task's pre-processing makes of one sample, as the model's input tensors store it: call it "
                f"before each prediction. {f'Give real numbers: {units}. ' if units else ''}{absent}"
                "Not for two threads at once: its scratch memory is static."
            ),
            f"{self.stored_prototype};",
            "",
            *c_comment("The same as real numbers, before they become the integers of the file."),
            f"{self.real_prototype};",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
        return "\n".join(lines)


def _argument(kind: str, spec: TensorSpec) -> str:
    return f"{kind} {spec.name}[{int(np.prod(spec.shape, dtype=np.int64))}]"
