"""What the agent decides: pure, so every order of events can be tried."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.client.actions import Compare, FallBack, FlushSpool, Install, Prove, RetryLater, Save, Send, Train
from hedgerow.client.agent_rules import advance
from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.events import (
    DesiredArrived,
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
from hedgerow.client.install_rules import jumps_too_far
from hedgerow.decode import decode_json, encode_json
from hedgerow.manifest.content import Blob
from hedgerow.wire.device import VERSION_JUMP, Desired, Presence
from hedgerow.wire.execution import ExecutionState
from hedgerow.wire.topics import Channel
from hedgerow.wire.training import TrainTask, TrainUpdate

IDENTITY = Identity(boot="b", target="t", agent_version="0", runtimes=("onnxruntime",))
NEW = replace(AgentState(identity=IDENTITY), is_connected=True)


def desired(version: int, release: str | None = "demo@1", **changes) -> Desired:
    return Desired(**{"version": version, "release": release, "rollout": "r", **changes})


def task(round_number: int, run: str = "run") -> TrainTask:
    return TrainTask(
        run=run,
        round=round_number,
        release="demo@1",
        weights=Blob("0" * 64, 1),
        token="secret-token",
        epochs=1,
        learning_rate=0.1,
        seed=0,
        minimum_samples=1,
        deadline_s=1.0,
    )


def done(round_number: int) -> TrainUpdate:
    return TrainUpdate(run="run", round=round_number, state="declined", reason="x")


def play(state: AgentState, *events) -> tuple[AgentState, list]:
    said = []
    for event in events:
        state, actions = advance(state, event)
        said += actions
    return state, said


def sent(actions, channel: Channel) -> list:
    return [action.message for action in actions if isinstance(action, Send) and action.channel is channel]


def test_a_new_version_is_saved_before_anything_else():
    state, actions = advance(NEW, DesiredArrived(desired(3)))
    assert isinstance(actions[0], Save)
    assert actions[-1] == Install("demo@1")
    assert sent(actions, Channel.EXECUTION)[0].state is ExecutionState.IN_PROGRESS
    assert state.acted_version == 0, "it is acted on when it is done"


def test_a_version_that_jumps_too_far_is_answered_with_a_report_and_kept_nowhere():
    state, _ = play(NEW, DesiredArrived(desired(3)), Installed("demo@1", None), Proved())
    after, actions = advance(state, DesiredArrived(desired(4 + VERSION_JUMP, "demo@2")))
    assert after == replace(state, sequence=state.sequence + 1)
    assert [message.desired_version for message in sent(actions, Channel.REPORTED)] == [3]
    assert len(actions) == 1
    after, actions = advance(after, DesiredArrived(desired(3 + VERSION_JUMP, "demo@2")))
    assert actions[-1] == Install("demo@2")
    assert jumps_too_far(NEW, desired(VERSION_JUMP + 1))
    assert not jumps_too_far(NEW, desired(VERSION_JUMP))


def test_what_does_not_work_is_reported_at_once_and_in_every_report_until_it_is_over():
    state, actions = advance(NEW, HealthChanged(("model: RuntimeError: x",)))
    assert [message.problems for message in sent(actions, Channel.REPORTED)] == [("model: RuntimeError: x",)]
    state, actions = play(state, LinkDown(), HealthChanged(("model: RuntimeError: x", "windows: OSError: y")), LinkUp())
    assert [message.problems for message in sent(actions, Channel.REPORTED)] == [
        ("model: RuntimeError: x", "windows: OSError: y")
    ]
    state, actions = advance(state, HealthChanged(()))
    assert [message.problems for message in sent(actions, Channel.REPORTED)] == [()]


def test_version_0_is_answered_at_any_time_and_disturbs_nothing():
    busy, _ = advance(NEW, DesiredArrived(desired(3)))
    state, actions = advance(busy, DesiredArrived(Desired(version=0, release=None)))
    assert [message.desired_version for message in sent(actions, Channel.REPORTED)] == [0]
    assert replace(state, sequence=busy.sequence) == busy
    assert advance(busy, DesiredArrived(desired(3)))[1] == (), "while a repeat waits until it was acted on"


def test_an_installation_ends_in_a_report_and_one_terminal_state():
    state, actions = play(NEW, DesiredArrived(desired(3)), StepEntered("load"), Installed("demo@1", None), Proved())
    executions = sent(actions, Channel.EXECUTION)
    assert [message.step for message in executions] == ["", "load", "commit", ""]
    assert executions[-1].state is ExecutionState.SUCCEEDED
    report = sent(actions, Channel.REPORTED)[-1]
    assert (report.release, report.desired_version) == ("demo@1", 3)
    assert state.is_settled


def test_a_swap_is_reported_and_is_no_success_yet():
    state, actions = play(NEW, DesiredArrived(desired(3, compare=True)), Installed("demo@1", None))
    assert [message.state for message in sent(actions, Channel.EXECUTION)] == [ExecutionState.IN_PROGRESS]
    assert [(m.release, m.desired_version) for m in sent(actions, Channel.REPORTED)] == [("demo@1", 0)]
    assert actions.count(Prove()) == 1
    assert actions.count(Compare(is_wanted=True)) == 1, "the gate's evidence gathers meanwhile"
    assert not state.is_settled
    _, actions = advance(state, Proved())
    assert not any(isinstance(action, Compare) for action in actions), "it runs already"


def test_a_release_that_does_badly_in_its_health_period_is_given_up_and_refused():
    state = replace(NEW, active="demo@1")
    state, _ = play(state, DesiredArrived(desired(3, "demo@2")), Installed("demo@2", "demo@1"))
    before = state
    state, actions = advance(state, Unhealthy("9 of 9 failed"))
    assert actions == (FallBack("9 of 9 failed"),)
    assert state == replace(before, is_proving=False), "it is over, and its installation has yet to end"
    waiting, actions = advance(state, DesiredArrived(desired(4, "demo@3")))
    assert actions == (Save(),), "one thing at a time"
    state, actions = advance(state, InstallFailed("9 of 9 failed", True, "demo@1", None))
    assert sent(actions, Channel.EXECUTION)[-1].state is ExecutionState.REJECTED
    assert (state.active, state.is_settled, state.is_proving) == ("demo@1", True, False)
    _, actions = advance(waiting, InstallFailed("9 of 9 failed", True, "demo@1", None))
    assert actions[-1] == Install("demo@3")


def test_a_release_that_does_badly_after_a_restart_is_not_held_against_what_waits_behind_it():
    waiting = replace(AgentState(identity=IDENTITY), desired=desired(4, "demo@3"), is_settled=False, acted_version=2)
    state, _ = play(waiting, LinkUp(), Restored("demo@2", "demo@1", is_proved=False))
    assert (state.is_proving, state.installing) == (True, None)
    state, actions = advance(state, Unhealthy("9 of 9 failed"))
    assert actions == (FallBack("9 of 9 failed"),)
    assert state.installing is not None, "one thing at a time"
    state, actions = advance(state, InstallFailed("9 of 9 failed", True, "demo@1", None))
    assert [m.state for m in sent(actions, Channel.EXECUTION)] == [ExecutionState.IN_PROGRESS], "demo@3 was not tried"
    assert [(m.release, m.desired_version) for m in sent(actions, Channel.REPORTED)] == [("demo@1", 2)]
    assert actions[-1] == Install("demo@3")


def test_a_release_that_does_badly_and_that_nobody_asked_for_is_reported_as_gone():
    state, _ = play(
        AgentState(identity=IDENTITY), LinkUp(), Restored("demo@2", "demo@1", is_lost=True, is_proved=False)
    )
    state, actions = play(state, Unhealthy("9 of 9 failed"), InstallFailed("9 of 9 failed", True, "demo@1", None))
    assert [m.release for m in sent(actions, Channel.REPORTED)] == ["demo@1"]
    assert sent(actions, Channel.EXECUTION) == []
    assert (state.installing, state.is_proving) == (None, False)
    settled = replace(AgentState(identity=IDENTITY), desired=desired(4, "demo@3"), acted_version=4)
    state, _ = play(settled, LinkUp(), Restored("demo@2", "demo@1", is_proved=False))
    state, actions = play(state, Unhealthy("9 of 9 failed"), InstallFailed("9 of 9 failed", True, "demo@1", None))
    assert (state.is_settled, state.acted_version) == (True, 4)
    assert not any(isinstance(action, Install) for action in actions), "demo@3 was refused before and stays so"


def test_what_serves_after_a_failed_installation_is_on_trial_unless_it_is_proved():
    state = replace(
        NEW, active="demo@2", desired=desired(3, "demo@9"), installing=desired(3, "demo@9"), is_settled=False
    )
    for active, is_proved, is_proving in (("demo@1", True, False), ("demo@1", False, True), (None, False, False)):
        after, _ = advance(state, InstallFailed("no room", False, active, "demo@0", is_proved=is_proved))
        assert (after.active, after.previous, after.is_proving) == (active, "demo@0", is_proving)


def test_going_back_does_not_wait_for_a_release_that_has_yet_to_prove_itself():
    state = replace(NEW, active="demo@1")
    state, _ = play(state, DesiredArrived(desired(3, "demo@2")), Installed("demo@2", "demo@1"))
    state, actions = advance(state, DesiredArrived(desired(4, "demo@1", rollout=None)))
    assert actions[-1] == Install("demo@1")
    _, actions = advance(state, Proved())
    assert actions == (), "what is gone proves nothing"


def test_a_third_release_waits_until_the_one_on_trial_has_proved_itself():
    state = replace(NEW, active="demo@1")
    state, _ = play(state, DesiredArrived(desired(3, "demo@2")), Installed("demo@2", "demo@1"))
    state, actions = advance(state, DesiredArrived(desired(4, "demo@3")))
    assert actions == (Save(),)
    state, actions = advance(state, Proved())
    assert sent(actions, Channel.EXECUTION)[1].state is ExecutionState.SUCCEEDED
    assert actions[-1] == Install("demo@3")


def test_another_attempt_for_the_release_on_trial_waits_with_it():
    state, _ = play(NEW, DesiredArrived(desired(3)), Installed("demo@1", None), DesiredArrived(desired(4, attempt=2)))
    _, actions = advance(state, Proved())
    assert [(m.state.value, m.attempt) for m in sent(actions, Channel.EXECUTION)][-1] == ("SUCCEEDED", 2)


def test_a_start_with_a_release_that_has_yet_to_prove_itself_goes_on_waiting():
    state, _ = play(NEW, DesiredArrived(desired(4)))
    restarted = replace(state, installing=None)
    state, actions = advance(restarted, Restored("demo@1", None, is_proved=False))
    assert Prove() in actions
    assert not state.is_settled
    state, _ = advance(state, Proved())
    assert state.outcome.state is ExecutionState.SUCCEEDED


def test_what_is_already_active_succeeds_at_once():
    _, actions = advance(replace(NEW, active="demo@1"), DesiredArrived(desired(3, compare=True)))
    assert not any(isinstance(action, Install) for action in actions)
    assert Compare(is_wanted=True) in actions
    assert sent(actions, Channel.EXECUTION)[0].state is ExecutionState.SUCCEEDED


def test_a_version_that_was_seen_changes_nothing_but_is_answered_again():
    state, _ = play(NEW, DesiredArrived(desired(3)), Installed("demo@1", None), Proved())
    again, actions = advance(state, DesiredArrived(desired(3)))
    assert again == replace(state, sequence=state.sequence + 1)
    assert [message.state for message in sent(actions, Channel.EXECUTION)] == [ExecutionState.SUCCEEDED]
    assert [message.desired_version for message in sent(actions, Channel.REPORTED)] == [3]
    older, actions = advance(state, DesiredArrived(desired(2, "demo@9")))
    assert older.desired == state.desired
    assert not any(isinstance(action, Install) for action in actions)


def test_version_zero_asks_for_a_report_and_takes_nothing_away():
    """A device that lost its state file still has its model; the fleet's first question must not uninstall it."""
    state = replace(NEW, active="demo@1")

    after, actions = advance(state, DesiredArrived(desired(0, release=None, rollout=None)))

    assert after.active == "demo@1"
    assert [type(action) for action in actions] == [Send]
    assert [message.release for message in sent(actions, Channel.REPORTED)] == ["demo@1"]


