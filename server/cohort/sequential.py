"""The plain loop over a cohort: what every other engine's results must equal to 1e-5. Needs torch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from hedgerow.closing import Closing
from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import CohortUpdate, StackedWeights, Weights
from hedgerow.server.cohort.errors import ClientTrainingError
from hedgerow.server.cohort.memory import weights_bytes
from hedgerow.server.local_steps import LocalTrainer, StepsTaken, draws_random_numbers
from hedgerow.task import Dataset, Task
from hedgerow.task_module import as_given, parts_of, wanted_tensors

__all__ = ["ResidentData", "SequentialEngine"]

_EACH_BYTES = 256 * 2**20
"""So much memory one slice's updates may take when every client's are asked for."""


class ResidentData:
    """A data set as tensors on one device.

    Attributes:
        inputs: One tensor for each of the task's inputs, in their order, samples first.
        wanted: The target values of each output, samples first.
    """

    def __init__(self, task: Task, dataset: Dataset, device: str) -> None:
        arrays = [dataset.inputs[spec.name] for spec in task.inputs]
        # torch takes neither read-only nor reversed arrays as they are; others are not copied.
        self.inputs = [_tensor(array).to(device) for array in arrays]
        self.wanted = parts_of(wanted_tensors(task, dataset, device))

    def __len__(self) -> int:
        return len(self.inputs[0])


def _tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


class SequentialEngine(Closing):
    """Trains clients one after the other with one resident model.

    Args:
        task: What to learn.
        dataset: The samples of all clients.
        clients: Who owns which.
        device: Torch's name of it.
    """

    name = "sequential"

    def __init__(self, task: Task, dataset: Dataset, clients: ClientIndex, *, device: str = "cpu") -> None:
        self._device, self._clients = device, clients
        self._data = ResidentData(task, dataset, device)
        self._trainer = LocalTrainer(task, reseeds=draws_random_numbers(task, dataset), device=device)

    def close(self) -> None:
        """Nothing is to be ended."""

    def train(
        self,
        weights: Weights,
        clients: Sequence[int],
        work: LocalWork,
        *,
        each: bool,
        corrections: StackedWeights | None = None,
    ) -> Iterator[CohortUpdate]:
        """Train *clients* from *weights*; see :class:`hedgerow.server.cohort.engine.CohortEngine`.

        Raises:
            ClientTrainingError: The task's code exited.
        """
        limit = max(1, _EACH_BYTES // max(1, weights_bytes(weights))) if each else len(clients)
        for start in range(0, len(clients), max(1, limit)):
            rows = range(start, min(start + limit, len(clients)))
            yield self._train_slice(weights, clients, rows, work, each=each, corrections=corrections)

    def _train_slice(
        self,
        weights: Weights,
        clients: Sequence[int],
        rows: range,
        work: LocalWork,
        *,
        each: bool,
        corrections: StackedWeights | None,
    ) -> CohortUpdate:
        examples = np.array([self._clients.size(clients[row]) for row in rows], dtype=np.int64)
        shares = examples / examples.sum()
        taken: list[StepsTaken] = []
        if each:
            sums = {name: tensor.new_empty((len(rows), *tensor.shape)) for name, tensor in weights.items()}
        else:
            sums = {name: torch.zeros_like(tensor, dtype=_sum_type(tensor)) for name, tensor in weights.items()}
        for place, row in enumerate(rows):
            taken.append(self._train_client(weights, clients[row], row, work, corrections))
            for name, tensor in self._trainer.tensors.items():
                if each:
                    sums[name][place] = tensor
                else:
                    sums[name].add_(tensor, alpha=shares[place])
        return CohortUpdate(
            clients=tuple(clients[row] for row in rows),
            examples=examples,
            losses=np.array([steps.loss for steps in taken]),
            norms=np.array([steps.norm for steps in taken]),
            mean=None if each else sums,
            each=sums if each else None,
        )

    def _train_client(
        self, weights: Weights, client: int, row: int, work: LocalWork, corrections: StackedWeights | None
    ) -> StepsTaken:
        try:
            return self._trainer.take_steps(
                weights,
                self._data.inputs,
                as_given(self._data.wanted),
                work.of_client(client),
                corrections={name: stack[row] for name, stack in corrections.items()} if corrections else None,
                positions=torch.from_numpy(np.array(self._clients.indices(client))).to(self._device),
            )
        except SystemExit as exc:  # the task's code ends a client, and not this program without a word
            raise ClientTrainingError(client, f"it exited with {exc.code}") from exc


def _sum_type(tensor: torch.Tensor) -> torch.dtype:
    """Whole numbers (BatchNorm's count of batches) have means that are not whole."""
    return tensor.dtype if tensor.is_floating_point() else torch.float32
