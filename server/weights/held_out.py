"""How good weights are on held-out data, and whether that is more than an answer that looks at nothing. Needs torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.errors import TaskError
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.outcome import BASELINE
from hedgerow.task import Task, TaskData
from hedgerow.weights import Arrays

__all__ = ["HeldOutScore", "score_held_out"]

_STANDARD_ERRORS = 2.0
_ADVICE = "look at preprocess, at the order of the outputs, and whether these weights are of this model"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutScore:
    """How good weights are.

    Attributes:
        metrics: As the end of a training measures them: ``loss``, the score, what fits the outputs, and the task's own.
        name: What the score is called.
        score: It; None: there is none, for no target value is known, or nothing scores it.
        samples: On so many held-out samples.
        baseline: The score of the best answer that looks at no input; None: as above.
        baseline_name: That answer, in words.
    """

    metrics: Mapping[str, float]
    name: str
    score: float | None
    samples: int
    baseline: float | None
    baseline_name: str

    @property
    def beats_baseline(self) -> bool:
        """Whether the score is above the baseline by more than chance makes of so many samples.

        No score in [0, 1] spreads more than one that is 0 or 1 with the same mean.
        """
        if self.score is None or self.baseline is None:
            return False
        spread = math.sqrt(self.baseline * (1 - self.baseline) / max(1, self.samples))
        return self.score > self.baseline + _STANDARD_ERRORS * spread

    def line(self) -> str:
        """Return it as one line for people."""
        if self.score is None or self.baseline is None:
            return f"no score on {self.samples:,} held-out samples: no target value is known, or nothing scores it"
        found = f"{self.name} {self.score:.3f} on {self.samples:,} held-out samples"
        if self.beats_baseline:
            return f"{found}; {self.baseline_name}: {self.baseline:.3f}"
        return f"{found}, which beats nothing ({self.baseline_name}: {self.baseline:.3f}); {_ADVICE}"

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
    evaluator = Evaluator(task, data.held_out, train=data.train)
    answers, _loss = evaluator.answers(weights)
    if not all(np.isfinite(given).all() for given in answers.values()):
        mistake = f"with the weights of {place} the model gives NaN or infinity on held-out samples; give others"
        raise TaskError(repr(task.name), [mistake])
    metrics, outputs = evaluator.report(weights), task.answers
    words, _answer = outputs.baseline(task.rows(task.wanted(data.train)))
    return HeldOutScore(
        # As in the record of a run: JSON holds no infinity.
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        name=outputs.score_name,
        score=metrics.get(outputs.score_key),
        samples=len(next(iter(task.rows(answers).values()))),
        baseline=metrics.get(f"{BASELINE}{outputs.score_key}"),
        baseline_name=words,
    )
