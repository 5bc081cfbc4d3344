"""What the agent says of itself, made from what it knows: reports, progress, outcomes. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from hedgerow.client.actions import Send
from hedgerow.client.agent_state import AgentState
from hedgerow.wire.device import Desired, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.topics import Channel

__all__ = ["next_report", "outcome_of", "progress_of", "sends"]


def next_report(state: AgentState) -> tuple[AgentState, list[Send]]:
    """Return the state with the number of its next report used up, and that report."""
    identity = state.identity
    message = Reported(
        boot=identity.boot,
        sequence=state.sequence,
        desired_version=state.acted_version,
        release=state.active,
        previous=state.previous,
        target=identity.target,
        agent_version=identity.agent_version,
        runtimes=identity.runtimes,
        problems=state.problems,
    )
    return replace(state, sequence=state.sequence + 1), [Send(Channel.REPORTED, message)]


def progress_of(state: AgentState, step: str) -> Iterator[Send]:
    """Yield the message that says how far a rollout's installation is, where a rollout asked for it."""
    desired = state.installing
    if desired is not None and desired.rollout is not None:
        message = Execution(
            rollout=desired.rollout, attempt=desired.attempt, state=ExecutionState.IN_PROGRESS, step=step
        )
        yield Send(Channel.EXECUTION, message)


def outcome_of(desired: Desired, execution: ExecutionState, reason: str) -> Execution | None:
    """Return the terminal message about *desired*, or None where no rollout asked for it."""
    if desired.rollout is None:
        return None
    return Execution(rollout=desired.rollout, attempt=desired.attempt, state=execution, reason=reason[:1024])


def sends(state: AgentState, *messages: Send) -> tuple[Send, ...]:
    """Return *messages* while the link is up, and nothing else: on the next connection everything is said again."""
    return messages if state.is_connected else ()