def test_a_version_that_was_seen_is_not_answered_while_it_is_being_installed():
    """The fleet asks again when a report shows an older version, so an answer now would go round for ever."""
    state, _actions = advance(NEW, DesiredArrived(desired(3)))

    assert advance(state, DesiredArrived(desired(3))) == (state, ())


def test_a_newer_version_waits_for_the_installation_in_progress():
    state, actions = play(NEW, DesiredArrived(desired(1)), DesiredArrived(desired(2, "demo@2")))
    assert actions.count(Install("demo@1")) == 1
    assert Install("demo@2") not in actions
    state, actions = play(state, Installed("demo@1", None), Proved())
    assert actions[-1] == Install("demo@2")
    assert not state.is_settled
    state, _ = play(state, Installed("demo@2", "demo@1"), Proved())
    assert (state.is_settled, state.acted_version) == (True, 2)


def test_failures_say_whether_to_try_again():
    started, _ = advance(NEW, DesiredArrived(desired(1)))
    for is_final, wanted in ((False, ExecutionState.FAILED), (True, ExecutionState.REJECTED)):
        state, actions = advance(started, InstallFailed("why", is_final, None, None))
        message = sent(actions, Channel.EXECUTION)[-1]
        assert (message.state, message.reason) == (wanted, "why")
        assert state.is_settled, "the rollout decides about another attempt"


