"""One-operator TFLite files of custom operators: TensorFlow Lite Micro's Signal operators and those beside them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.operator_tables.tflite_model import TfliteModel

__all__ = ["NAMES", "files"]

Shaped = Sequence[tuple[str, tuple[int, ...]]]
"""Element types and shapes of tensors."""

_SIGNAL: Mapping[str, tuple[Shaped, Shaped, Mapping[str, Any]]] = {
    # name -> inputs, outputs, options
    "SignalDelay": ([("INT16", (1, 8))], [("INT16", (1, 8))], {"delay_length": 2}),
    "SignalEnergy": ([("INT16", (8,))], [("UINT32", (4,))], {"end_index": 4, "start_index": 0}),
    "SignalFftAutoScale": ([("INT16", (8,))], [("INT16", (8,)), ("INT32", ())], {}),
    "SignalFilterBank": (
        [("UINT32", (8,)), *[("INT16", (8,))] * 2, *[("INT16", (4,))] * 3], [("UINT64", (3,))], {"num_channels": 3},
    ),
    "SignalFilterBankLog": (
        [("UINT32", (4,))], [("INT16", (4,))], {"input_correction_bits": 3, "output_scale": 1600},
    ),
    "SignalFilterBankSpectralSubtraction": (
        [("UINT32", (4,))], [("UINT32", (4,)), ("UINT32", (4,))],
        {
            "alternate_one_minus_smoothing": 15000, "alternate_smoothing": 1000, "clamping": True,
            "min_signal_remaining": 800, "num_channels": 4, "one_minus_smoothing": 15000, "smoothing": 1000,
            "smoothing_bits": 10, "spectral_subtraction_bits": 14,
        },
    ),
    "SignalFilterBankSquareRoot": ([("UINT64", (4,)), ("INT32", ())], [("UINT32", (4,))], {}),
    "SignalFramer": (
        [("INT16", (1, 4))], [("INT16", (1, 2, 4)), ("BOOL", ())], {"frame_size": 4, "frame_step": 2, "prefill": True},
    ),
    "SignalPCAN": (
        [("UINT32", (4,)), ("UINT32", (4,)), ("INT16", (128,))], [("UINT32", (4,))], {"snr_shift": 6},
    ),
    "SignalStacker": (
        [("INT16", (4,))], [("INT16", (8,)), ("BOOL", ())],
        {"num_channels": 4, "stacker_left_context": 1, "stacker_right_context": 0, "stacker_step": 2},
    ),
    "SignalWindow": ([("INT16", (8,)), ("INT16", (8,))], [("INT16", (8,))], {"shift": 2}),
}  # fmt: skip
# Code of a type in the options of the three operators that have a kernel for each.
_CODES = {"FLOAT32": 0, "INT32": 2, "INT16": 7}
NAMES = (
    *_SIGNAL, "SignalIrfft", "SignalOverlapAdd", "SignalRfft", "CIRCULAR_BUFFER", "TFLM_DECODE",
    "TFLite_Detection_PostProcess", "ethos-u",
)  # fmt: skip
"""Names that a runtime is asked for, whether or not a file for it stands here."""


def files() -> Iterator[tuple[str, bytes]]:
    """Yield operator and file."""
    for name, (taken, given, fields) in _SIGNAL.items():
        yield name, _file(name, taken, given, fields)
    for kind, code in _CODES.items():
        yield "SignalRfft", _file("SignalRfft", [(kind, (64,))], [(kind, (66,))], {"T": code, "fft_length": 64})
        yield "SignalIrfft", _file("SignalIrfft", [(kind, (66,))], [(kind, (64,))], {"T": code, "fft_length": 64})
        fields = {"T": code, "frame_step": 2}
        yield "SignalOverlapAdd", _file("SignalOverlapAdd", [(kind, (1, 4))], [(kind, (2,))], fields)
    for kind in ("INT8", "INT16", "FLOAT32"):
        taken, given = [(kind, (1, 1, 1, 4))], [(kind, (1, 3, 1, 4))]
        yield "CIRCULAR_BUFFER", _file("CIRCULAR_BUFFER", taken, given, {"cycles_max": 1})


def _file(
    name: str,
    taken: Shaped,
    given: Shaped,
    fields: Mapping[str, Any],
) -> bytes:
    model = TfliteModel()
    graph = model.graph()
    inputs = [graph.tensor(kind, shape) for kind, shape in taken]
    outputs = [graph.tensor(kind, shape) for kind, shape in given]
    graph.operator(name, inputs, outputs, fields=fields)
    graph.record.inputs, graph.record.outputs = inputs, outputs
    return model.content()
