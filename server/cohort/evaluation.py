"""One model measured on the samples of many virtual clients, in batches over all of them. Needs torch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import Weights
from hedgerow.task import Dataset, Task
from hedgerow.task_module import LogitsModule, loss_function

__all__ = ["CohortEvaluator"]

_BATCH = 512
_SAMPLES = 65536
"""So many samples are gathered at once; clients with more are measured alone."""


class CohortEvaluator:
    """Fills one resident model once for a whole cohort; only losses and metrics are taken client by client."""

    def __init__(
        self, task: Task, dataset: Dataset, clients: ClientIndex, *, device: str = "cpu", gathered: int = _SAMPLES
    ) -> None:
        self._gathered = gathered
        self._task, self._clients, self._device = task, clients, device
        self._model = task.model().eval().to(device)
        self._logits = LogitsModule(task, self._model).eval()
        self._loss = loss_function(task)
        self._inputs = [
            torch.from_numpy(np.require(dataset.inputs[s.name], requirements=["C", "W"])) for s in task.inputs
        ]
        self._labels = np.ascontiguousarray(dataset.labels)

    def measure(self, weights: Weights, clients: Sequence[int]) -> Iterator[dict[str, float]]:
        """Measure *weights* on the samples of each of *clients*.

        Args:
            weights: All parameters and buffers.
            clients: Their numbers; each owns at least one sample.

        Yields:
            ``loss`` and the task's metrics of each client, in the order given.
        """
        self._model.load_state_dict({name: tensor.to(self._device) for name, tensor in weights.items()})
        for group in self._groups(clients):
            shards = [self._clients.indices(client) for client in group]
            logits = self._outputs(np.concatenate(shards))
            start = 0
            for shard in shards:
                yield self._of_client(logits[start : start + len(shard)], self._labels[shard])
                start += len(shard)

    def _groups(self, clients: Sequence[int]) -> Iterator[list[int]]:
        group: list[int] = []
        samples = 0
        for client in clients:
            size = self._clients.size(client)
            if group and samples + size > self._gathered:
                yield group
                group, samples = [], 0
            group.append(client)
            samples += size
        if group:
            yield group

    def _outputs(self, indices: NDArray[np.int64]) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat(
                [
                    self._logits(*(tensor[chosen].to(self._device) for tensor in self._inputs)).cpu()
                    for chosen in torch.split(torch.from_numpy(indices), _BATCH)
                ]
            )

    def _of_client(self, logits: torch.Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
        loss = float(self._loss(logits, torch.from_numpy(labels)))
        outputs = torch.softmax(logits, dim=-1) if self._task.postprocess == "softmax" else logits
        probabilities = outputs.numpy()
        return {"loss": loss, **self._task.measure(probabilities, labels)}
