"""How much scratch memory CMSIS-NN's kernels ask TensorFlow Lite Micro for, on Arm cores with DSP instructions.

The formulas are those of CMSIS-NN 99f736a (``Source/*/arm_*_get_buffer_sizes_s8.c``, the branches ``_dsp``), for what
``tensorflow/lite/micro/kernels/cmsis_nn/*.cc`` of tflite-micro 90b983c asks of them. Where compilers differ (armclang
asks for more than gcc in a 1 x 1 convolution), the larger one is taken. Nothing here was run on such a core.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SOURCE", "KernelCall", "Shape", "scratch_bytes"]

SOURCE = "CMSIS-NN 99f736a, arm_*_get_buffer_size, with DSP instructions"
_HALF_BYTES, _WORD_BYTES = 2, 4
# Reference kernels, and kernels of CMSIS-NN that ask for nothing.
_WITH_FORMULA = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D")
_NOT_COVERED = ("BATCH_MATMUL", "SVDF", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCall:
    """One operator of a graph, with what the formulas need of it.

    Attributes:
        operator: In TFLite's own name.
        number_type: Of its first input.
        weight_type: Of its weights; empty where it has none.
        taken, weights, given: Shapes of the first input, of the weights (empty where there are none), of the output.
        is_dilated: Whether it leaves gaps between the places that it reads.
        is_per_channel: Whether its weights have a scale for each output channel.
    """

    operator: str
    number_type: str
    weight_type: str
    taken: Shape
    weights: Shape
    given: Shape
    is_dilated: bool = False
    is_per_channel: bool = False


def scratch_bytes(calls: Sequence[KernelCall]) -> tuple[int | None, str]:
    """Return the most that one operator asks for, or None and why that is not known.

    Args:
        calls: Every operator of the graph.
    """
    largest = 0
    for call in calls:
        if call.operator in _NOT_COVERED:
            return None, f"the formula for {call.operator} is not covered"
        if call.operator not in _WITH_FORMULA:
            continue
        if call.number_type == "float32":
            continue  # CMSIS-NN has no float kernels: the reference ones run
        if call.number_type != "int8" or call.weight_type not in {"int8", ""}:
            return None, f"the formula for {call.operator} on {call.number_type} with {call.weight_type} is not covered"
        largest = max(largest, _asked(call))
    return largest, ""


def _asked(call: KernelCall) -> int:
    if call.operator == "CONV_2D":
        height, width = call.weights[1:3]
        channels = call.taken[-1]
        if (height, width) == (1, 1) and not call.is_dilated and channels == call.weights[3]:
            return 2 * channels * _HALF_BYTES
        return 2 * _aligned(height * width * channels) * _HALF_BYTES
    if call.operator == "DEPTHWISE_CONV_2D":
        height, width = call.weights[1:3]
        if call.taken[-1] != call.given[-1] or call.taken[0] != 1 or call.is_dilated:
            return 0
        # No padding of a 3 x 3 kernel is more than 1, so these need none.
        return 0 if (height, width) == (3, 3) else call.taken[-1] * height * width * _HALF_BYTES
    if call.operator == "AVERAGE_POOL_2D":
        return call.taken[-1] * _WORD_BYTES
    depth = call.weights[-1]
    if len(call.given) > 2 and depth % 4 == 0:
        # It is computed as a 1 x 1 convolution; one scale for all channels is written out for each.
        scales = 0 if call.is_per_channel else 2 * call.given[-1] * _WORD_BYTES
        return scales + 2 * depth * _HALF_BYTES
    return 0


def _aligned(count: int) -> int:
    return math.ceil(count / 4) * 4
