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


def test_a_device_that_says_no_more_than_the_state_has_no_step_and_no_reason():
    message = Execution(rollout="r", attempt=1, state=ExecutionState.SUCCEEDED)

    assert (message.step, message.reason) == ("", "")
    assert message.to_record() == {"rollout": "r", "attempt": 1, "state": "SUCCEEDED", "step": "", "reason": ""}
    assert Execution.decode(message.encode()) == message


def test_what_breaks_lines_is_a_space_to_those_who_read_it():
    message = Execution(rollout="r", attempt=1, state=ExecutionState.FAILED, step="lo\nad", reason="a\x1b[2Jb\u2028c")

    read = Execution.decode(message.encode())

    assert (read.step, read.reason) == ("lo ad", "a [2Jb c")
