"""Run a TFLite file on this host with LiteRT, one thread, one sample a call."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from hedgerow.compile.runners.border import from_stored, to_stored
from hedgerow.compile.stage import Stage
from hedgerow.manifest import Tensor
from hedgerow.schema import ModelSchema

__all__ = ["predict_tflite", "run_signature", "signature_tensors"]


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


def run_signature(content: bytes, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run the one signature of a file once."""
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    outputs: dict[str, NDArray[Any]] = runner(**values)
    return outputs


def predict_tflite(stage: Stage, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the file's first output for a batch of inputs, sample by sample.

    Args:
        stage: A TFLite stage.
        inputs: Input name -> ``(n, *shape)``.

    Returns:
        ``float32[n, ...]``.
    """
    runner = Interpreter(model_content=stage.content, num_threads=1).get_signature_runner()
    rows = []
    output = stage.outputs[0]
    for index in range(len(next(iter(inputs.values())))):
        values = {t.tensor: to_stored(inputs[t.name][index : index + 1], t) for t in stage.inputs}
        rows.append(from_stored(runner(**values)[output.tensor], output))
    return np.concatenate(rows)
