"""What the agent knows and decides, as a pure function: state and event in, state and actions out.

The rim (agent.py) turns messages, finished work and time into events and carries out the actions. Messages are only
sent while the link is up; whatever was not heard is said again on the next connection, so nothing relies on a queue.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hedgerow.client.actions import Action, Compare, FallBack, FlushSpool, Install, Prove, RetryLater, Save, Send, Train
from hedgerow.client.events import (
    DesiredArrived,
    Event,
    HealthChanged,
    Installed,
    InstallFailed,
    LinkDown,
    LinkUp,
    Proved,
    Restored,
    RetryDue,
    StepEntered,
    TrainArrived,
    Trained,
    Unhealthy,
    WindowStored,
)
from hedgerow.decode import Fields
from hedgerow.manifest import RELEASE_ID
from hedgerow.wire import (
    VERSION_JUMP,
    VERSION_LIMIT,
    Channel,
    Desired,
    Execution,
    ExecutionState,
    Presence,
    Reported,
    TrainTask,
    TrainUpdate,
)

__all__ = ["AgentState", "Identity", "Step", "advance", "jumps_too_far"]

_ANSWERS_KEPT = 16
_LONGEST_RETRY_S = 300.0


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
        identity: Of this start.
        active, previous: Releases in the slots.
        is_connected: Whether the link is up.
        sequence: Of the next report.
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
        fields.finish()
        return state

    @property
    def wants_comparison(self) -> bool:
        """Whether the model before should run on the same inputs."""
        return self.desired is not None and self.desired.compare and self.desired.release == self.active


Step = tuple[AgentState, tuple[Action, ...]]


def advance(state: AgentState, event: Event) -> Step:
    """Return the state after *event*, and what is to be done about it, in order."""
    match event:
        case Restored():
            return _restored(state, event)
        case LinkUp():
            return _link_up(replace(state, is_connected=True))
        case LinkDown():
            return replace(state, is_connected=False), ()
        case DesiredArrived(desired):
            return _desired_arrived(state, desired)
        case StepEntered(step):
            return state, _sends(state, *_progress(state, step))
        case Installed(active, previous):
            return _installed(replace(state, active=active, previous=previous))
        case Proved():
            return _proved(replace(state, is_proving=False))
        case Unhealthy(reason):
            # Falling back is the end of the installation, and nothing else begins before it is over.
            ending = state.installing or _installed_before(state)
            return replace(state, is_proving=False, installing=ending), (FallBack(reason),)
        case InstallFailed():
            is_proving = event.active is not None and not event.is_proved
            held = replace(state, active=event.active, previous=event.previous, is_proving=is_proving)
            return _install_failed(held, event)
        case RetryDue():
            return (state, ()) if state.is_settled or state.installing or state.is_proving else _begin(state)
        case TrainArrived(task):
            return _train_arrived(state, task)
        case Trained(update):
            return _trained(state, update)
        case WindowStored():
            return state, ((FlushSpool(),) if state.is_connected else ())
        case HealthChanged(problems):
            state, report = _report(replace(state, problems=problems))
            return state, _sends(state, *report)


def _restored(state: AgentState, event: Restored) -> Step:
    is_proving = event.active is not None and not event.is_proved
    state = replace(state, active=event.active, previous=event.previous, is_proving=is_proving)
    prove: tuple[Action, ...] = (Prove(),) if event.active is not None else ()
    if event.crashed is not None:
        state, saved = _given_up(state, event.crashed, event.reason)
        if state.is_settled or state.desired is None:
            return state, (*saved, *prove)
    desired = state.desired
    if desired is None:
        return state, prove
    if event.is_lost and desired.release != state.active:
        # Not acted on any more: a report that named this version with another release would say that it was refused.
        acted = min(state.acted_version, max(0, desired.version - 1))
        state = replace(state, is_settled=False, acted_version=acted)
    if state.is_settled:
        return state, (*prove, Compare(state.wants_comparison))
    if state.is_proving and not _may_overtake(state, desired):
        return state, prove
    state, actions = _begin(state)
    return state, (*prove, *actions)


def _given_up(state: AgentState, release: str, reason: str) -> Step:
    """What was wanted was given up. It is not installed again on its own: it would end the same way."""
    desired, outcome = state.desired, state.outcome
    is_wanted = desired is not None and desired.release == release
    failed = _outcome(desired, ExecutionState.FAILED, reason) if desired is not None and is_wanted else None
    if failed is None and outcome is not None and state.outcome_release == release:
        # Wanted for its own sake by now, but a rollout still counts it as a success.
        failed = replace(outcome, state=ExecutionState.FAILED, step="", reason=reason[:1024])
    if failed is not None:
        state = replace(state, outcome=failed, outcome_release=release)
    if desired is not None and is_wanted:
        state = replace(state, is_settled=True, acted_version=desired.version)
    return state, (Save(),)


def _link_up(state: AgentState) -> Step:
    messages: list[Send] = [Send(Channel.PRESENCE, Presence(online=True, boot=state.identity.boot), retain=True)]
    # Before the report, which may show the same without saying why.
    if state.installing is not None:
        messages += _progress(state, "")
    elif state.outcome is not None:
        messages.append(Send(Channel.EXECUTION, state.outcome))
    state, report = _report(state)
    messages += report
    if state.answers:
        messages.append(Send(Channel.UPDATE, state.answers[-1]))
    return state, (*messages, FlushSpool())


def jumps_too_far(state: AgentState, desired: Desired) -> bool:
    """Return whether *desired* lies further above what was accepted than one step of the fleet can lead."""
    seen = state.desired.version if state.desired is not None else 0
    return desired.version > seen + VERSION_JUMP


def _desired_arrived(state: AgentState, desired: Desired) -> Step:
    if jumps_too_far(state, desired):
        # Nothing of it is kept: whoever made the number up would be the last to be listened to. A fleet that really is
        # so far ahead learns from the report where to go on.
        state, report = _report(state)
        return state, _sends(state, *report)
    seen = state.desired.version if state.desired is not None else 0
    if desired.version <= seen:
        # Not while it has yet to be acted on: a report of the older version would be asked about again, for ever.
        # Version 0 asks for no more than a sign of life, and gets it.
        is_idle = state.desired is None or (state.is_settled and state.installing is None)
        return _answered_again(state, desired) if is_idle or desired.version == 0 else (state, ())
    state = replace(state, desired=desired, is_settled=False, failures=0)
    if _may_overtake(state, desired) if state.is_proving else state.installing is None:
        state, actions = _begin(state)
        return state, (Save(), *actions)
    return state, (Save(),)


def _answered_again(state: AgentState, desired: Desired) -> Step:
    """Asked for what was seen before, or with version 0 for a report alone: an answer may have been lost."""
    state, report = _report(state)
    if state.outcome is not None and state.outcome.rollout == desired.rollout:
        report = [*report, Send(Channel.EXECUTION, state.outcome)]
    return state, _sends(state, *report)


def _may_overtake(state: AgentState, desired: Desired) -> bool:
    """Whether *desired* may begin while the active release has yet to prove itself.

    Going back does not wait for that. A third release does: it would take the place of the only one that is proved.
    """
    return desired.release in {None, state.active, state.previous}


def _begin(state: AgentState) -> Step:
    desired = state.desired
    if desired is None:
        return state, ()
    if desired.release == state.active:
        state = replace(state, installing=desired)
        if not state.is_proving:
            return _succeeded_and_compared(state)
        return state, (Compare(state.wants_comparison), *_sends(state, *_progress(state, "swap")))
    state = replace(state, installing=desired, is_proving=False)
    return state, (*_sends(state, *_progress(state, "")), Install(desired.release))


def _installed_before(state: AgentState) -> Desired:
    """Return what the active release is on trial for since a restart: what is wanted, or else no rollout's business."""
    desired = state.desired
    if desired is not None and desired.release == state.active:
        return desired
    return Desired(version=state.acted_version, release=state.active)


