"""Quantization-aware training: the weights learn to live with int8 rounding (Jacob et al., 2018).

While it trains, inputs of convolutions, matrix products, additions and poolings are rounded to 256 steps between their
running extremes, which begin with those of the calibration data, and weights to 255 steps for each output channel; the
gradient passes as if nothing had been rounded. What comes out is a float model without any rounding inside, so that
every static quantizer that follows (ONNX, TFLite, full-integer) finds weights that suit its grid, and one pass serves
all formats.

A scale for each output channel makes BatchNorm harmless: folding it multiplies a channel and its scale alike. So a
quantizer with one scale for each channel must follow. Running statistics stay as they are.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.training_pass import TrainingPass

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TrainQuantized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainQuantized(TrainingPass):
    """Trains a model under int8 rounding."""

    name: ClassVar[str] = "train-quantized"

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return a float model that is used to rounding.

        Raises:
            PassError: The model cannot be traced, there is no training data, or training diverges.
        """
        from hedgerow.compile.passes.model.rounding import trained_with_rounding

        return trained_with_rounding(source, self)
