"""Run a TFLite file on this host with LiteRT, one thread, one sample a call."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from hedgerow.compile.runners.border import from_stored, to_stored
from hedgerow.compile.stage import Stage
from hedgerow.manifest import Tensor
from hedgerow.schema import ModelSchema

__all__ = ["file_tensors", "open_signature", "predict_tflite", "signature_tensors"]


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


def _tensor(name: str, tensor: str, details: Mapping[str, Any]) -> Tensor:
    detail = details[tensor]
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    return Tensor(name, tensor, shape, np.dtype(detail["dtype"]).name, float(scale) or None, int(zero_point))


def file_tensors(content: bytes) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs and outputs of any file under its own names, in its own order."""
    taken, given = _details(Interpreter(model_content=content, num_threads=1))
    return (
        tuple(_tensor(name, name, taken) for name in taken),
        tuple(_tensor(name, name, given) for name in given),
    )


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


def predict_tflite(stage: Stage, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the file's first output for a batch of inputs, sample by sample.

    Args:
        stage: A TFLite stage.
        inputs: Input name -> ``(n, *shape)``.

    Returns:
        ``float32[n, ...]``.
    """
    run = open_signature(stage.content)
    rows = []
    output = stage.outputs[0]
    for index in range(len(next(iter(inputs.values())))):
        values = {t.tensor: to_stored(inputs[t.name][index : index + 1], t) for t in stage.inputs}
        rows.append(from_stored(run(values)[output.tensor], output))
    return np.concatenate(rows)
