"""What travels between passes: the float model they start from, and the file they make."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hedgerow.manifest.content import Tensor
from hedgerow.task import Dataset, Task

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CompiledModel", "FloatModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """The float model with what passes need to know about it.

    Attributes:
        task: The task.
        model: Its model with the checkpoint's weights, in evaluation mode.
        calibration: Samples that quantizers look at; never the held-out ones.
        train: Samples that model passes train on; None: this source has none, and such passes refuse it.
        seed: Where every random choice of a pass starts.
    """

    task: Task
    model: "nn.Module"
    calibration: Dataset
    train: Dataset | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """A model as a file, after some pass.

    Attributes:
        format: ``onnx``, ``tflite`` or ``mlpackage`` (a zip of the folder).
        content: The file.
        inputs, outputs: Where the schema's tensors are in it.
    """

    format: str
    content: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