def test_without_a_rollout_the_device_tries_again_ever_more_slowly():
    state, _ = advance(NEW, DesiredArrived(desired(1, rollout=None)))
    delays = []
    for _ in range(12):
        state, actions = advance(state, InstallFailed("why", False, None, None))
        delays += [action.after_s for action in actions if isinstance(action, RetryLater)]
        state, actions = advance(state, RetryDue())
        assert Install("demo@1") in actions
    assert delays[:3] == [1, 2, 4]
    assert delays[-1] == 300
    state, _ = advance(state, InstallFailed("why", True, None, None))
    assert advance(state, RetryDue()) == (state, ())


def test_an_interrupted_installation_goes_on_after_a_restart():
    state, _ = advance(NEW, DesiredArrived(desired(4)))
    fields = decode_json(encode_json(state.to_record()), "s", limit_bytes=10_000)
    restarted = AgentState.from_fields(IDENTITY, fields)
    again, actions = advance(restarted, Restored(None, None))
    assert actions == (Install("demo@1"),), "nothing is sent while the link is down"
    _, actions = advance(again, LinkUp())
    assert sent(actions, Channel.EXECUTION)[0].state is ExecutionState.IN_PROGRESS
    # The pointer had moved already: done.
    settled, actions = advance(restarted, Restored("demo@1", None))
    assert settled.is_settled
    assert settled.outcome.state is ExecutionState.SUCCEEDED


