"""Float metrics of a task's weights on labelled data. Needs torch."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.task import Dataset, Task
from hedgerow.task_module import LogitsModule, load_weights, loss_function

__all__ = ["Evaluator", "metrics_of"]

_BATCH = 512


class Evaluator:
    """Measures any number of weights of one task on one data set, with one resident model."""

    def __init__(self, task: Task, dataset: Dataset, *, device: str = "cpu") -> None:
        self._task, self._dataset = task, dataset
        self._model = task.model().eval().to(device)
        self._logits = LogitsModule(task, self._model).eval()
        self._loss = loss_function(task)
        inputs = [torch.from_numpy(np.ascontiguousarray(dataset.inputs[spec.name])) for spec in task.inputs]
        labels = torch.from_numpy(np.ascontiguousarray(dataset.labels))
        tensors = [tensor.to(device) for tensor in [*inputs, labels]]
        self._batches = list(zip(*(torch.split(tensor, _BATCH) for tensor in tensors), strict=True))

    def outputs(self, weights: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.float32], float]:
        """Return ``probabilities`` ``(n, classes)`` and the mean loss.

        Raises:
            CheckpointMismatchError: The weights are another model's.
        """
        model = load_weights(self._task, weights) if set(weights) != set(self._model.state_dict()) else self._model
        if model is self._model:
            model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        logits, losses = [], []
        with torch.no_grad():
            for *inputs, labels in self._batches:
                out = self._logits(*inputs)
                losses.append(float(self._loss(out, labels)) * len(labels))
                logits.append(torch.softmax(out, dim=-1) if self._task.postprocess == "softmax" else out)
        probabilities: NDArray[np.float32] = torch.cat(logits).cpu().numpy()
        return probabilities, sum(losses) / max(1, len(self._dataset))

    def measure(self, weights: Mapping[str, NDArray[np.generic]]) -> dict[str, float]:
        """Return ``loss`` and every metric of the task, also for each value of its subgroup.

        Raises:
            CheckpointMismatchError: The weights are another model's.
        """
        probabilities, loss = self.outputs(weights)
        return {"loss": loss, **metrics_of(self._task, probabilities, self._dataset)}


def metrics_of(task: Task, probabilities: NDArray[np.generic], dataset: Dataset) -> dict[str, float]:
    """Return each metric of *task*, and ``metric[column=value]`` for each value of its subgroup column.

    Args:
        task: Says which metrics and which column.
        probabilities: ``(n, classes)``.
        dataset: The labels and columns.
    """
    found = task.measure(probabilities, dataset.labels)
    if task.subgroup is not None:
        column = np.asarray(dataset.columns[task.subgroup])
        for value in np.unique(column):
            chosen = column == value
            measured = task.measure(probabilities[chosen], dataset.labels[chosen])
            found |= {f"{name}[{task.subgroup}={value}]": number for name, number in measured.items()}
    return found
