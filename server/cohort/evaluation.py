"""One model measured on the samples of many virtual clients, in batches over all of them. Needs torch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import Weights
from hedgerow.task import Dataset, Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import ServingModule, as_given, parts_of, wanted_tensors

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
        self._serving = ServingModule(task, self._model).eval()
        self._loss = loss_function(task)
        self._inputs = [
            torch.from_numpy(np.require(dataset.inputs[s.name], requirements=["C", "W"])) for s in task.inputs
        ]
        self._wanted = parts_of(wanted_tensors(task, dataset))

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
            given = self._outputs(np.concatenate(shards))
            start = 0
            for shard in shards:
                rows = torch.from_numpy(np.array(shard))
                own = [part[start : start + len(shard)] for part in given]
                yield self._of_client(own, [tensor[rows] for tensor in self._wanted])
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

    def _outputs(self, indices: NDArray[np.int64]) -> list[torch.Tensor]:
        with torch.no_grad():
            batches = [
                parts_of(self._serving.logits(*(tensor[chosen].to(self._device) for tensor in self._inputs)))
                for chosen in torch.split(torch.from_numpy(indices), _BATCH)
            ]
        return [torch.cat([part.cpu() for part in parts]) for parts in zip(*batches, strict=True)]

    def _of_client(self, given: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> dict[str, float]:
        loss = float(self._loss(as_given(given), as_given(wanted)))
        answers = self._serving.answers(as_given(given), sequences=bool(self._task.state))
        found, known = (
            dict(zip(self._task.answers, (tensor.numpy() for tensor in tensors), strict=True))
            for tensors in (answers, wanted)
        )
        outputs = self._task.answers.measured(self._task.rows(found), self._task.rows(known))
        return {"loss": loss, **self._task.measure(found, known, outputs)}
