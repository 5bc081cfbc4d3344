"""Which event is legal in which state of a rollout, and where it may lead. The table is the specification."""

from collections.abc import Mapping

from hedgerow.fleet.rollout.events import (
    Approved,
    Canceled,
    DeviceJoined,
    DeviceRemoved,
    DeviceReported,
    GateJudged,
    Paused,
    Resumed,
    RolloutEvent,
    Started,
    Tick,
)
from hedgerow.fleet.rollout.state import RolloutState

__all__ = ["NO_EFFECT", "TRANSITIONS"]

_STOPPED = frozenset({RolloutState.ABORTED, RolloutState.ROLLED_BACK})
_IN_STAGES = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.FINISHED}) | _STOPPED
_HELD = frozenset({RolloutState.PAUSED}) | _STOPPED

TRANSITIONS: Mapping[tuple[RolloutState, type[RolloutEvent]], frozenset[RolloutState]] = {
    (RolloutState.DRAFT, Approved): frozenset({RolloutState.READY}),
    (RolloutState.DRAFT, Started): frozenset({RolloutState.AWAITING_APPROVAL, RolloutState.RUNNING}),
    (RolloutState.DRAFT, Canceled): frozenset({RolloutState.ABORTED}),
    (RolloutState.DRAFT, DeviceJoined): frozenset({RolloutState.DRAFT}),
    (RolloutState.DRAFT, DeviceRemoved): frozenset({RolloutState.DRAFT}),
    (RolloutState.AWAITING_APPROVAL, Approved): frozenset({RolloutState.READY}),
    (RolloutState.AWAITING_APPROVAL, Canceled): frozenset({RolloutState.ABORTED}),
    (RolloutState.AWAITING_APPROVAL, DeviceJoined): frozenset({RolloutState.AWAITING_APPROVAL}),
    (RolloutState.AWAITING_APPROVAL, DeviceRemoved): frozenset({RolloutState.AWAITING_APPROVAL}),
    (RolloutState.READY, Started): frozenset({RolloutState.RUNNING}),
    (RolloutState.READY, Canceled): frozenset({RolloutState.ABORTED}),
    (RolloutState.READY, DeviceJoined): frozenset({RolloutState.READY}),
    (RolloutState.READY, DeviceRemoved): frozenset({RolloutState.READY}),
    (RolloutState.RUNNING, Paused): frozenset({RolloutState.PAUSED}),
    (RolloutState.RUNNING, Canceled): _STOPPED,
    (RolloutState.RUNNING, DeviceReported): _IN_STAGES,
    (RolloutState.RUNNING, GateJudged): _IN_STAGES,
    (RolloutState.RUNNING, DeviceJoined): _IN_STAGES,
    (RolloutState.RUNNING, DeviceRemoved): _IN_STAGES,
    (RolloutState.RUNNING, Tick): _IN_STAGES,
    (RolloutState.PAUSED, Resumed): _IN_STAGES,
    (RolloutState.PAUSED, Canceled): _STOPPED,
    (RolloutState.PAUSED, DeviceReported): _HELD,
    (RolloutState.PAUSED, GateJudged): _HELD,
    (RolloutState.PAUSED, DeviceJoined): _HELD,
    (RolloutState.PAUSED, DeviceRemoved): _HELD,
    (RolloutState.PAUSED, Tick): _HELD,
    # A success that a device takes back changes its record and nothing else.
    (RolloutState.FINISHED, DeviceReported): frozenset({RolloutState.FINISHED}),
}
"""(State, event) -> the states that it may lead to. The tests walk every pair."""

NO_EFFECT: frozenset[tuple[RolloutState, type[RolloutEvent]]] = frozenset(
    # An operator's command whose effect is there already.
    {
        (RolloutState.AWAITING_APPROVAL, Started),
        (RolloutState.READY, Approved),
        (RolloutState.RUNNING, Started),
        (RolloutState.RUNNING, Resumed),
        (RolloutState.PAUSED, Paused),
        (RolloutState.ABORTED, Canceled),
        (RolloutState.ROLLED_BACK, Canceled),
    }
    # Time and devices do not ask; before the start and after the end they are not listened to.
    | {
        (state, event)
        for state in (RolloutState.DRAFT, RolloutState.AWAITING_APPROVAL, RolloutState.READY)
        for event in (DeviceReported, GateJudged, Tick)
    }
    | {
        (state, event)
        for state in RolloutState
        if state.is_terminal
        for event in (DeviceReported, GateJudged, DeviceJoined, DeviceRemoved, Tick)
        if (state, event) != (RolloutState.FINISHED, DeviceReported)
    }
)
"""(State, event) pairs that are accepted and change nothing."""
