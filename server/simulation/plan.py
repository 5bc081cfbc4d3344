"""What one simulated run is: numbers and names, without data or engines. Pure."""

from dataclasses import dataclass, replace

from hedgerow.errors import UnknownNameError
from hedgerow.local_work import OPTIMIZERS, LocalWork, Optimizer
from hedgerow.partition import Partition
from hedgerow.server.simulation.device_model import DeviceModel
from hedgerow.server.simulation.errors import SimulationError
from hedgerow.server.strategies import check_strategy
from hedgerow.task import LocalTraining

__all__ = ["ASYNCHRONOUS", "SimulationPlan"]

ASYNCHRONOUS = "fedbuff"
"""Asynchronous training (Nguyen et al. 2022, arXiv 2106.06639); Flower has no such strategy."""
_POINTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """One run.

    Attributes:
        clients: Registered virtual clients; None: as many as the column of the partition has values, else 100.
        cohort: Clients that train in a round.
        rounds: So many in all.
        strategy: Its name, as ``hedgerow.server.strategies.build_strategy`` takes it, or :data:`ASYNCHRONOUS`.
        partition: How the training data is spread; None: as the task says.
        samples: Each client has so many, on average; None: all there are, divided.
        seed: Decides the first weights, the partition, the sampling of clients, their order of samples and the devices.
        epochs, learning_rate, batch_size: What the clients' local steps are; None: what the task says.
        optimizer: ``sgd`` or ``adam``, with fresh state in each round.
        momentum, weight_decay: What local steps add to the gradient.
        devices: The device model; None: devices take no time and always answer.
        buffer: Updates that make a new version of the weights under the asynchronous strategy, where *cohort* is how
            many devices are at work at any time and a round is a version; None: half the cohort.
        evaluate_every: Rounds from one evaluation on held-out data to the next; None: about a hundred in all. The last
            round is always evaluated.
        checkpoint_every: Rounds from one checkpoint to the next; None: by time, one in ten seconds or more.
    """

    clients: int | None = None
    cohort: int = 10
    rounds: int = 100
    strategy: str = "fedavg"
    partition: Partition | None = None
    samples: int | None = None
    seed: int = 0
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    optimizer: str = Optimizer.SGD
    momentum: float = 0.0
    weight_decay: float = 0.0
    devices: DeviceModel | None = None
    buffer: int | None = None
    evaluate_every: int | None = None
    checkpoint_every: int | None = None

    def work(self, task: LocalTraining) -> LocalWork:
        """Return what clients do in a round.

        Args:
            task: What the task says, for what the plan leaves open.

        Raises:
            SimulationError: A number is out of its range.
        """
        local = LocalTraining(
            learning_rate=task.learning_rate if self.learning_rate is None else self.learning_rate,
            batch_size=task.batch_size if self.batch_size is None else self.batch_size,
            epochs=task.epochs if self.epochs is None else self.epochs,
        )
        if mistakes := local.mistakes():
            raise SimulationError("local steps that a client can take", "; ".join(mistakes), "correct the numbers")
        return replace(
            LocalWork.of_training(local, seed=self.seed),
            optimizer=self.optimizer,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def check(self) -> None:
        """Refuse what contradicts itself; what depends on the data is checked when it is there.

        Raises:
            SimulationError: A number is out of its range, or two settings contradict each other.
            UnknownNameError: There is no such optimizer or strategy.
        StrategyOptionError: An option of the strategy is unknown or no number.
        """
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        if not 0 <= self.momentum < 1:
            raise SimulationError("a momentum of at least 0 and below 1", f"{self.momentum:g}", "choose another")
        if self.momentum and self.optimizer != Optimizer.SGD:
            raise SimulationError("momentum with sgd alone", f"it with {self.optimizer}", "leave one of both out")
        if not 0 <= self.weight_decay < 1:
            raise SimulationError(
                "a weight decay of at least 0 and below 1", f"{self.weight_decay:g}", "choose another"
            )
        if self.cohort < 1 or self.rounds < 1 or (self.clients is not None and self.clients < 1):
            found = f"{self.clients} clients, a cohort of {self.cohort} and {self.rounds} rounds"
            raise SimulationError("at least one client, a cohort of one and one round", found, "correct the numbers")
        if self.strategy == ASYNCHRONOUS:
            self._check_asynchronous()
        else:
            check_strategy(self.strategy)
        if self.buffer is not None and self.strategy != ASYNCHRONOUS:
            raise SimulationError(
                f"a buffer with the strategy {ASYNCHRONOUS} alone", f"it with {self.strategy}", "leave one of both out"
            )
        if self.devices is not None:
            self.devices.check()
        if self.devices is not None and self.devices.wait_for is not None and self.devices.wait_for > self.cohort:
            raise SimulationError(
                f"at most the cohort's {self.cohort} clients to wait for",
                f"{self.devices.wait_for}",
                "ask more clients",
            )

    def _check_asynchronous(self) -> None:
        if self.devices is None:
            raise SimulationError(
                f"a device model for the asynchronous strategy {ASYNCHRONOUS}", "none", "add --population phones"
            )
        if self.devices.deadline_s is not None or self.devices.wait_for is not None or self.devices.keep_partial:
            raise SimulationError(
                f"no round's end for the asynchronous strategy {ASYNCHRONOUS}, which has no rounds",
                "a deadline, partial work or a number to wait for",
                "leave it out",
            )
        if self.buffer is not None and not 1 <= self.buffer <= self.cohort:
            raise SimulationError(
                f"a buffer of 1 to {self.cohort} updates, which is how many devices are at work",
                f"{self.buffer}",
                "choose another",
            )

    def buffered(self) -> int:
        """Return how many updates make a version under the asynchronous strategy."""
        return max(1, self.cohort // 2) if self.buffer is None else self.buffer

    def evaluates(self, number: int) -> bool:
        """Tell whether the weights are measured after round *number*."""
        every = self.evaluate_every or max(1, self.rounds // _POINTS)
        return number % every == 0 or number >= self.rounds
