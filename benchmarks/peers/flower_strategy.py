"""Flower's FedAvg with a clock: a round ends when the next one is configured, as Flower's own loop goes."""

from typing import Any

from flwr.serverapp.strategy import FedAvg

from benchmarks.peers.report import Clock
from benchmarks.peers.works import Work

__all__ = ["TimedFedAvg"]


class TimedFedAvg(FedAvg):
    """Unchanged but for the clock. A cohort is drawn at random, nothing is evaluated."""

    def __init__(self, work: Work, clock: Clock) -> None:
        super().__init__(
            fraction_train=work.cohort / work.clients,
            fraction_evaluate=0.0,
            min_train_nodes=work.cohort,
            min_available_nodes=work.clients,
        )
        self._clock = clock

    def configure_evaluate(self, *arguments: Any, **named: Any) -> Any:
        """End a round; nothing is evaluated."""
        self._clock.lap()
        return super().configure_evaluate(*arguments, **named)
