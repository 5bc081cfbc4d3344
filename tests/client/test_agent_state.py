"""What the agent knows: what of it outlives a restart, and what is refused when it is read again."""

from dataclasses import replace

import pytest

from hedgerow.client.agent_rules import advance
from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.events import TrainArrived
from hedgerow.decode import decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Blob
from hedgerow.wire.device import Desired
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.training import TrainTask

IDENTITY = Identity(boot="b", target="t", agent_version="0", runtimes=("onnxruntime",))
ASKED = Desired(version=7, release="demo@2", rollout="r", attempt=2, compare=True)
DONE = Execution(rollout="r", attempt=1, state=ExecutionState.FAILED, reason="no room")
KEPT = AgentState(
    identity=IDENTITY, desired=ASKED, is_settled=False, acted_version=6, outcome=DONE, outcome_release="demo@1"
)


def read(record: dict) -> AgentState:
    return AgentState.from_fields(IDENTITY, decode_json(encode_json(record), "state", limit_bytes=10_000))


def test_what_is_durable_comes_back_and_nothing_else():
    passing = replace(KEPT, active="demo@1", is_connected=True, sequence=9, installing=ASKED, problems=("link: down",))
    assert read(passing.to_record()) == KEPT
    assert read(AgentState(identity=IDENTITY).to_record()) == AgentState(identity=IDENTITY)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"acted_version": -1}, "acted_version"),
        ({"acted_version": 2**40 + 1}, "acted_version"),
        ({"is_settled": 1}, "is_settled"),
        ({"outcome_release": "demo"}, "outcome_release"),
        ({"desired": {"version": 1}}, "desired"),
        ({"outcome": {"rollout": "r"}}, "outcome"),
        ({"more": 1}, "more"),
    ],
)
def test_a_record_that_no_agent_wrote_is_refused(changes, where):
    assert read({**KEPT.to_record(), "acted_version": 2**40}).acted_version == 2**40
    with pytest.raises(DecodeError, match=where):
        read({**KEPT.to_record(), **changes})


def test_a_record_holds_what_is_durable_by_name():
    assert KEPT.to_record() == {
        "desired": {"version": 7, "release": "demo@2", "rollout": "r", "attempt": 2, "compare": True},
        "is_settled": False,
        "acted_version": 6,
        "outcome": {"rollout": "r", "attempt": 1, "state": "FAILED", "step": "", "reason": "no room"},
        "outcome_release": "demo@1",
    }
    assert AgentState(identity=IDENTITY).to_record() == {
        "desired": None,
        "is_settled": True,
        "acted_version": 0,
        "outcome": None,
        "outcome_release": None,
    }


@pytest.mark.parametrize("name", ["desired", "outcome"])
def test_a_key_that_nobody_knows_is_refused_inside_too(name):
    record = KEPT.to_record()
    with pytest.raises(DecodeError, match=rf"^state\.{name}: expected only the fields .*, found also more$"):
        read({**record, name: {**record[name], "more": 1}})


def test_an_agent_that_starts_for_the_first_time_knows_nothing():
    assert AgentState(identity=IDENTITY) == AgentState(
        identity=IDENTITY,
        active=None,
        previous=None,
        is_connected=False,
        sequence=0,
        desired=None,
        is_settled=True,
        acted_version=0,
        outcome=None,
        outcome_release=None,
        installing=None,
        is_proving=False,
        failures=0,
        training=None,
        waiting=None,
        answers=(),
        problems=(),
    )


def test_the_comparison_is_wanted_for_the_active_release_alone():
    assert replace(KEPT, active="demo@2").wants_comparison
    assert not replace(KEPT, active="demo@1").wants_comparison
    assert not replace(KEPT, active="demo@2", desired=replace(ASKED, compare=False)).wants_comparison
    assert not AgentState(identity=IDENTITY).wants_comparison


def test_a_token_shows_in_no_state():
    task = TrainTask(
        run="run",
        round=1,
        release="demo@1",
        weights=Blob("0" * 64, 1),
        token="secret-token",
        epochs=1,
        learning_rate=0.1,
        seed=0,
        minimum_samples=1,
        deadline_s=1.0,
    )
    state, _ = advance(AgentState(identity=IDENTITY), TrainArrived(task))
    assert state.training == task
    assert "secret-token" not in repr(state)