def _installed(state: AgentState) -> Step:
    if state.active is None:
        return _succeeded_and_compared(state)
    state, report = _report(replace(state, is_proving=True))
    compared: tuple[Action, ...] = (Prove(), Compare(state.wants_comparison), *_sends(state, *report))
    desired = state.desired
    is_overtaken = desired is not None and state.installing is not None and desired.version != state.installing.version
    if is_overtaken and desired is not None and _may_overtake(state, desired):
        state, actions = _begin(state)
        return state, (*compared, *actions)
    return state, compared


def _succeeded_and_compared(state: AgentState) -> Step:
    state, actions = _finished(state, ExecutionState.SUCCEEDED, "")
    return state, (Compare(state.wants_comparison), *actions)


def _proved(state: AgentState) -> Step:
    if state.installing is not None and state.installing.release == state.active:
        committing = _sends(state, *_progress(state, "commit"))
        state, actions = _finished(state, ExecutionState.SUCCEEDED, "")
        return state, (*committing, *actions)
    if state.installing is None and not state.is_settled:
        return _begin(state)
    return state, ()


def _install_failed(state: AgentState, event: InstallFailed) -> Step:
    done = state.installing
    is_newest = done is not None and state.desired is not None and done.version == state.desired.version
    if done is not None and is_newest and done.rollout is None and not event.is_final:
        # No rollout counts the attempts, so the device itself keeps trying.
        state, report = _report(replace(state, installing=None, failures=state.failures + 1))
        return state, (*_sends(state, *report), RetryLater(min(_LONGEST_RETRY_S, 2.0 ** (state.failures - 1))))
    compare = Compare(state.wants_comparison)
    execution = ExecutionState.REJECTED if event.is_final else ExecutionState.FAILED
    state, actions = _finished(state, execution, event.reason)
    return state, (compare, *actions)


