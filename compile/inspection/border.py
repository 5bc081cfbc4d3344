"""The border of a file: its inputs and outputs as the file itself names them, with no runtime loaded."""

from typing import Any

from hedgerow.compile.cmsis_nn import KernelCall
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import QUANTIZED_TYPES, Tensor

__all__ = ["Border", "custom_operators", "given_by", "read_border", "read_calls", "read_outline"]

Border = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Inputs and outputs, in the file's order."""

_NO_NUMBERS = frozenset({"string", "resource", "variant", "unknown"})


def read_border(kind: str, content: bytes) -> Border:
    """Return inputs and outputs of a file under its own names.

    Args:
        kind: ``onnx`` or ``tflite``.
        content: The file.

    Returns:
        Outputs that are no tensors of numbers are left out; see :func:`read_outline`.

    Raises:
        DecodeError: The bytes are no such file, two of its tensors have one name, an input is no tensor of numbers, or
            no output is.
    """
    return read_outline(kind, content)[0]


def read_outline(kind: str, content: bytes) -> tuple[Border, tuple[str, ...]]:
    """Return the border of a file, and one sentence for each output that no schema holds.

    The arguments and errors are those of :func:`read_border`.
    """
    inputs, outputs, left_out = _of_onnx(content) if kind == "onnx" else _of_tflite(content)
    for what, tensors in (("inputs", inputs), ("outputs", outputs)):
        names = [tensor.tensor for tensor in tensors]
        if not names or len(set(names)) != len(names):
            raise DecodeError(kind, f"{what} with names that differ", ", ".join(map(repr, names)) or "none")
    return (inputs, outputs), left_out


def _of_onnx(content: bytes) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[str, ...]]:
    from hedgerow.compile.inspection.onnx.border import border_values

    inputs, outputs, left_out = border_values(content)
    return tuple(Tensor(*each) for each in inputs), tuple(Tensor(*each) for each in outputs), left_out


def _of_tflite(content: bytes) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[str, ...]]:
    from hedgerow.compile.inspection.tflite.parsing import parse_tflite

    file = parse_tflite(content)
    names: dict[int, str] = {}
    # Where there is a signature, runtimes know the tensors by its names.
    for signature in file.signatures[:1]:
        if signature.subgraphIndex != 0:
            found = f"{_text(signature.signatureKey)!r} of subgraph {signature.subgraphIndex}"
            raise DecodeError("tflite", "a first signature of the main graph, which is what is run", found)
        for entry in (*(signature.inputs or ()), *(signature.outputs or ())):
            names[entry.tensorIndex] = _text(entry.name)
    graph = file.graphs[0]
    inputs, outputs = (
        tuple(_tflite_tensor(graph.tensors[index], names.get(index)) for index in _present(places))
        for places in (graph.inputs, graph.outputs)
    )
    for tensor in inputs:
        if tensor.dtype in _NO_NUMBERS:
            raise DecodeError("tflite", f"a tensor of numbers as the input {tensor.tensor!r}", f"one of {tensor.dtype}")
    kept = tuple(tensor for tensor in outputs if tensor.dtype not in _NO_NUMBERS)
    left_out = tuple(f"the output {t.tensor!r} is one of {t.dtype}" for t in outputs if t.dtype in _NO_NUMBERS)
    if left_out and not kept:
        raise DecodeError("tflite", "an output that is a tensor of numbers", "; ".join(left_out))
    return inputs, kept, left_out


def _present(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _text(name: bytes | None) -> str:
    return name.decode("utf-8", "replace") if name else ""


def _tflite_tensor(tensor: Any, name: str | None) -> Tensor:
    from hedgerow.compile.inspection.tflite.file import type_name

    shape = _present(tensor.shape)
    signature = _present(tensor.shapeSignature)
    # The size that stands for an open dimension means nothing, but that of the batch, which is 1.
    if len(signature) == len(shape):
        marked = enumerate(zip(shape, signature, strict=True))
        shape = [-1 if place and mark < 0 else size for place, (size, mark) in marked]
    scales = [] if tensor.quantization is None or tensor.quantization.scale is None else list(tensor.quantization.scale)
    points = [] if tensor.quantization is None else _present(tensor.quantization.zeroPoint)
    dtype = type_name(tensor.type)
    called = _text(tensor.name) if name is None else name
    if len(scales) > 1 and dtype in QUANTIZED_TYPES:
        raise DecodeError("tflite", f"one scale of the whole tensor {called!r}, which callers fill", str(len(scales)))
    # Converters note a scale beside float tensors, too; nothing is stored by it.
    scale = float(scales[0]) if len(scales) == 1 and scales[0] and dtype in QUANTIZED_TYPES else None
    point = points[0] if scale is not None and points else 0
    return Tensor(called, called, tuple(shape), dtype, scale, point)


def read_calls(content: bytes) -> tuple[KernelCall, ...]:
    """Return every operator of a TFLite file's main graph, with what CMSIS-NN's formulas need.

    Raises:
        DecodeError: The bytes are no TFLite file.
    """
    from hedgerow.compile.inspection.tflite.file import type_name
    from hedgerow.compile.inspection.tflite.parsing import parse_tflite

    file = parse_tflite(content)
    graph = file.graphs[0]
    calls = []
    for operator in graph.operators:
        inputs = [graph.tensors[index] if index >= 0 else None for index in _present(operator.inputs)]
        outputs = [graph.tensors[index] for index in _present(operator.outputs) if index >= 0]
        first, weights = inputs[0] if inputs else None, inputs[1] if len(inputs) > 1 else None
        options = operator.builtinOptions
        scales = weights.quantization.scale if weights is not None and weights.quantization is not None else None
        calls.append(
            KernelCall(
                operator=file.operators[operator.opcodeIndex],
                number_type=type_name(first.type) if first is not None else "",
                weight_type=type_name(weights.type) if weights is not None else "",
                taken=tuple(_present(first.shape)) if first is not None else (),
                weights=tuple(_present(weights.shape)) if weights is not None else (),
                given=tuple(_present(outputs[0].shape)) if outputs else (),
                is_dilated=max(getattr(options, "dilationWFactor", 1), getattr(options, "dilationHFactor", 1)) > 1,
                is_per_channel=scales is not None and len(scales) > 1,
            )
        )
    return tuple(calls)


def custom_operators(content: bytes) -> tuple[str, ...]:
    """Return the names of a TFLite file's operators that are not TFLite's own, in the file's order.

    Raises:
        DecodeError: The bytes are no TFLite file.
    """
    from hedgerow.compile.inspection.tflite.file import OPERATORS
    from hedgerow.compile.inspection.tflite.parsing import parse_tflite

    return tuple(dict.fromkeys(name for name in parse_tflite(content).operators if name not in OPERATORS))


def given_by(content: bytes, number: int, operator: str) -> str:
    """Return the name of what an operator of a TFLite file gives.

    Args:
        content: The file.
        number: Place of the operator in its graph; of several graphs the first that has *operator* there counts.
        operator: Its name.

    Returns:
        The name of its first output; empty where there is no such operator, or it gives nothing with a name.

    Raises:
        DecodeError: The bytes are no TFLite file.
    """
    from hedgerow.compile.inspection.tflite.parsing import parse_tflite

    file = parse_tflite(content)
    for graph in file.graphs:
        if number < len(graph.operators) and file.operators[graph.operators[number].opcodeIndex] == operator:
            return next((_text(graph.tensors[index].name) for index in _present(graph.operators[number].outputs)), "")
    return ""
