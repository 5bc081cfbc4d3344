"""What a simulated run brought: facts, a record, and lines for people."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.checkpoint import Checkpoint
from hedgerow.counted import counted
from hedgerow.server.accounting import PrivacyStatement
from hedgerow.server.outcome import refusals, shown_refusals
from hedgerow.server.run_records import RoundRecord
from hedgerow.server.simulation.plan import SimulationPlan

__all__ = ["SimulationResult", "shown_time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a run brought.

    Attributes:
        folder: The run's.
        checkpoint: The last weights, with the held-out metrics.
        history: One record a round.
        plan: What was run, with nothing left open.
        engine: Name of the engine.
        reason: Why that one.
        device: Torch's name of what trained.
        notes: What may surprise, one sentence each.
        outcomes: With a device model, what became of the devices that were asked (``done``, ``partial``, ``late``,
            ``dropped``, ``unavailable``) -> how many, in all rounds; else empty.
        plots: The drawn files.
        shown: Lines of the metrics, as :func:`hedgerow.server.outcome.shown_metrics` makes them.
        privacy: What the run can promise; None: it promised nothing.
    """

    folder: Path
    checkpoint: Checkpoint
    history: tuple[RoundRecord, ...]
    plan: SimulationPlan
    engine: str
    reason: str
    device: str
    notes: tuple[str, ...]
    outcomes: Mapping[str, int]
    plots: tuple[Path, ...]
    shown: tuple[str, ...] = ()
    privacy: PrivacyStatement | None = None

    @property
    def seconds(self) -> float:
        """Wall-clock time of all rounds, also of those before a resume."""
        return sum(record.seconds for record in self.history)

    @property
    def updates(self) -> int:
        """Clients' updates that were averaged, in all rounds."""
        return sum(record.used for record in self.history)

    @property
    def clients_per_s(self) -> float:
        """Updates a second of wall-clock time."""
        return self.updates / self.seconds if self.seconds else 0.0

    @property
    def virtual_s(self) -> float | None:
        """Time on the virtual clock at the end; None without a device model."""
        return self.history[-1].virtual_s if self.history else None

    @property
    def failures(self) -> dict[str, int]:
        """Why updates were not used -> how many of those that the rounds name, the most frequent first."""
        return dict(Counter(reason for record in self.history for reason in record.failures.values()).most_common())

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values; the rounds are in a file of their own."""
        plan = self.plan
        return {
            "task": self.checkpoint.task,
            "run": self.checkpoint.run,
            "strategy": plan.strategy,
            "clients": plan.clients,
            "cohort": plan.cohort,
            "partition": str(plan.partition),
            "seed": plan.seed,
            "epochs": plan.epochs,
            "learning_rate": plan.learning_rate,
            "batch_size": plan.batch_size,
            "rounds": len(self.history),
            "seconds": round(self.seconds, 3),
            "updates": self.updates,
            "clients_per_s": round(self.clients_per_s, 1),
            "virtual_s": self.virtual_s,
            "outcomes": dict(self.outcomes),
            "engine": self.engine,
            "engine_reason": self.reason,
            "device": self.device,
            "privacy": None if self.privacy is None else self.privacy.to_record(),
            "metrics": dict(self.checkpoint.metrics),
            "refused": refusals(self.history),
            "failures": self.failures,
            "notes": list(self.notes),
            "checkpoint": str(self.folder / "checkpoint"),
            "history": str(self.folder / "rounds.jsonl"),
            "plots": [str(path) for path in self.plots],
        }

    def lines(self) -> list[str]:
        """Return what people are shown at the end."""
        plan = self.plan
        shown, *more = self.shown or ("",)
        clients = f"{plan.cohort:,} of {counted(plan.clients or 0, 'client')} each"
        work = f"{counted(len(self.history), 'round')} of {plan.strategy}, {clients}"
        speed = f"{self.seconds:.1f} s, {self.clients_per_s:,.0f} clients/s"
        found = [
            f"{self.checkpoint.task}: {work}, {plan.partition}; {shown}",
            *more,
            f"{speed}; engine {self.engine} on {self.device}: {self.reason}",
            f"updates: {self.updates:,} used, {shown_refusals(refusals(self.history))} refused",
            *([] if self.privacy is None else [self.privacy.line()]),
            *self.notes,
        ]
        if self.virtual_s is not None:
            counts = ", ".join(f"{count:,} {outcome}" for outcome, count in self.outcomes.items() if count)
            found.append(f"virtual time {shown_time(self.virtual_s)}; devices: {counts}")
        found.append(f"checkpoint: {self.folder / 'checkpoint'}")
        found.append(f"plots: {', '.join(str(path) for path in self.plots)}")
        return found


def shown_time(seconds: float) -> str:
    """Return *seconds* as people say them, such as ``3.2 h``."""
    for size, unit in ((2 * 86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / min(size, 86400.0):.1f} {unit}"
    return f"{seconds:.1f} s"
