"""A device's part in a rollout, on the wire."""

import pytest

from hedgerow.errors import DecodeError
from hedgerow.wire.execution import Execution, ExecutionState


def test_a_device_cannot_report_what_only_the_fleet_decides():
    for state in (ExecutionState.QUEUED, ExecutionState.TIMED_OUT, ExecutionState.CANCELED, ExecutionState.REMOVED):
        message = Execution(rollout="r", attempt=1, state=state)
        with pytest.raises(DecodeError, match=r"execution.state"):
            Execution.decode(message.encode())


def test_a_long_reason_is_cut_by_the_sender():
    message = Execution(rollout="r", attempt=1, state=ExecutionState.FAILED, reason="x" * 5000)

    assert len(Execution.decode(message.encode()).reason) == 1024


def test_two_states_are_not_the_end():
    assert [state.value for state in ExecutionState if not state.is_terminal] == ["QUEUED", "IN_PROGRESS"]