def test_a_crash_loop_is_a_failure_and_is_not_installed_again():
    state, _ = play(NEW, DesiredArrived(desired(4, "demo@2")))
    restarted = replace(state, installing=None, is_connected=False)
    state, actions = advance(restarted, Restored("demo@1", None, crashed="demo@2", reason="it crashed 3 times"))
    assert not any(isinstance(action, Install) for action in actions)
    assert (state.outcome.state, state.outcome.reason) == (ExecutionState.FAILED, "it crashed 3 times")
    _, actions = advance(state, LinkUp())
    assert sent(actions, Channel.EXECUTION) == [state.outcome]
    assert [(m.release, m.desired_version) for m in sent(actions, Channel.REPORTED)] == [("demo@1", 4)]


def after_a_restart(state: AgentState) -> AgentState:
    """What the next start knows: the durable part alone."""
    return AgentState.from_fields(IDENTITY, decode_json(encode_json(state.to_record()), "s", limit_bytes=10_000))


def test_what_crashed_is_left_alone_by_every_later_start_and_repeat_until_the_fleet_asks_anew():
    state, _ = play(NEW, DesiredArrived(desired(4, "demo@2")))
    state, actions = play(after_a_restart(state), Restored("demo@1", None, crashed="demo@2", reason="it crashed"))
    assert actions == [Save(), Prove()]
    for _ in range(3):
        state, actions = play(
            after_a_restart(state), Restored("demo@1", None), LinkUp(), DesiredArrived(desired(4, "demo@2")), Proved()
        )
        assert not any(isinstance(action, Install) for action in actions)
        assert {(m.release, m.desired_version) for m in sent(actions, Channel.REPORTED)} == {("demo@1", 4)}
        assert {(m.state, m.reason) for m in sent(actions, Channel.EXECUTION)} == {
            (ExecutionState.FAILED, "it crashed")
        }
        assert (state.is_settled, state.acted_version, state.installing) == (True, 4, None)
    state, actions = advance(state, DesiredArrived(desired(5, "demo@2", attempt=2)))
    assert actions[-1] == Install("demo@2")
    assert not state.is_settled


