"""What ``hedgerow task check`` finds in a task without mistakes, and its JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hedgerow.model_schema import ModelSchema

__all__ = ["BestGuess", "TaskReport", "TensorRange"]


@dataclass(frozen=True, slots=True)
class TensorRange:
    """One tensor on the way through the model.

    Attributes:
        stage: ``inputs``, ``preprocessed``, ``model`` (what each output is before its activation) or ``answers``.
        name: What the tensor is called.
        shape: Its shape, the batch dimension first.
        dtype: Such as ``float32``.
        minimum, maximum: The bounds of its values in this batch.
    """

    stage: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class BestGuess:
    """What answers best without looking at the input.

    Attributes:
        answer: In words.
        score: Its mean score on some held-out samples.
    """

    answer: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """Everything that ``hedgerow task check`` shows about a task without mistakes.

    Attributes:
        task: Its name.
        schema: Inputs, outputs and what these are for.
        samples: Part of the data (``train``, ``held_out``, ``calibration``) -> number of samples.
        class_counts: Output that has classes -> part (``train``, ``held_out``) -> samples of each class, in the order
            of their names.
        partition: Samples of each client.
        stages: One forward pass.
        loss: The loss of that batch.
        parameters: Number of trainable values.
        parameter_bytes: Their size, with buffers, as a checkpoint holds them.
        metrics: Every metric, of the untrained model on some held-out samples, at most 512 spread evenly.
        baseline: What a model must beat there; None where nothing can be scored.
        last_value: The score there of always answering what was wanted one step earlier; None but for values in
            sequences.
        warnings: What is allowed but may surprise.
    """

    task: str
    schema: ModelSchema
    samples: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, tuple[int, ...]]]
    partition: tuple[int, ...]
    stages: tuple[TensorRange, ...]
    loss: float
    parameters: int
    parameter_bytes: int
    metrics: Mapping[str, float]
    baseline: BestGuess | None = None
    last_value: float | None = None
    warnings: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values; the counts of classes by output only where there are several outputs."""
        counts = {
            output: {part: list(classes) for part, classes in parts.items()}
            for output, parts in self.class_counts.items()
        }
        return {
            "task": self.task,
            "schema": self.schema.to_record(),
            "samples": dict(self.samples),
            "class_counts": counts if self.schema.answers.alone is None else next(iter(counts.values()), {}),
            "partition": list(self.partition),
            "stages": [
                {
                    "stage": stage.stage,
                    "name": stage.name,
                    "shape": list(stage.shape),
                    "dtype": stage.dtype,
                    "minimum": stage.minimum,
                    "maximum": stage.maximum,
                }
                for stage in self.stages
            ],
            "loss": self.loss,
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "metrics": dict(self.metrics),
            "baseline": None
            if self.baseline is None
            else {"answer": self.baseline.answer, self.schema.answers.score_key: self.baseline.score},
            "last_value": self.last_value,
            "warnings": list(self.warnings),
        }
