"""Where a TFLite file makes a mean squared difference: what a model that rebuilds its input answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as flatbuffer

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.model_schema import ModelSchema

__all__ = ["Squares", "find_squares"]

_OPERATORS = flatbuffer.BuiltinOperator
_OF_SQUARES = frozenset(
    getattr(_OPERATORS, name)
    for name in (
        "EXPAND_DIMS",
        "MEAN",
        "MUL",
        "POW",
        "RESHAPE",
        "SQUARE",
        "SQUEEZE",
        "SUB",
        "SUM",
    )
)
_DIFFERENCE = _OPERATORS.SUB


@dataclass(frozen=True, slots=True)
class Squares:
    """The tensors of mean squared differences.

    Attributes:
        differences: What is squared.
        squares: All from the squares on.
    """

    differences: tuple[str, ...] = ()
    squares: tuple[str, ...] = ()

    @property
    def patterns(self) -> tuple[str, ...]:
        """Regular expressions of the outputs of the operators that make them."""
        return tuple(f"^{re.escape(name)};?$" for name in (*self.differences, *self.squares))

    def widen(self, statistics: Mapping[str, Any], room: float) -> None:
        """Make room in *statistics* for differences that calibration, which is normal, has none of.

        Args:
            statistics: Tensor -> its extremes; changed.
            room: How many times as large the differences may be.
        """
        for names, factor in ((self.differences, room), (self.squares, room**2)):
            for name in names:
                for end in ("min", "max"):
                    if name in statistics:
                        statistics[name][end] = np.asarray(statistics[name][end]) * factor


def find_squares(stage: CompiledModel, schema: ModelSchema) -> Squares:
    """Return the mean squared differences among a file's outputs.

    Args:
        stage: A TFLite file with a signature.
        schema: Says which outputs are such.
    """
    ends = [name for name, output in schema.answers.items() if output.activation == "mean_square"]
    if not ends:
        return Squares()
    model = flatbuffer.ModelT.InitFromPackedBuf(stage.content, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    producers = {output: operator for operator in graph.operators for output in operator.outputs}
    given = {place.name.decode(): place.tensorIndex for place in signature.outputs}
    left = [given[tensor.tensor] for tensor in stage.outputs if tensor.name in ends]
    differences, squares = list[str](), list[str]()
    while left:
        place = left.pop()
        operator = producers.get(place)
        if operator is None or codes[operator.opcodeIndex] not in _OF_SQUARES:
            continue
        name = graph.tensors[place].name.decode()
        if codes[operator.opcodeIndex] == _DIFFERENCE:
            # Before the difference is the model.
            differences += [name] if name not in differences else []
        elif name not in squares:
            squares.append(name)
            left += [source for source in operator.inputs if source >= 0]
    return Squares(tuple(differences), tuple(squares))
