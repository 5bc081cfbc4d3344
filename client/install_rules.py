"""What the agent does about the release that is wanted: when it begins, gives up, goes back and has succeeded. Pure."""

from dataclasses import replace

from hedgerow.client.actions import Action, Compare, Install, Prove, RetryLater, Save, Send
from hedgerow.client.agent_state import AgentState, Decision
from hedgerow.client.events import InstallFailed, Restored
from hedgerow.client.reports import next_report, outcome_of, progress_of, sends
from hedgerow.wire.device import VERSION_JUMP, Desired
from hedgerow.wire.execution import ExecutionState
from hedgerow.wire.topics import Channel

__all__ = [
    "begin",
    "desired_arrived",
    "install_failed",
    "installed",
    "installed_before",
    "jumps_too_far",
    "proved",
    "restored",
]

_LONGEST_RETRY_S = 300.0


def restored(state: AgentState, event: Restored) -> Decision:
    """Go on where the last start ended: with what was given up, lost, on trial or not installed yet."""
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
    state, actions = begin(state)
    return state, (*prove, *actions)


def _given_up(state: AgentState, release: str, reason: str) -> Decision:
    """What was wanted was given up. It is not installed again on its own: it would end the same way."""
    desired, outcome = state.desired, state.outcome
    is_wanted = desired is not None and desired.release == release
    failed = outcome_of(desired, ExecutionState.FAILED, reason) if desired is not None and is_wanted else None
    if failed is None and outcome is not None and state.outcome_release == release:
        # Wanted for its own sake by now, but a rollout still counts it as a success.
        failed = replace(outcome, state=ExecutionState.FAILED, step="", reason=reason[:1024])
    if failed is not None:
        state = replace(state, outcome=failed, outcome_release=release)
    if desired is not None and is_wanted:
        state = replace(state, is_settled=True, acted_version=desired.version)
    return state, (Save(),)


def jumps_too_far(state: AgentState, desired: Desired) -> bool:
    """Return whether *desired* lies further above what was accepted than one step of the fleet can lead."""
    seen = state.desired.version if state.desired is not None else 0
    return desired.version > seen + VERSION_JUMP


def desired_arrived(state: AgentState, desired: Desired) -> Decision:
    """Take what the fleet wants, unless its number jumps too far; what was seen before is only answered again."""
    if jumps_too_far(state, desired):
        # Nothing of it is kept: whoever made the number up would be the last to be listened to. A fleet that really is
        # so far ahead learns from the report where to go on.
        state, report = next_report(state)
        return state, sends(state, *report)
    seen = state.desired.version if state.desired is not None else 0
    if desired.version <= seen:
        # Not while it has yet to be acted on: a report of the older version would be asked about again, for ever.
        # Version 0 asks for no more than a sign of life, and gets it.
        is_idle = state.desired is None or (state.is_settled and state.installing is None)
        return _answered_again(state, desired) if is_idle or desired.version == 0 else (state, ())
    state = replace(state, desired=desired, is_settled=False, failures=0)
    if _may_overtake(state, desired) if state.is_proving else state.installing is None:
        state, actions = begin(state)
        return state, (Save(), *actions)
    return state, (Save(),)


def _answered_again(state: AgentState, desired: Desired) -> Decision:
    """Asked for what was seen before, or with version 0 for a report alone: an answer may have been lost."""
    state, report = next_report(state)
    if state.outcome is not None and state.outcome.rollout == desired.rollout:
        report = [*report, Send(Channel.EXECUTION, state.outcome)]
    return state, sends(state, *report)


def _may_overtake(state: AgentState, desired: Desired) -> bool:
    """Whether *desired* may begin while the active release has yet to prove itself.

    Going back does not wait for that. A third release does: it would take the place of the only one that is proved.
    """
    return desired.release in {None, state.active, state.previous}


def begin(state: AgentState) -> Decision:
    """Begin with what is wanted: install it, unless it is active; then it succeeds as soon as it has proved itself."""
    desired = state.desired
    if desired is None:
        return state, ()
    if desired.release == state.active:
        state = replace(state, installing=desired)
        if not state.is_proving:
            return _succeeded_and_compared(state)
        return state, (Compare(state.wants_comparison), *sends(state, *progress_of(state, "swap")))
    state = replace(state, installing=desired, is_proving=False)
    return state, (*sends(state, *progress_of(state, "")), Install(desired.release))


def installed_before(state: AgentState) -> Desired:
    """Return what the active release is on trial for since a restart: what is wanted, or else no rollout's business."""
    desired = state.desired
    if desired is not None and desired.release == state.active:
        return desired
    return Desired(version=state.acted_version, release=state.active)


def installed(state: AgentState) -> Decision:
    """Let what was swapped in prove itself, unless the fleet wants by now what need not wait for that."""
    if state.active is None:
        return _succeeded_and_compared(state)
    state, report = next_report(replace(state, is_proving=True))
    compared: tuple[Action, ...] = (Prove(), Compare(state.wants_comparison), *sends(state, *report))
    desired = state.desired
    is_overtaken = desired is not None and state.installing is not None and desired.version != state.installing.version
    if is_overtaken and desired is not None and _may_overtake(state, desired):
        state, actions = begin(state)
        return state, (*compared, *actions)
    return state, compared


def _succeeded_and_compared(state: AgentState) -> Decision:
    state, actions = _finished(state, ExecutionState.SUCCEEDED, "")
    return state, (Compare(state.wants_comparison), *actions)


def proved(state: AgentState) -> Decision:
    """End the installation of what was healthy for long enough with success, and begin what waited for that."""
    if state.installing is not None and state.installing.release == state.active:
        committing = sends(state, *progress_of(state, "commit"))
        state, actions = _finished(state, ExecutionState.SUCCEEDED, "")
        return state, (*committing, *actions)
    if state.installing is None and not state.is_settled:
        return begin(state)
    return state, ()


def install_failed(state: AgentState, event: InstallFailed) -> Decision:
    """End the installation with its failure; where no rollout counts attempts, the device tries again by itself."""
    done = state.installing
    is_newest = done is not None and state.desired is not None and done.version == state.desired.version
    if done is not None and is_newest and done.rollout is None and not event.is_final:
        # No rollout counts the attempts, so the device itself keeps trying.
        state, report = next_report(replace(state, installing=None, failures=state.failures + 1))
        return state, (*sends(state, *report), RetryLater(min(_LONGEST_RETRY_S, 2.0 ** (state.failures - 1))))
    compare = Compare(state.wants_comparison)
    execution = ExecutionState.REJECTED if event.is_final else ExecutionState.FAILED
    state, actions = _finished(state, execution, event.reason)
    return state, (compare, *actions)


def _finished(state: AgentState, execution: ExecutionState, reason: str) -> Decision:
    done = state.installing
    if done is None:
        return state, ()
    outcome = outcome_of(done, execution, reason)
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
    state, report = next_report(state)
    terminal = [Send(Channel.EXECUTION, outcome)] if outcome else []
    actions: tuple[Action, ...] = (Save(), *sends(state, *report, *terminal))
    if state.is_settled or state.desired is None or (state.is_proving and not _may_overtake(state, state.desired)):
        return state, actions
    state, more = begin(state)
    return state, (*actions, *more)