def test_what_was_refused_is_left_alone_by_the_next_start_and_repeat():
    state, _ = play(replace(NEW, active="demo@1"), DesiredArrived(desired(4, "demo@2")))
    state, _ = advance(state, InstallFailed("wrong hardware", True, "demo@1", None))
    state, actions = play(
        after_a_restart(state), Restored("demo@1", None), LinkUp(), DesiredArrived(desired(4, "demo@2"))
    )
    assert not any(isinstance(action, Install) for action in actions)
    assert {(m.state, m.reason) for m in sent(actions, Channel.EXECUTION)} == {
        (ExecutionState.REJECTED, "wrong hardware")
    }
    assert state.is_settled


def test_what_succeeded_is_not_installed_again_by_the_next_start_and_a_repeat_is_answered_with_its_end():
    state, _ = play(NEW, DesiredArrived(desired(4)), Installed("demo@1", None), Proved())
    state, actions = play(after_a_restart(state), Restored("demo@1", None), LinkUp(), DesiredArrived(desired(4)))
    assert not any(isinstance(action, Install) for action in actions)
    assert {m.state for m in sent(actions, Channel.EXECUTION)} == {ExecutionState.SUCCEEDED}
    assert (state.is_settled, state.acted_version, state.failures) == (True, 4, 0)


def test_an_installation_that_failed_for_a_rollout_waits_for_the_rollouts_next_attempt():
    state, _ = play(NEW, DesiredArrived(desired(4)), InstallFailed("no room", False, None, None))
    state, actions = play(after_a_restart(state), Restored(None, None), LinkUp(), DesiredArrived(desired(4)))
    assert not any(isinstance(action, Install | RetryLater) for action in actions)
    assert {(m.state, m.reason) for m in sent(actions, Channel.EXECUTION)} == {(ExecutionState.FAILED, "no room")}
    state, actions = advance(state, DesiredArrived(desired(5, attempt=2)))
    assert actions[-1] == Install("demo@1")
    state, actions = play(state, Installed("demo@1", None), Proved())
    assert [(m.state.value, m.attempt) for m in sent(actions, Channel.EXECUTION)][-1] == ("SUCCEEDED", 2)


def test_a_retry_goes_on_after_a_restart_and_forgets_how_often_it_failed():
    state, _ = play(NEW, DesiredArrived(desired(4, rollout=None)), InstallFailed("no room", False, None, None))
    assert state.failures == 1
    state, actions = play(after_a_restart(state), Restored(None, None))
    assert actions == [Install("demo@1")]
    _, actions = advance(state, InstallFailed("no room", False, None, None))
    assert [action.after_s for action in actions if isinstance(action, RetryLater)] == [1]


