"""What passes of ai-edge-quantizer share: opening a file with it, its errors, and the exact extremes of its tensors."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer

from hedgerow.blame import is_raised_by_hedgerow
from hedgerow.compile.errors import PassError
from hedgerow.compile.stage import Stage
from hedgerow.errors import HedgerowError
from hedgerow.task import Dataset
from hedgerow.tensor_border import to_stored

__all__ = ["SIGNATURE", "measured_statistics", "open_quantizer", "tool_errors"]

SIGNATURE = "serving_default"


def open_quantizer(content: bytes, folder: str) -> Any:
    """Return the quantizer of a file; *folder* keeps the file as long as the quantizer is used."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    path = Path(folder) / "float.tflite"
    path.write_bytes(content)
    return quantizer.Quantizer(str(path))


@contextlib.contextmanager
def tool_errors(step: str) -> Iterator[None]:
    """Name *step* in whatever the quantizer raises, and keep its warnings quiet.

    Raises:
        PassError: The quantizer failed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except HedgerowError:
            raise
        # The quantizer raises whatever its algorithms raise; the message must name the step.
        except Exception as exc:
            if is_raised_by_hedgerow(exc):
                raise
            said = (str(exc).strip().splitlines() or [""])[0][:300]
            raise PassError(step, f"{type(exc).__name__}: {said}") from exc


def measured_statistics(tool: Any, stage: Stage, data: Dataset) -> Any:
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


def _extremes(stage: Stage, data: Dataset) -> Mapping[str, tuple[float, float]]:
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
