"""What passes of ai-edge-quantizer share: quantizing a file with it, and the exact extremes of its tensors."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer
from numpy.typing import NDArray

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.runners.tflite import found_again
from hedgerow.task import Dataset
from hedgerow.tensor_border import one_sample, to_stored

__all__ = ["measured_statistics", "quantized_stage"]


def quantized_stage(stage: CompiledModel, prepare: Callable[[Any], Any]) -> CompiledModel:
    """Return a file as ai-edge-quantizer writes it.

    Args:
        stage: A TFLite file.
        prepare: Gives the quantizer its recipe; what it returns are the statistics of activations, or None where the
            recipe needs none.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.tflite", Path(folder) / "quantized.tflite"
        before.write_bytes(stage.content)
        tool = quantizer.Quantizer(str(before))
        tool.quantize(prepare(tool)).export_model(str(after))
        content = after.read_bytes()
    inputs, outputs = found_again(content, stage.inputs, stage.outputs)
    return replace(stage, content=content, inputs=inputs, outputs=outputs)


def measured_statistics(tool: Any, stage: CompiledModel, data: Dataset) -> Any:
    """Return the statistics that *tool*, with its recipe loaded, wants, with the extremes of every tensor over *data*.

    Its own calibration keeps a moving average of each sample's extremes, which cuts real values off: on the digits task
    it reaches 28 dB, the exact extremes 42 dB (torchao's PT2E: 43 dB, in fifty times the time).
    """
    # One sample gives the form of the statistics; the numbers are ours.
    first = {
        tensor.tensor: to_stored(one_sample(data.inputs[tensor.name], 0, tensor), tensor) for tensor in stage.inputs
    }
    statistics = tool.calibrate({_signature(stage.content): [first]})
    extremes = {**_extremes(stage, data)}
    for ends in _state_ends(stage):
        known = [extremes[name] for name in ends if name in extremes]
        # One range for both ends of a state: what comes out goes in.
        union = min((low for low, _ in known), default=0.0), max((high for _, high in known), default=0.0)
        extremes |= dict.fromkeys((name for name in ends if name in extremes), union)
    for name, entry in statistics.items():
        if name in extremes:
            low, high = extremes[name]
            entry["min"], entry["max"] = np.full_like(entry["min"], low), np.full_like(entry["max"], high)
    return statistics


def _state_ends(stage: CompiledModel) -> list[tuple[str, str]]:
    """Return the tensors of the graph that are the two ends of each state."""
    if not stage.state:
        return []
    runner = Interpreter(model_content=stage.content).get_signature_runner(_signature(stage.content))
    taken = {t.name: str(runner.get_input_details()[t.tensor]["name"]) for t in stage.inputs}
    given = {t.name: str(runner.get_output_details()[t.tensor]["name"]) for t in stage.outputs}
    return [(taken[into], given[out]) for into, out in stage.state.items()]


def _signature(content: bytes) -> str:
    """Return the name of the file's first signature; a file that reaches a pass has one."""
    return str(next(iter(Interpreter(model_content=content).get_signature_list())))


def _extremes(stage: CompiledModel, data: Dataset) -> Mapping[str, tuple[float, float]]:
    """Return the smallest and largest value of every float tensor over *data*.

    Of what goes into a softmax, numbers that it cannot see do not count: a mask would take all steps of the range.
    """
    scores = _softmax_inputs(stage.content)
    interpreter = Interpreter(model_content=stage.content, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(_signature(stage.content))
    floats = [detail for detail in interpreter.get_tensor_details() if detail["dtype"] == np.float32]
    found: dict[str, tuple[float, float]] = {}
    for index in range(len(data)):
        runner(**{t.tensor: to_stored(one_sample(data.inputs[t.name], index, t), t) for t in stage.inputs})
        for detail in floats:
            try:
                values = interpreter.get_tensor(detail["index"])
            except ValueError:
                continue  # a tensor inside a fused operator has no memory of its own
            if values.size == 0:
                continue
            low, high = found.get(detail["name"], (np.inf, -np.inf))
            least = _least_seen(values) if detail["name"] in scores else float(values.min())
            found[detail["name"]] = (min(low, least), max(high, float(values.max())))
    return found | {name: found[source] for name, source in scores.items() if source in found}


def _least_seen(scores: NDArray[Any]) -> float:
    """Return the least number that changes what a softmax over the last axis gives in int8.

    All that is further below the largest together takes a thousandth of its share, which is a quarter of a step.
    """
    gap = math.log(1000 * scores.shape[-1])
    return max(float(scores.min()), float(scores.max(axis=-1).min()) - gap)


def _softmax_inputs(content: bytes) -> Mapping[str, str]:
    """Return tensors that hold what goes into a softmax, in any shape -> the tensor that goes in."""
    from ai_edge_litert import schema_py_generated as flatbuffer

    moves = {getattr(flatbuffer.BuiltinOperator, name) for name in ("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE")}
    model = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    found: dict[str, str] = {}
    for graph in model.subgraphs:
        producers = {output: operator for operator in graph.operators for output in operator.outputs}
        for operator in graph.operators:
            if codes[operator.opcodeIndex] != flatbuffer.BuiltinOperator.SOFTMAX:
                continue
            place = operator.inputs[0]
            name = graph.tensors[place].name.decode()
            found[name] = name
            while place in producers and codes[producers[place].opcodeIndex] in moves:
                place = producers[place].inputs[0]
                found[graph.tensors[place].name.decode()] = name
    return found
