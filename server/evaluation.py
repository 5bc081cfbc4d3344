"""Float metrics of a task's weights on data with target values. Needs torch."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.outputs import Outputs
from hedgerow.outputs.outputs import Arrays
from hedgerow.server.outcome import BASELINE, LAST_VALUE
from hedgerow.task import Dataset, Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import ServingModule, as_given, load_weights, parts_of, wanted_tensors

__all__ = ["Evaluator", "baseline_metrics", "metrics_of"]

_BATCH = 512


class Evaluator:
    """Measures any number of weights of one task on one data set, with one resident model.

    Args:
        task: What was learned.
        dataset: What is measured on.
        train: What is trained on, of which the baseline is made; None: there is no baseline.
        device: Torch's name of it.
    """

    def __init__(self, task: Task, dataset: Dataset, *, train: Dataset | None = None, device: str = "cpu") -> None:
        self._task, self._dataset, self._train = task, dataset, train
        self._wanted = task.wanted(dataset)
        self._model = task.model().eval().to(device)
        self._serving = ServingModule(task, self._model).eval()
        self._loss = loss_function(task)
        learnable = task.answers.learnable(task.rows(self._wanted))
        shape = learnable.reshape(len(dataset), -1) if task.state else learnable
        inputs = [torch.from_numpy(np.ascontiguousarray(dataset.inputs[spec.name])) for spec in task.inputs]
        tensors = [tensor.to(device) for tensor in [torch.from_numpy(shape), *inputs]]
        tensors += parts_of(wanted_tensors(task, dataset, device))
        self._batches = list(zip(*(torch.split(tensor, _BATCH) for tensor in tensors), strict=True))

    def answers(self, weights: Mapping[str, NDArray[np.generic]]) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Return the answers by output, ``(n, *shape)``, and the mean loss of what can be learned from.

        With state they are ``(n, steps, *shape)``. The loss is NaN where nothing can be learned from.

        Raises:
            CheckpointMismatchError: The weights are another model's.
        """
        model = load_weights(self._task, weights) if set(weights) != set(self._model.state_dict()) else self._model
        if model is self._model:
            model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        parts: list[tuple[torch.Tensor, ...]] = []
        total, counted = 0.0, 0
        with torch.no_grad():
            for learnable, *rest in self._batches:
                inputs, wanted = rest[: len(self._task.inputs)], rest[len(self._task.inputs) :]
                given = self._serving.logits(*inputs)
                parts.append(self._serving.answers(given, sequences=bool(self._task.state)))
                kept = self._learnable(given, wanted, learnable)
                if kept is not None:
                    size = len(parts_of(kept[0])[0])
                    total += float(self._loss(*kept)) * size
                    counted += size
        columns = zip(self._task.answers, zip(*parts, strict=True), strict=True)
        found = {name: torch.cat(column).cpu().numpy() for name, column in columns}
        return found, total / counted if counted else float("nan")

    def _learnable(self, given: Any, wanted: Sequence[torch.Tensor], learnable: torch.Tensor) -> tuple[Any, Any] | None:
        """Return what the loss is taken of, or None for nothing."""
        if bool(learnable.all()):
            return given, as_given(wanted)
        if not bool(learnable.any()):
            return None
        # With state each step becomes a sequence of its own, for the loss wants sequences.
        chosen = [[part[learnable] for part in parts] for parts in (parts_of(given), wanted)]
        if self._task.state:
            chosen = [[part[:, None] for part in parts] for parts in chosen]
        return as_given(chosen[0]), as_given(chosen[1])

    def measure(self, weights: Mapping[str, NDArray[np.generic]]) -> dict[str, float]:
        """Return ``loss``, the mean score and every metric of the task, also for each value of its subgroup.

        Raises:
            CheckpointMismatchError: The weights are another model's.
        """
        answers, loss = self.answers(weights)
        return {"loss": loss, **metrics_of(self._task, answers, self._dataset)}

    def report(self, weights: Mapping[str, NDArray[np.generic]]) -> dict[str, float]:
        """Return :meth:`measure`, what people expect of this kind of output, and the scores of what looks at no input.

        Raises:
            CheckpointMismatchError: The weights are another model's.
        """
        answers, loss = self.answers(weights)
        task, given, wanted = self._task, self._task.rows(answers), self._task.rows(self._wanted)
        outputs = task.answers.measured(given, wanted)
        known = outputs.known(wanted)
        found: dict[str, float] = {}
        if known.any():
            found = outputs.metrics(*({name: rows[known] for name, rows in part.items()} for part in (given, wanted)))
            if self._train is not None:
                found |= baseline_metrics(self._baseline, wanted, outputs)
            last = outputs.last_value_score(self._wanted) if task.state else None
            if last is not None:
                found[LAST_VALUE] = last
        return {"loss": loss, **found, **metrics_of(task, answers, self._dataset)}

    @cached_property
    def _baseline(self) -> dict[str, NDArray[np.float32]]:
        train = self._train if self._train is not None else self._dataset
        return self._task.answers.baseline(self._task.rows(self._task.wanted(train)))[1]


def baseline_metrics(answer: Arrays, wanted: Arrays, outputs: Outputs) -> dict[str, float]:
    """Return the score of one answer to everything, under the score's key with :data:`BASELINE` before it.

    Args:
        answer: By output, of the tensor's shape.
        wanted: Target values, each row a sample.
        outputs: The task's, with what was measured.
    """
    known = outputs.known(wanted)
    if not known.any():
        return {}
    count = int(known.sum())
    given = {name: np.broadcast_to(value, (count, *value.shape)) for name, value in answer.items()}
    scores = outputs.scores(given, {name: rows[known] for name, rows in wanted.items()})
    return {f"{BASELINE}{outputs.score_key}": float(scores.mean())}


def metrics_of(task: Task, answers: Arrays, dataset: Dataset) -> dict[str, float]:
    """Return each metric of *task*, and ``metric[column=value]`` for each value of its subgroup column.

    Args:
        task: Says which metrics and which column.
        answers: The float model's, by output; what only they can tell, such as a threshold, is taken from them.
        dataset: The target values and columns.
    """
    wanted = task.wanted(dataset)
    outputs = task.answers.measured(task.rows(answers), task.rows(wanted))
    found = task.measure(answers, wanted, outputs)
    if task.subgroup is not None:
        column = np.asarray(dataset.columns[task.subgroup])
        for value in np.unique(column):
            chosen = column == value
            part, known = ({name: rows[chosen] for name, rows in arrays.items()} for arrays in (answers, wanted))
            measured = task.measure(part, known, outputs)
            found |= {f"{name}[{task.subgroup}={value}]": number for name, number in measured.items()}
    return found