def test_a_crash_loop_after_the_rollout_takes_its_success_back():
    """The fleet wants the release for its own sake by then, and the rollout's record still says SUCCEEDED."""
    state, _ = play(NEW, DesiredArrived(desired(4, "demo@2")), Installed("demo@2", "demo@1"), Proved())
    state, _ = advance(state, DesiredArrived(desired(5, "demo@2", rollout=None)))
    restarted = AgentState.from_fields(IDENTITY, decode_json(encode_json(state.to_record()), "s", limit_bytes=10_000))
    after, _ = advance(restarted, Restored("demo@1", None, crashed="demo@2", reason="it crashed 3 times"))
    outcome = after.outcome
    assert (outcome.rollout, outcome.attempt, outcome.state) == ("r", 1, ExecutionState.FAILED)
    assert outcome.reason == "it crashed 3 times"
    other, _ = advance(restarted, Restored("demo@2", None, crashed="demo@7", reason="x"))
    assert other.outcome == restarted.outcome, "another release's crash is not this rollout's"


def test_a_lost_release_is_installed_again_and_its_version_is_not_acted_on_meanwhile():
    state, _ = play(NEW, DesiredArrived(desired(4)), Installed("demo@1", None), Proved())
    state, actions = advance(state, Restored(None, None, is_lost=True))
    assert Install("demo@1") in actions
    _, actions = advance(state, LinkUp())
    assert sent(actions, Channel.REPORTED)[0].desired_version == 3


def test_connecting_says_everything_again():
    state, _ = play(
        NEW,
        DesiredArrived(desired(4)),
        Installed("demo@1", None),
        Proved(),
        TrainArrived(task(1)),
        Trained(done(1)),
        LinkDown(),
    )
    assert advance(state, WindowStored()) == (state, ())
    _, actions = advance(state, LinkUp())
    assert actions[0] == Send(Channel.PRESENCE, Presence(online=True, boot="b"), retain=True)
    assert sent(actions, Channel.REPORTED)[0].release == "demo@1"
    assert sent(actions, Channel.EXECUTION)[0].state is ExecutionState.SUCCEEDED
    assert sent(actions, Channel.UPDATE) == [done(1)]
    assert actions[-1] == FlushSpool()


def test_connecting_in_the_middle_of_an_installation_says_that_it_goes_on_and_not_how_the_last_one_ended():
    state, _ = play(NEW, DesiredArrived(desired(3)), InstallFailed("no room", False, None, None))
    state, _ = play(state, DesiredArrived(desired(4, attempt=2)), StepEntered("load"), LinkDown())
    _, actions = advance(state, LinkUp())
    assert [(m.attempt, m.state.value, m.step, m.reason) for m in sent(actions, Channel.EXECUTION)] == [
        (2, "IN_PROGRESS", "", "")
    ]
    assert [(type(action).__name__, getattr(action, "channel", None)) for action in actions] == [
        ("Send", Channel.PRESENCE),
        ("Send", Channel.EXECUTION),
        ("Send", Channel.REPORTED),
        ("FlushSpool", None),
    ]


def test_rounds_are_trained_one_at_a_time_and_once():
    state, actions = play(NEW, TrainArrived(task(1)), TrainArrived(task(1)), TrainArrived(task(2)))
    assert actions == [Train(task(1))]
    state, actions = advance(state, Trained(done(1)))
    assert actions == (Send(Channel.UPDATE, done(1)), Train(task(2)))
    _, actions = advance(state, TrainArrived(task(1)))
    assert actions == (Send(Channel.UPDATE, done(1)),)


