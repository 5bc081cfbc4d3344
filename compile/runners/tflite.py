"""Run a TFLite file on this host with LiteRT, one thread, one sample a call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from hedgerow.compile.errors import InputShapeError
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.runners.samples import predict_samples, rows_of
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema

__all__ = [
    "executed_by",
    "found_again",
    "open_signature",
    "predict_tflite",
    "predict_tflite_steps",
    "resolved_shapes",
    "signature_tensors",
]


def signature_tensors(content: bytes, schema: ModelSchema) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return where the schema's tensors are in a converted file.

    litert-torch calls inputs ``args_0, args_1, ...`` and outputs ``output_0, ...``, in the order of the module's.
    """
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    return (
        tuple(_tensor(spec.name, f"args_{index}", inputs) for index, spec in enumerate(schema.inputs)),
        tuple(_tensor(spec.name, f"output_{index}", outputs) for index, spec in enumerate(schema.outputs)),
    )


def found_again(
    content: bytes, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the tensors of a file that was made of another one: a signature's names stay, types and scales do not.

    Args:
        content: The new file.
        inputs: Those of the old one.
        outputs: Likewise.
    """
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    taken, given = runner.get_input_details(), runner.get_output_details()
    return (
        tuple(replace(_tensor(t.name, t.tensor, taken), shape=t.shape) for t in inputs),
        tuple(replace(_tensor(t.name, t.tensor, given), shape=t.shape) for t in outputs),
    )


def _tensor(name: str, tensor: str, details: Mapping[str, Any]) -> Tensor:
    detail = details[tensor]
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    return Tensor(name, tensor, shape, np.dtype(detail["dtype"]).name, float(scale) or None, int(zero_point))


def resolved_shapes(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Return the shape of every tensor of the main graph in a prediction with these input shapes.

    Sizes that depend on values are known after a run alone, so the file is run once, on zeros.

    Args:
        content: The file.
        shapes: Name of an input's tensor, or in the signature -> its shape.

    Returns:
        Place of the tensor in the graph -> shape.

    Raises:
        DecodeError: The file does not load, or does not run with these shapes.
        InputShapeError: It has no such input.
    """
    try:
        # A delegate would keep the shapes inside its part to itself.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=plain)
    # LiteRT's own words for a file that it does not take.
    except (ValueError, RuntimeError) as exc:
        raise DecodeError("tflite", "a file that LiteRT loads", str(exc)[:300]) from exc
    places = {detail["name"]: int(detail["index"]) for detail in interpreter.get_input_details()}
    places |= _places(interpreter)[0]
    for name, shape in shapes.items():
        if name not in places:
            raise InputShapeError(name, f"an input among {', '.join(sorted(places))}", "no such input")
        interpreter.resize_tensor_input(places[name], list(shape))
    try:
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(int(detail["index"]), np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError) as exc:
        said = " ".join(str(exc).split())[:300]
        raise DecodeError("tflite", "a file that runs with inputs of these shapes", said) from exc
    return {
        int(detail["index"]): tuple(int(size) for size in detail["shape"])
        for detail in interpreter.get_tensor_details()
        if detail["name"] and "shape" in detail
    }


def _details(interpreter: Interpreter) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is known of inputs and outputs by name: the signature's, or the tensors' where there is none."""
    if interpreter.get_signature_list():
        # A runner that is still there counts as a reference into the tensors, which may then not be allocated.
        runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    return (
        {detail["name"]: detail for detail in interpreter.get_input_details()},
        {detail["name"]: detail for detail in interpreter.get_output_details()},
    )


def _places(interpreter: Interpreter) -> tuple[dict[str, int], dict[str, int]]:
    taken, given = _details(interpreter)
    return (
        {name: int(detail["index"]) for name, detail in taken.items()},
        {name: int(detail["index"]) for name, detail in given.items()},
    )


def open_signature(content: bytes, threads: int = 1) -> Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Open the first signature of a file, or its main graph where it has none.

    Returns:
        What runs it, from inputs by name to outputs by name.
    """
    interpreter = Interpreter(model_content=content, num_threads=threads)
    taken, given = _places(interpreter)
    interpreter.allocate_tensors()

    def run(values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, index in taken.items():
            interpreter.set_tensor(index, values[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in given.items()}

    return run


def executed_by(content: bytes) -> str:
    """Return what runs a file on this host: LiteRT, and the delegate that took operators of it, if one did."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    # The only delegate that LiteRT's Python package applies by itself.
    delegated = any(detail["op_name"] == "DELEGATE" for detail in interpreter._get_ops_details())  # noqa: SLF001
    return f"LiteRT {version('ai-edge-litert')}, " + ("XNNPACK delegate" if delegated else "its own kernels")


def predict_tflite(stage: CompiledModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return the file's outputs for a batch of inputs, sample by sample, each with the state that it has.

    Args:
        stage: A TFLite stage.
        inputs: Input name -> ``(n, *shape)``.

    Returns:
        Output name -> ``float32[n, ...]``.
    """
    run = open_signature(stage.content)
    return predict_samples(run, stage.inputs, stage.outputs, inputs, **rows_of(stage))


def predict_tflite_steps(
    stage: CompiledModel, inputs: Mapping[str, NDArray[Any]], steps: int
) -> dict[str, NDArray[np.float32]]:
    """Return all outputs of a file with state, carried through sequences of so many rows."""
    run = open_signature(stage.content)
    return predict_samples(run, stage.inputs, stage.outputs, inputs, state=stage.state, steps=steps)
