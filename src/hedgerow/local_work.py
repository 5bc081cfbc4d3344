"""What a client does in one round, as one value: from the task or a message, through grids and engines, to a device.

Pure, and checked when it is made.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hedgerow.batches import client_seed
from hedgerow.manifest.content import Blob
from hedgerow.task import LocalTraining
from hedgerow.wire.training import TrainTask

__all__ = ["OPTIMIZERS", "LocalWork", "Optimizer", "train_task_of", "work_of_train_task"]


class Optimizer(StrEnum):
    """How gradients become steps; each begins every round with fresh state."""

    SGD = "sgd"
    """As ``torch.optim.SGD``."""
    ADAM = "adam"
    """Kingma and Ba 2015, arXiv 1412.6980, with torch's defaults."""


OPTIMIZERS: tuple[str, ...] = tuple(str(optimizer) for optimizer in Optimizer)
"""Their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWork:
    """What clients do in one round.

    Attributes:
        epochs: Each client passes so many times over its samples.
        learning_rate: The step size.
        batch_size: A step takes so many samples; every batch is full, as ``hedgerow.batches.batch_indices`` makes them.
        seed: The run's; with *round* and *client* it gives the order of samples.
        round: The round's number, from 1.
        client: Whose work it is, as seeds and devices name it; see :meth:`of_client`.
        optimizer: One of :data:`OPTIMIZERS`.
        momentum: The momentum of SGD, as in ``torch.optim.SGD``.
        weight_decay: This share of each weight is added to its gradient.
        proximal_mu: The weight of FedProx's term mu/2 |w - w_global|^2 (Li et al. 2020, arXiv 1812.06127); 0: none.
        clip_norm: The update (new minus sent weights, floats only, over all tensors) is scaled down to this L2 norm
            (McMahan et al. 2018, arXiv 1710.06963); None: it is not clipped.
        minimum_samples: A device with fewer labelled samples declines.
        epochs_of: Clients that do fewer or more epochs, by their number -> their epochs (stragglers' partial work).
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int = 0
    round: int = 1
    client: str = "0"
    optimizer: str = Optimizer.SGD
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal_mu: float = 0.0
    clip_norm: float | None = None
    minimum_samples: int = 1
    epochs_of: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no client can do.

        Raises:
            ValueError: A number is out of its range, or there is no such optimizer.
        """
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"expected the optimizer {' or '.join(OPTIMIZERS)}, found {self.optimizer!r}")
        if min((self.epochs, *self.epochs_of.values())) < 1 or self.batch_size < 1:
            raise ValueError("expected at least one epoch for each client and one sample in a batch")
        rates = (self.learning_rate, self.momentum, self.weight_decay, self.proximal_mu)
        if not all(0 <= rate < math.inf for rate in rates) or not self.momentum < 1:
            raise ValueError(f"expected finite rates of at least 0 and a momentum below 1, found {self}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(f"expected a norm above 0 to clip to, found {self.clip_norm}")
        if self.round < 1 or self.seed < 0 or self.minimum_samples < 0:
            raise ValueError(f"expected a round from 1, a seed from 0 and a minimum from 0, found {self}")

    @classmethod
    def of_training(cls, local: LocalTraining, *, seed: int = 0, minimum_samples: int = 1) -> "LocalWork":
        """Return what a task asks of its clients: plain SGD.

        Args:
            local: The task's.
            seed: The run's.
            minimum_samples: A device with fewer labelled samples declines.
        """
        return cls(
            epochs=local.epochs,
            learning_rate=local.learning_rate,
            batch_size=local.batch_size,
            seed=seed,
            minimum_samples=minimum_samples,
        )

    def of_client(self, client: int) -> "LocalWork":
        """Return what the client of this number does."""
        return replace(self, client=str(client), epochs=self.epochs_by(client), epochs_of={})

    def epochs_by(self, client: int) -> int:
        """Return how many epochs the client of this number does."""
        return self.epochs_of.get(client, self.epochs)

    def steps(self, samples: int) -> int:
        """Return how many steps a client with so many samples takes."""
        return self.epochs * -(-samples // self.batch_size)

    @property
    def order_seed(self) -> int:
        """What seeds the order of the client's samples, and whatever else it draws."""
        return self.order_seed_of(self.client)

    def order_seed_of(self, client: int | str) -> int:
        """Return the :attr:`order_seed` of another client's work in the same round."""
        return client_seed(self.seed, self.round, str(client))

    @property
    def is_plain_sgd(self) -> bool:
        """Whether its steps follow the gradient of the loss and nothing else; what becomes of the update is open."""
        return self.optimizer == Optimizer.SGD and not (self.momentum or self.weight_decay or self.proximal_mu)


def train_task_of(
    work: LocalWork,
    *,
    run: str,
    release: str,
    weights: Blob,
    token: str,
    deadline_s: float,
    maximum_age_s: float | None = None,
) -> TrainTask:
    """Return *work* as the message that a device gets.

    What a train graph cannot do (``FleetGrid`` refuses it) and its batch size, which is the graph's own, are left out.

    Args:
        work: What devices do.
        run: The training run's identity.
        release: The release whose train graph they use.
        weights: The global weights.
        token: Lets the device fetch them and send its update.
        deadline_s: The round goes on without it after so many seconds.
        maximum_age_s: Samples that were labelled longer ago are left out; None: all count.
    """
    return TrainTask(
        run=run,
        round=work.round,
        release=release,
        weights=weights,
        token=token,
        epochs=work.epochs,
        learning_rate=work.learning_rate,
        seed=work.seed,
        minimum_samples=work.minimum_samples,
        deadline_s=deadline_s,
        maximum_age_s=maximum_age_s,
    )


def work_of_train_task(task: TrainTask, device: str, *, batch_size: int) -> LocalWork:
    """Return what the device of this name does for *task*.

    Args:
        task: As it came.
        device: Seeds the order of samples.
        batch_size: The train graph's.
    """
    return LocalWork(
        epochs=task.epochs,
        learning_rate=task.learning_rate,
        batch_size=batch_size,
        seed=task.seed,
        round=task.round,
        client=device,
        minimum_samples=task.minimum_samples,
    )