def test_the_last_16_answers_are_kept():
    state = NEW
    for number in range(1, 18):
        state, _ = play(state, TrainArrived(task(number)), Trained(done(number)))
    assert state.answers == tuple(done(number) for number in range(2, 18))
    assert advance(state, TrainArrived(task(2)))[1] == (Send(Channel.UPDATE, done(2)),)
    assert advance(state, TrainArrived(task(1)))[1] == (Train(task(1)),)


def test_a_round_that_is_overtaken_while_it_waits_is_declined():
    _, actions = play(NEW, TrainArrived(task(1)), TrainArrived(task(2)), TrainArrived(task(3)))
    declined = sent(actions, Channel.UPDATE)
    assert [(message.round, message.state) for message in declined] == [(2, "declined")]


EVENTS = st.one_of(
    st.builds(
        lambda version, release, rollout: DesiredArrived(desired(version, release, rollout=rollout)),
        st.integers(0, 6),
        st.sampled_from([None, "demo@1", "demo@2"]),
        st.sampled_from([None, "r"]),
    ),
    st.sampled_from([LinkUp(), LinkDown(), RetryDue(), WindowStored(), StepEntered("load")]),
    st.builds(lambda number: TrainArrived(task(number)), st.integers(1, 4)),
    st.sampled_from(["finish", "prove", "fail", "reject", "ill", "fallen", "trained"]),
)


@given(st.lists(EVENTS, max_size=40))
def test_any_order_of_events_keeps_the_promises(events):  # noqa: PLR0915 - one small world, event by event
    state, installing, slots = AgentState(identity=IDENTITY), None, [None, None]
    is_installing, is_falling, is_proved, training = False, False, True, None
    versions = [0]
    for drawn in events:
        event = drawn
        if drawn == "prove":
            if is_proved or is_installing or is_falling:
                continue
            is_proved, event = True, Proved()
        elif drawn == "ill":
            if is_proved or is_installing or is_falling:
                continue
            event = Unhealthy("9 of 9 failed")
        elif drawn == "fallen":
            if not is_falling:
                continue
            # What was given up is gone, and what serves now had proved itself.
            is_falling, is_proved, slots = False, True, [slots[1], None]
            event = InstallFailed("9 of 9 failed", True, *slots)
        elif drawn in {"finish", "fail", "reject"}:
            if not is_installing:
                continue
            is_installing = False
            if drawn == "finish":
                # What never proved itself is no place to go back to.
                kept = slots[0] if is_proved else slots[1]
                slots = [installing, kept if kept != installing else None]
                is_proved = installing is None
                event = Installed(*slots)
            else:
                event = InstallFailed("why", drawn == "reject", *slots, is_proved=is_proved)
        elif drawn == "trained":
            if training is None:
                continue
            event = Trained(TrainUpdate(run="run", round=training, state="declined", reason="x"))
            training = None
        state, actions = advance(state, event)
        for action in actions:
            if isinstance(action, FallBack):
                assert not is_installing
                is_falling = True
            if isinstance(action, Install):
                assert not is_installing, "one installation at a time"
                assert not is_falling, "falling back comes to its end first"
                is_installing, installing = True, action.release
                assert installing != slots[0]
                assert is_proved or installing in {None, slots[1]}, "the only proved release is not overwritten"
            if isinstance(action, Train):
                assert training is None, "one round at a time"
                training = action.task.round
            if isinstance(action, Send) and getattr(action.message, "state", None) is ExecutionState.SUCCEEDED:
                assert is_proved, "success is said after the health period"
            assert state.is_connected or not isinstance(action, Send | FlushSpool)
        assert (state.active, state.previous) == tuple(slots)
        if is_installing or is_falling:
            assert state.installing is not None
            assert not state.is_proving
        else:
            assert state.is_proving is not is_proved
            assert state.is_proving or state.installing is None
        if state.is_settled and state.desired is not None:
            assert state.acted_version == state.desired.version
        assert state.acted_version >= versions[-1]
        versions.append(state.acted_version)
        record = encode_json(state.to_record())
        assert (
            AgentState.from_fields(IDENTITY, decode_json(record, "s", limit_bytes=10_000)).to_record()
            == state.to_record()
        )
