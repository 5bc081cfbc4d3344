"""Toolchains: what a compile process imports, and whether it is installed. Nothing is imported here."""

from collections.abc import Iterable, Mapping

from hedgerow.installation import require

__all__ = ["MICRO", "NO_MCU", "PARSERS", "RUNTIME_NAMES", "TOOLCHAINS", "TOOLCHAIN_OF", "UNWANTED", "check_installed"]

TOOLCHAINS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("torch.onnx", "onnxscript", "onnxruntime.quantization"),
    "tflite": ("litert_torch", "ai_edge_quantizer.quantizer"),
    "coreml": ("coremltools", "coremltools.optimize.coreml"),
}
"""Toolchain -> modules that a warm worker has imported before its first job."""

TOOLCHAIN_OF: Mapping[str, str] = {"onnx": "onnx", "tflite": "tflite", "mlpackage": "coreml"}
"""Format of an artifact or a train graph -> the toolchain that makes it."""

UNWANTED: Mapping[str, tuple[str, ...]] = {"coreml": ("sklearn", "tensorflow", "torchao", "transformers", "xgboost")}
"""Modules that look absent while a toolchain is imported: coremltools imports every framework that it could convert
from, which takes 3 s; it is given torch programs only."""

MICRO = "tflite-micro"
"""The runtime of microcontrollers, as targets name it."""

RUNTIME_NAMES: Mapping[str, str] = {
    "onnxruntime": "ONNX Runtime",
    "litert": "LiteRT",
    MICRO: "TensorFlow Lite Micro",
}
"""Runtimes that exist on this host, as people call them."""

PARSERS: Mapping[str, str] = {"onnx": "onnx", "tflite": "ai_edge_litert", "mlpackage": "coremltools"}
"""Format -> the package that reads its files."""

NO_MCU = "the interpreter of TensorFlow Lite Micro is not installed; install the extra mcu"
"""Why nothing was run as on a microcontroller."""


def check_installed(toolchain: str, modules: Iterable[str]) -> None:
    """Refuse to start work whose packages are absent.

    Args:
        toolchain: For the message.
        modules: What it imports.

    Raises:
        ExtraNotInstalledError: A package is absent.
    """
    require(f"compiling to {toolchain}", "compile", modules)
