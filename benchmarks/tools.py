"""Other tools' int8 quantization of one torch model, each as its own documentation shows it, with its own defaults."""

import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.runner import run_file_pass
from hedgerow.task_module import ServingModule

__all__ = ["TOOLS", "NotRunError"]

_SIGNATURE, _INPUT = "serving_default", "args_0"
_NNCF_TIMEOUT_S = 300


class NotRunError(Exception):
    """A tool is not there; the message says why."""


def _float_onnx(source: FloatModel) -> bytes:
    from hedgerow.compile.passes.onnx.export import ExportOnnx

    return run_file_pass(ExportOnnx(), source, None).content


def _float_tflite(source: FloatModel) -> bytes:
    from hedgerow.compile.passes.tflite.export import ExportTflite

    return run_file_pass(ExportTflite(), source, None).content


def _samples(source: FloatModel) -> Iterator[np.ndarray]:
    (values,) = source.calibration.inputs.values()
    for index in range(len(values)):
        yield values[index : index + 1]


def onnxruntime_static(source: FloatModel) -> bytes:
    """``quantize_static`` as in ONNX Runtime's guide: pre-process, then defaults (QDQ, S8S8, MinMax, per tensor)."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    (name,) = source.calibration.inputs
    samples = _samples(source)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            sample = next(samples, None)
            return None if sample is None else {name: sample}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "float.onnx").write_bytes(_float_onnx(source))
        quant_pre_process(path / "float.onnx", path / "prepared.onnx")
        quantize_static(path / "prepared.onnx", path / "int8.onnx", Reader())
        return (path / "int8.onnx").read_bytes()


def neural_compressor_static(source: FloatModel) -> bytes:
    """neural-compressor's static PT2E path, exported by ``torch.onnx.export`` as it comes out."""
    from hedgerow.compile.passes.inc.quantize_static import QuantizeIncStatic

    return run_file_pass(QuantizeIncStatic(), source, None).content


def nncf_static(source: FloatModel) -> bytes:
    """``nncf.quantize`` of the ONNX file, in an environment of its own that HEDGEROW_NNCF_PYTHON names.

    Raises:
        NotRunError: The variable is not set.
        CalledProcessError: NNCF failed.
    """
    python = os.environ.get("HEDGEROW_NNCF_PYTHON")
    if not python:
        raise NotRunError("HEDGEROW_NNCF_PYTHON names no Python with nncf and onnx; make a virtual environment for it")
    script = Path(__file__).parent / "nncf_static.py"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "float.onnx").write_bytes(_float_onnx(source))
        np.savez(path / "samples.npz", **source.calibration.inputs)
        command = [python, str(script), folder]
        subprocess.run(command, check=True, capture_output=True, timeout=_NNCF_TIMEOUT_S)
        return (path / "int8.onnx").read_bytes()


def torchao_litert(source: FloatModel) -> bytes:
    """Run torchao's PT2E with litert-torch's quantizer, as in litert-torch's guide: symmetric, by its defaults."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    arguments = example_inputs(source.task.schema, 1)
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config())
    program = torch.export.export(ServingModule(source.task, source.model).eval(), arguments).module()
    prepared = prepare_pt2e(program, quantizer)
    with torch.no_grad():
        for sample in _samples(source):
            prepared(torch.from_numpy(sample))
    quantized = convert_pt2e(prepared, fold_quantize=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.tflite"
        litert_torch.convert(quantized, arguments, quant_config=QuantConfig(pt2e_quantizer=quantizer)).export(str(path))
        return path.read_bytes()


def _ai_edge_quantizer(recipe_name: str) -> Callable[[FloatModel], bytes]:
    def quantize(source: FloatModel) -> bytes:
        from ai_edge_quantizer import quantizer, recipe

        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder) / "float.tflite", Path(folder) / "int8.tflite"
            before.write_bytes(_float_tflite(source))
            tool = quantizer.Quantizer(str(before))
            tool.load_quantization_recipe(getattr(recipe, recipe_name)())
            statistics = None
            if tool.need_calibration:
                statistics = tool.calibrate({_SIGNATURE: [{_INPUT: sample} for sample in _samples(source)]})
            tool.quantize(statistics).export_model(str(after))
            return after.read_bytes()

    return quantize


def _quietly(call: Callable[[FloatModel], bytes]) -> Callable[[FloatModel], bytes]:
    def quiet(source: FloatModel) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(source)

    return quiet


TOOLS: Mapping[str, tuple[str, Callable[[FloatModel], bytes]]] = {
    "onnxruntime quantize_static": ("onnx", _quietly(onnxruntime_static)),
    "neural-compressor static": ("onnx", _quietly(neural_compressor_static)),
    "nncf quantize": ("onnx", _quietly(nncf_static)),
    "torchao PT2E + litert-torch": ("tflite", _quietly(torchao_litert)),
    "ai-edge-quantizer static_wi8_ai8": ("tflite", _quietly(_ai_edge_quantizer("static_wi8_ai8"))),
    "ai-edge-quantizer dynamic_wi8": ("tflite", _quietly(_ai_edge_quantizer("dynamic_wi8_afp32"))),
}
"""Tool -> format and ``(float model with calibration data) -> file``."""
