"""What the agent knows, as one frozen value; agent_rules.py decides by it."""

from dataclasses import dataclass
from typing import Any

from hedgerow.client.actions import Action
from hedgerow.decode import Fields
from hedgerow.manifest.release import RELEASE_ID
from hedgerow.wire.device import VERSION_LIMIT, Desired
from hedgerow.wire.execution import Execution
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = ["AgentState", "Decision", "Identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What does not change while the agent runs.

    Attributes:
        boot: Random identity of this start.
        target: Hardware target.
        agent_version: Version of Hedgerow.
        runtimes: Runtimes that can be loaded.
    """

    boot: str
    target: str
    agent_version: str
    runtimes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """Everything that decides what the agent does next.

    Attributes:
        identity: What does not change in this start.
        active, previous: Releases in the slots.
        is_connected: Whether the link is up.
        sequence: The number of the next report.
        desired: The last version that was accepted. Durable.
        is_settled: Whether there is nothing left to do for *desired*. Durable.
        acted_version: The last version that was acted on. Durable.
        outcome: The last terminal message about a rollout. Durable.
        outcome_release: The release that it was about. Durable.
        installing: What is being installed now, until its release was healthy for a whole health period.
        is_proving: Whether the active release has yet to be healthy for a whole health period.
        failures: Failed installations in a row without a rollout that would count them.
        training: The round that is being trained now.
        waiting: The round that comes next.
        answers: Rounds that were answered, newest last.
        problems: What does not work now.
    """

    identity: Identity
    active: str | None = None
    previous: str | None = None
    is_connected: bool = False
    sequence: int = 0
    desired: Desired | None = None
    is_settled: bool = True
    acted_version: int = 0
    outcome: Execution | None = None
    outcome_release: str | None = None
    installing: Desired | None = None
    is_proving: bool = False
    failures: int = 0
    training: TrainTask | None = None
    waiting: TrainTask | None = None
    answers: tuple[TrainUpdate, ...] = ()
    problems: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return the durable part as plain JSON values."""
        return {
            "desired": self.desired.to_record() if self.desired else None,
            "is_settled": self.is_settled,
            "acted_version": self.acted_version,
            "outcome": self.outcome.to_record() if self.outcome else None,
            "outcome_release": self.outcome_release,
        }

    @classmethod
    def from_fields(cls, identity: Identity, fields: Fields) -> "AgentState":
        """Decode the durable part.

        Raises:
            DecodeError: A field is wrong.
        """
        desired, outcome = fields.optional("desired"), fields.optional("outcome")
        state = cls(
            identity=identity,
            desired=Desired.from_fields(desired) if desired else None,
            is_settled=fields.boolean("is_settled"),
            acted_version=fields.integer("acted_version", maximum=VERSION_LIMIT),
            outcome=Execution.from_fields(outcome) if outcome else None,
            outcome_release=fields.optional_text("outcome_release", pattern=RELEASE_ID),
        )
        for record in (desired, outcome, fields):
            if record is not None:
                record.finish()
        return state

    @property
    def wants_comparison(self) -> bool:
        """Whether the model before should run on the same inputs."""
        return self.desired is not None and self.desired.compare and self.desired.release == self.active


Decision = tuple[AgentState, tuple[Action, ...]]
"""What is known after an event, and what is to be done about it, in order."""
