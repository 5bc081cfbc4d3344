"""What the agent decides, as a pure function: state and event in, state and actions out.

The rim (agent.py) turns messages, finished work and time into events and carries out the actions. Messages are only
sent while the link is up; whatever was not heard is said again on the next connection, so nothing relies on a queue.
"""

from dataclasses import replace

from hedgerow.client.actions import FallBack, FlushSpool, Send, Train
from hedgerow.client.agent_state import AgentState, Decision
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
from hedgerow.client.install_rules import (
    begin,
    desired_arrived,
    install_failed,
    installed,
    installed_before,
    proved,
    restored,
)
from hedgerow.client.reports import next_report, progress_of, sends
from hedgerow.wire.device import Presence
from hedgerow.wire.topics import Channel
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = ["advance"]

_ANSWERS_KEPT = 16


def advance(state: AgentState, event: Event) -> Decision:
    """Return the state after *event*, and what is to be done about it, in order."""
    match event:
        case Restored():
            return restored(state, event)
        case LinkUp():
            return _link_up(replace(state, is_connected=True))
        case LinkDown():
            return replace(state, is_connected=False), ()
        case DesiredArrived(desired):
            return desired_arrived(state, desired)
        case StepEntered(step):
            return state, sends(state, *progress_of(state, step))
        case Installed(active, previous):
            return installed(replace(state, active=active, previous=previous))
        case Proved():
            return proved(replace(state, is_proving=False))
        case Unhealthy(reason):
            # Falling back is the end of the installation, and nothing else begins before it is over.
            ending = state.installing or installed_before(state)
            return replace(state, is_proving=False, installing=ending), (FallBack(reason),)
        case InstallFailed():
            is_proving = event.active is not None and not event.is_proved
            held = replace(state, active=event.active, previous=event.previous, is_proving=is_proving)
            return install_failed(held, event)
        case RetryDue():
            return (state, ()) if state.is_settled or state.installing or state.is_proving else begin(state)
        case TrainArrived(task):
            return _train_arrived(state, task)
        case Trained(update):
            return _trained(state, update)
        case WindowStored():
            return state, ((FlushSpool(),) if state.is_connected else ())
        case HealthChanged(problems):
            state, report = next_report(replace(state, problems=problems))
            return state, sends(state, *report)


def _link_up(state: AgentState) -> Decision:
    messages: list[Send] = [Send(Channel.PRESENCE, Presence(online=True, boot=state.identity.boot), retain=True)]
    # Before the report, which may show the same without saying why.
    if state.installing is not None:
        messages += progress_of(state, "")
    elif state.outcome is not None:
        messages.append(Send(Channel.EXECUTION, state.outcome))
    state, report = next_report(state)
    messages += report
    if state.answers:
        messages.append(Send(Channel.UPDATE, state.answers[-1]))
    return state, (*messages, FlushSpool())


def _train_arrived(state: AgentState, task: TrainTask) -> Decision:
    key = (task.run, task.round)
    for answer in state.answers:
        if (answer.run, answer.round) == key:
            return state, sends(state, Send(Channel.UPDATE, answer))
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


def _trained(state: AgentState, update: TrainUpdate) -> Decision:
    state, actions = _answered(replace(state, training=state.waiting, waiting=None), update)
    return state, (*actions, Train(state.training)) if state.training else actions


def _answered(state: AgentState, update: TrainUpdate) -> Decision:
    state = replace(state, answers=(*state.answers, update)[-_ANSWERS_KEPT:])
    return state, sends(state, Send(Channel.UPDATE, update))
