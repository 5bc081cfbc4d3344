"""What travels between passes: the float model they start from, and the file they make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hedgerow.compile.errors import UnsuitableError
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.task import Dataset, Task

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CompiledModel", "FloatModel", "ForeignModel", "PassModel"]


class PassModel(Protocol):
    """What a file pass may ask of what its file was made of: a :class:`FloatModel` or a :class:`ForeignModel`."""

    @property
    def schema(self) -> ModelSchema:
        """Inputs, outputs, labels."""

    @property
    def calibration(self) -> Dataset:
        """Samples that quantizers look at; never the held-out ones."""

    @property
    def seed(self) -> int:
        """Where every random choice of a pass starts."""

    @property
    def task(self) -> Task:
        """The task; a file from elsewhere has none, and refuses the pass."""

    @property
    def model(self) -> "nn.Module":
        """The torch model; a file from elsewhere has none, and refuses the pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignModel:
    """What is known of a float file from elsewhere: no task, and no torch model.

    Attributes:
        schema: Its inputs and outputs.
        calibration: Samples that quantizers look at; never the held-out ones.
        seed: Where every random choice of a pass starts.
        step: Name of the pass that has it, for refusals.
    """

    schema: ModelSchema
    calibration: Dataset
    seed: int = 0
    step: str = "a pass"

    @property
    def task(self) -> Task:
        """There is none.

        Raises:
            UnsuitableError: Always.
        """
        raise self._absent("a task")

    @property
    def model(self) -> "nn.Module":
        """There is none.

        Raises:
            UnsuitableError: Always.
        """
        raise self._absent("a torch model")

    def _absent(self, what: str) -> UnsuitableError:
        return UnsuitableError(self.step, what, "a file from elsewhere", "choose a recipe whose passes work on files")


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

    @property
    def schema(self) -> ModelSchema:
        """The task's."""
        return self.task.schema


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """A model as a file, after some pass.

    Attributes:
        format: ``onnx``, ``tflite`` or ``mlpackage`` (a zip of the folder).
        content: The file.
        inputs, outputs: Where the schema's tensors are in it.
        state: As in the schema: input -> the output of the prediction before that it takes.
    """

    format: str
    content: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    state: Mapping[str, str] = field(default_factory=dict)
