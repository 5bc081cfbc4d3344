"""What passes of ai-edge-quantizer share: quantizing a file with it, and the exact extremes of its tensors."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.runners.tflite import signature_tensors
from hedgerow.task import Dataset
from hedgerow.tensor_border import to_stored

__all__ = ["SIGNATURE", "measured_statistics", "quantized_stage"]

SIGNATURE = "serving_default"


def quantized_stage(stage: CompiledModel, source: FloatModel, prepare: Callable[[Any], Any]) -> CompiledModel:
    """Return a file as ai-edge-quantizer writes it.

    Args:
        stage: A TFLite file.
        source: Its schema says which tensor is which.
        prepare: Gives the quantizer its recipe; what it returns are the statistics of activations, or None where the
            recipe needs none.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.tflite", Path(folder) / "quantized.tflite"
        before.write_bytes(stage.content)
        tool = quantizer.Quantizer(str(before))
        tool.quantize(prepare(tool)).export_model(str(after))
        content = after.read_bytes()
    inputs, outputs = signature_tensors(content, source.task.schema)
    return CompiledModel(format="tflite", content=content, inputs=inputs, outputs=outputs)


def measured_statistics(tool: Any, stage: CompiledModel, data: Dataset) -> Any:
    """Return the statistics that *tool*, with its recipe loaded, wants, with the extremes of every tensor over *data*.

    Its own calibration keeps a moving average of each sample's extremes, which cuts real values off: on the digits task
    it reaches 28 dB, the exact extremes 42 dB (torchao's PT2E: 43 dB, in fifty times the time).
    """
    # One sample gives the form of the statistics; the numbers are ours.
    first = {tensor.tensor: to_stored(data.inputs[tensor.name][:1], tensor) for tensor in stage.inputs}
    statistics = tool.calibrate({SIGNATURE: [first]})
    extremes = _extremes(stage, data)
    for name, entry in statistics.items():
        if name in extremes:
            low, high = extremes[name]
            entry["min"], entry["max"] = np.full_like(entry["min"], low), np.full_like(entry["max"], high)
    return statistics


def _extremes(stage: CompiledModel, data: Dataset) -> Mapping[str, tuple[float, float]]:
    """Return the smallest and largest value of every float tensor over *data*."""
    interpreter = Interpreter(model_content=stage.content, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(SIGNATURE)
    floats = [detail for detail in interpreter.get_tensor_details() if detail["dtype"] == np.float32]
    found: dict[str, tuple[float, float]] = {}
    for index in range(len(data)):
        runner(**{t.tensor: to_stored(data.inputs[t.name][index : index + 1], t) for t in stage.inputs})
        for detail in floats:
            try:
                values = interpreter.get_tensor(detail["index"])
            except ValueError:
                continue  # a tensor inside a fused operator has no memory of its own
            if values.size == 0:
                continue
            low, high = found.get(detail["name"], (np.inf, -np.inf))
            found[detail["name"]] = (min(low, float(values.min())), max(high, float(values.max())))
    return found