def _finished(state: AgentState, execution: ExecutionState, reason: str) -> Step:
    done = state.installing
    if done is None:
        return state, ()
    outcome = _outcome(done, execution, reason)
    is_newest = state.desired is not None and state.desired.version == done.version
    state = replace(
        state,
        installing=None,
        failures=0,
        acted_version=done.version,
        outcome=outcome or state.outcome,
        outcome_release=done.release if outcome else state.outcome_release,
        is_settled=is_newest,
    )
    state, report = _report(state)
    terminal = [Send(Channel.EXECUTION, outcome)] if outcome else []
    actions: tuple[Action, ...] = (Save(), *_sends(state, *report, *terminal))
    if state.is_settled or state.desired is None or (state.is_proving and not _may_overtake(state, state.desired)):
        return state, actions
    state, more = _begin(state)
    return state, (*actions, *more)


def _train_arrived(state: AgentState, task: TrainTask) -> Step:
    key = (task.run, task.round)
    for answer in state.answers:
        if (answer.run, answer.round) == key:
            return state, _sends(state, Send(Channel.UPDATE, answer))
    if any(busy is not None and (busy.run, busy.round) == key for busy in (state.training, state.waiting)):
        return state, ()
    if state.training is None:
        return replace(state, training=task), (Train(task),)
    dropped = state.waiting
    state = replace(state, waiting=task)
    if dropped is None:
        return state, ()
    update = TrainUpdate(
        run=dropped.run, round=dropped.round, state="declined", reason="a newer round came before this one could start"
    )
    return _answered(state, update)


def _trained(state: AgentState, update: TrainUpdate) -> Step:
    state, actions = _answered(replace(state, training=state.waiting, waiting=None), update)
    return state, (*actions, Train(state.training)) if state.training else actions


def _answered(state: AgentState, update: TrainUpdate) -> Step:
    state = replace(state, answers=(*state.answers, update)[-_ANSWERS_KEPT:])
    return state, _sends(state, Send(Channel.UPDATE, update))


def _outcome(desired: Desired, execution: ExecutionState, reason: str) -> Execution | None:
    if desired.rollout is None:
        return None
    return Execution(rollout=desired.rollout, attempt=desired.attempt, state=execution, reason=reason[:1024])


def _progress(state: AgentState, step: str) -> Iterator[Send]:
    desired = state.installing
    if desired is not None and desired.rollout is not None:
        message = Execution(
            rollout=desired.rollout, attempt=desired.attempt, state=ExecutionState.IN_PROGRESS, step=step
        )
        yield Send(Channel.EXECUTION, message)


def _report(state: AgentState) -> tuple[AgentState, list[Send]]:
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


def _sends(state: AgentState, *messages: Send) -> tuple[Send, ...]:
    return messages if state.is_connected else ()
