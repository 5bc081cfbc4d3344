"""TFLite files of a few operators, written straight into the flatbuffer: what no converter would write, too."""

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from numpy.typing import NDArray

__all__ = ["Graph", "TfliteModel"]

_NARROW = 127
"""Largest code of an operator that fits the field of old files."""


class Graph:
    """One subgraph of a file that is being written.

    Args:
        model: The file.
        name: Of the subgraph.
    """

    def __init__(self, model: "TfliteModel", name: str) -> None:
        self._model = model
        self.record = schema.SubGraphT()
        self.record.name, self.record.tensors, self.record.operators = name, [], []
        self.record.inputs, self.record.outputs = [], []

    def tensor(
        self,
        kind: str,
        shape: Sequence[int],
        *,
        data: NDArray[Any] | bytes | None = None,
        scale: float | Sequence[float] | None = None,
        zero_point: int = 0,
        axis: int = 0,
        is_variable: bool = False,
    ) -> int:
        """Add a tensor and return its place.

        Args:
            kind: Element type in TFLite's own name, such as ``INT8``.
            shape: Of it.
            data: What it holds, for a constant.
            scale: Of a quantized tensor; several: one for each place along *axis*.
            zero_point: Of a quantized tensor.
            axis: See *scale*.
            is_variable: Whether it keeps its values from one call to the next.
        """
        tensor = schema.TensorT()
        tensor.name = f"{self.record.name}/{len(self.record.tensors)}"
        tensor.shape, tensor.type = list(shape), getattr(schema.TensorType, kind)
        tensor.buffer, tensor.isVariable = self._model.buffer(data), is_variable
        if scale is not None:
            scales = [float(scale)] if isinstance(scale, int | float) else [float(each) for each in scale]
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = [zero_point] * len(scales)
            tensor.quantization.quantizedDimension = axis
        self.record.tensors.append(tensor)
        return len(self.record.tensors) - 1

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 1,
        options: str = "",
        fields: Mapping[str, Any] | None = None,
        intermediates: Sequence[int] = (),
    ) -> None:
        """Add an operator.

        Args:
            name: TFLite's own, or that of a custom operator.
            inputs: Places of tensors; -1: left out.
            outputs: Likewise.
            version: Of the operator.
            options: Name of the table of its options, such as ``Conv2DOptions``; empty: it has none. A custom operator
                has its *fields* as a flexbuffer.
            fields: What stands in it.
            intermediates: Places of tensors whose scales belong to values inside the operator.
        """
        operator = schema.OperatorT()
        operator.intermediates = list(intermediates)
        operator.opcodeIndex = self._model.code(name, version)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options:
            table = getattr(schema, f"{options}T")()
            for key, value in (fields or {}).items():
                if not hasattr(table, key):
                    raise AttributeError(f"{options} has no {key}")
                setattr(table, key, value)
            if hasattr(schema.BuiltinOptions, options):
                operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
                operator.builtinOptions = table
            else:
                operator.builtinOptions2Type = getattr(schema.BuiltinOptions2, options)
                operator.builtinOptions2 = table
        elif fields is not None:
            operator.customOptions = list(bytes(flexbuffers.Dumps(dict(fields))))
        self.record.operators.append(operator)


class TfliteModel:
    """A file that is being written. Its first graph is the main one."""

    def __init__(self) -> None:
        # Buffer 0 is the empty one, by convention.
        self._buffers = [schema.BufferT()]
        self._codes: dict[tuple[str, int], int] = {}
        self._graphs: list[Graph] = []

    def graph(self, name: str = "main") -> Graph:
        """Add a subgraph and return it."""
        self._graphs.append(Graph(self, name))
        return self._graphs[-1]

    def buffer(self, data: NDArray[Any] | bytes | None) -> int:
        """Add a constant and return the place of its bytes; without *data* it is the empty buffer."""
        if data is None:
            return 0
        buffer = schema.BufferT()
        content = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        buffer.data = np.frombuffer(content, np.uint8)
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def code(self, name: str, version: int) -> int:
        """Return the place of an operator's code."""
        return self._codes.setdefault((name, version), len(self._codes))

    def content(self) -> bytes:
        """Return the file."""
        model = schema.ModelT()
        model.version, model.buffers, model.operatorCodes = 3, self._buffers, []
        for name, version in self._codes:
            code = schema.OperatorCodeT()
            own = getattr(schema.BuiltinOperator, name, None)
            code.builtinCode = schema.BuiltinOperator.CUSTOM if own is None else own
            code.deprecatedBuiltinCode = min(code.builtinCode, _NARROW)
            code.customCode = name if own is None else None
            code.version = version
            model.operatorCodes.append(code)
        model.subgraphs = [graph.record for graph in self._graphs]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
