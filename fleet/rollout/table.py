"""Which event is legal in which state of a rollout, and where it may lead. The table is the specification."""

from collections.abc import Mapping

from hedgerow.fleet.rollout.events import (
    Approved,
    Canceled,
    DeviceJoined,
    DeviceRemoved,
    DeviceReported,
    Event,
    GateJudged,
    Paused,
    Resumed,
    Started,
    Tick,
)
from hedgerow.fleet.rollout.state import RolloutState

__all__ = ["NO_EFFECT", "TRANSITIONS"]

_S = RolloutState
_STOPPED = frozenset({_S.ABORTED, _S.ROLLED_BACK})
_IN_STAGES = frozenset({_S.RUNNING, _S.PAUSED, _S.FINISHED}) | _STOPPED
_HELD = frozenset({_S.PAUSED}) | _STOPPED

TRANSITIONS: Mapping[tuple[RolloutState, type[Event]], frozenset[RolloutState]] = {
    (_S.DRAFT, Approved): frozenset({_S.READY}),
    (_S.DRAFT, Started): frozenset({_S.AWAITING_APPROVAL, _S.RUNNING}),
    (_S.DRAFT, Canceled): frozenset({_S.ABORTED}),
    (_S.DRAFT, DeviceJoined): frozenset({_S.DRAFT}),
    (_S.DRAFT, DeviceRemoved): frozenset({_S.DRAFT}),
    (_S.AWAITING_APPROVAL, Approved): frozenset({_S.READY}),
    (_S.AWAITING_APPROVAL, Canceled): frozenset({_S.ABORTED}),
    (_S.AWAITING_APPROVAL, DeviceJoined): frozenset({_S.AWAITING_APPROVAL}),
    (_S.AWAITING_APPROVAL, DeviceRemoved): frozenset({_S.AWAITING_APPROVAL}),
    (_S.READY, Started): frozenset({_S.RUNNING}),
    (_S.READY, Canceled): frozenset({_S.ABORTED}),
    (_S.READY, DeviceJoined): frozenset({_S.READY}),
    (_S.READY, DeviceRemoved): frozenset({_S.READY}),
    (_S.RUNNING, Paused): frozenset({_S.PAUSED}),
    (_S.RUNNING, Canceled): _STOPPED,
    (_S.RUNNING, DeviceReported): _IN_STAGES,
    (_S.RUNNING, GateJudged): _IN_STAGES,
    (_S.RUNNING, DeviceJoined): _IN_STAGES,
    (_S.RUNNING, DeviceRemoved): _IN_STAGES,
    (_S.RUNNING, Tick): _IN_STAGES,
    (_S.PAUSED, Resumed): _IN_STAGES,
    (_S.PAUSED, Canceled): _STOPPED,
    (_S.PAUSED, DeviceReported): _HELD,
    (_S.PAUSED, GateJudged): _HELD,
    (_S.PAUSED, DeviceJoined): _HELD,
    (_S.PAUSED, DeviceRemoved): _HELD,
    (_S.PAUSED, Tick): _HELD,
    # A success that a device takes back changes its record and nothing else.
    (_S.FINISHED, DeviceReported): frozenset({_S.FINISHED}),
}
"""(State, event) -> the states that it may lead to. The tests walk every pair."""

NO_EFFECT: frozenset[tuple[RolloutState, type[Event]]] = frozenset(
    # An operator's command whose effect is there already.
    {
        (_S.AWAITING_APPROVAL, Started),
        (_S.READY, Approved),
        (_S.RUNNING, Started),
        (_S.RUNNING, Resumed),
        (_S.PAUSED, Paused),
        (_S.ABORTED, Canceled),
        (_S.ROLLED_BACK, Canceled),
    }
    # Time and devices do not ask; before the start and after the end they are not listened to.
    | {
        (state, event)
        for state in (_S.DRAFT, _S.AWAITING_APPROVAL, _S.READY)
        for event in (DeviceReported, GateJudged, Tick)
    }
    | {
        (state, event)
        for state in _S
        if state.is_terminal
        for event in (DeviceReported, GateJudged, DeviceJoined, DeviceRemoved, Tick)
        if (state, event) != (_S.FINISHED, DeviceReported)
    }
)
"""(State, event) pairs that are accepted and change nothing."""
