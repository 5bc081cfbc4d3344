"""Export the served model to float TFLite with litert-torch; batch 1, as a device predicts."""

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.runners.tflite import signature_tensors
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.task_module import ServingModule

__all__ = ["export_tflite", "tflite_bytes"]


def tflite_bytes(module: torch.nn.Module, arguments: Sequence[torch.Tensor], quantization: object = None) -> bytes:
    """Return *module* as the bytes of a TFLite file with the signature ``serving_default``.

    Raises:
        PassError: The converter cannot translate the model.
    """
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # litert-torch 0.10 calls deprecated parts of torch 2.13.
        warnings.simplefilter("ignore")
        import litert_torch

        logging.getLogger("litert_torch").setLevel(logging.ERROR)
        path = Path(folder) / "model.tflite"
        try:
            litert_torch.convert(module, tuple(arguments), quant_config=quantization).export(str(path))
        # The converter lets errors of every library under it through; the message must name the step.
        except Exception as exc:
            said = (str(exc).strip().splitlines() or [""])[0][:300]
            raise PassError("export-tflite", f"{type(exc).__name__}: {said}") from exc
        return path.read_bytes()


def export_tflite(source: Source, _stage: Stage | None, _settings: Settings) -> Stage:
    """Export the served model: pre-processing, model, softmax.

    Raises:
        PassError: The converter cannot translate the model.
    """
    schema = source.task.schema
    content = tflite_bytes(ServingModule(source.task, source.model).eval(), example_inputs(schema, 1))
    inputs, outputs = signature_tensors(content, schema)
    return Stage(format="tflite", content=content, inputs=inputs, outputs=outputs)
