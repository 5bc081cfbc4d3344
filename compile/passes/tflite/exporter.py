"""A torch module as the bytes of a TFLite file, with litert-torch."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

__all__ = ["tflite_bytes"]


def tflite_bytes(module: torch.nn.Module, arguments: Sequence[torch.Tensor], quantization: object = None) -> bytes:
    """Return *module* as the bytes of a TFLite file with the signature ``serving_default``.

    The converter lets errors of every library under it through.
    """
    import litert_torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        litert_torch.convert(module, tuple(arguments), quant_config=quantization).export(str(path))
        return path.read_bytes()
