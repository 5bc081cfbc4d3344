"""How good weights are on held-out data, and whether that is more than an answer that looks at nothing. Needs torch.

This is the one place here that knows that an answer is a class.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.errors import TaskError
from hedgerow.server.evaluation import Evaluator, metrics_of
from hedgerow.task import Task, TaskData
from hedgerow.weights import Arrays

__all__ = ["HeldOutScore", "score_held_out"]

_STANDARD_ERRORS = 2.0
_ADVICE = "look at preprocess, at the order of the labels, and whether these weights are of this model"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutScore:
    """How good weights are.

    Attributes:
        metrics: As training measures them: ``loss``, ``accuracy`` and the task's own.
        name: Which metric is the score.
        score: It.
        samples: On so many held-out samples.
        baseline: The score of the best answer that looks at no input.
        baseline_name: That answer, in words.
    """

    metrics: Mapping[str, float]
    name: str
    score: float
    samples: int
    baseline: float
    baseline_name: str

    @property
    def beats_baseline(self) -> bool:
        """Whether the score is above the baseline by more than chance makes of so many samples."""
        spread = math.sqrt(self.baseline * (1 - self.baseline) / max(1, self.samples))
        return self.score > self.baseline + _STANDARD_ERRORS * spread

    def line(self) -> str:
        """Return it as one line for people."""
        found = f"{self.name} {self.score:.3f} on {self.samples:,} held-out samples"
        if self.beats_baseline:
            return f"{found}; {self.baseline_name} gives {self.baseline:.3f}"
        return f"{found}, which beats nothing: {self.baseline_name} gives {self.baseline:.3f}; {_ADVICE}"

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "metrics": dict(self.metrics),
            "held_out_samples": self.samples,
            "baseline": self.baseline,
            "baseline_name": self.baseline_name,
            "beats_baseline": self.beats_baseline,
        }


def score_held_out(task: Task, data: TaskData, weights: Arrays, place: str) -> HeldOutScore:
    """Measure *weights* on held-out data.

    Args:
        task: It.
        data: Its data.
        weights: Of its model.
        place: What the weights are, for messages.

    Raises:
        TaskError: The model gives numbers that are none.
    """
    given, loss = Evaluator(task, data.held_out).outputs(weights)
    if not np.isfinite(given).all():
        mistake = f"with the weights of {place} the model gives NaN or infinity on held-out samples; give others"
        raise TaskError(repr(task.name), [mistake])
    metrics = metrics_of(task, given, data.held_out)
    counts = np.bincount(data.train.labels.reshape(-1), minlength=len(task.labels))
    likeliest = int(counts.argmax())
    return HeldOutScore(
        # As in the record of a run: JSON holds no infinity.
        metrics={name: value for name, value in {"loss": loss, **metrics}.items() if math.isfinite(value)},
        name="accuracy",
        score=metrics["accuracy"],
        samples=int(data.held_out.labels.size),
        baseline=float((data.held_out.labels == likeliest).mean()),
        baseline_name=f"always {task.labels[likeliest]!r}",
    )
