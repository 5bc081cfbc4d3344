"""What the agent does about the release that is wanted, by whole decisions: what is known then, and what is done."""

from dataclasses import replace

import pytest

from hedgerow.client.actions import Action, Compare, Install, Prove, RetryLater, Save, Send
from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.events import InstallFailed, Restored
from hedgerow.client.install_rules import (
    begin,
    desired_arrived,
    install_failed,
    installed,
    installed_before,
    jumps_too_far,
    proved,
    restored,
)
from hedgerow.wire.device import Desired, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.topics import Channel

NEW = AgentState(identity=Identity(boot="b", target="t", agent_version="0", runtimes=()), is_connected=True)
# It serves its second release, as the fleet wanted, and knows the first one.
SETTLED = replace(
    NEW, active="demo@2", previous="demo@1", desired=Desired(version=4, release="demo@2"), acted_version=4
)
FAILED, REJECTED, SUCCEEDED = ExecutionState.FAILED, ExecutionState.REJECTED, ExecutionState.SUCCEEDED


def wanted(version: int, release: str | None, **changes) -> Desired:
    return Desired(**{"version": version, "release": release, "rollout": "r", **changes})


def report(state: AgentState, *, release: str | None, previous: str | None, acted: int) -> Send:
    """The report that follows on *state*."""
    message = Reported(
        boot="b",
        sequence=state.sequence,
        desired_version=acted,
        release=release,
        previous=previous,
        target="t",
        agent_version="0",
        runtimes=(),
    )
    return Send(Channel.REPORTED, message)


def progress(step: str, attempt: int = 1) -> Send:
    state = ExecutionState.IN_PROGRESS
    return Send(Channel.EXECUTION, Execution(rollout="r", attempt=attempt, state=state, step=step))


def end(state: ExecutionState, reason: str = "", attempt: int = 1) -> Execution:
    return Execution(rollout="r", attempt=attempt, state=state, reason=reason)


# A start.


@pytest.mark.parametrize(
    ("event", "known", "actions"),
    [
        (Restored(None, None), {}, ()),
        (Restored(None, None, is_proved=False), {}, ()),
        (Restored("demo@2", "demo@1"), {"active": "demo@2", "previous": "demo@1"}, (Prove(),)),
        (Restored("demo@2", None, is_proved=False), {"active": "demo@2", "is_proving": True}, (Prove(),)),
        (Restored("demo@1", None, crashed="demo@2"), {"active": "demo@1"}, (Save(), Prove())),
        (Restored(None, None, crashed="demo@2"), {}, (Save(),)),
    ],
)
def test_a_start_without_a_wanted_release_serves_what_the_slots_hold(event, known, actions):
    assert restored(NEW, event) == (replace(NEW, **known), actions)


def test_a_start_for_which_nothing_is_left_to_do_proves_and_compares_again():
    event = Restored("demo@2", "demo@1")
    assert restored(SETTLED, event) == (SETTLED, (Prove(), Compare(is_wanted=False)))
    comparing = replace(SETTLED, desired=wanted(4, "demo@2", compare=True))
    assert restored(comparing, event) == (comparing, (Prove(), Compare(is_wanted=True)))
    refused = replace(SETTLED, desired=wanted(4, "demo@3"))
    assert restored(refused, event) == (refused, (Prove(), Compare(is_wanted=False)))


@pytest.mark.parametrize(
    ("version", "acted_version", "expected"),
    [(4, 4, 3), (4, 3, 3), (4, 2, 2), (1, 1, 0), (0, 0, 0)],
)
def test_a_start_that_lost_the_wanted_release_installs_it_again_and_reports_no_version_that_asked_for_it(
    version, acted_version, expected
):
    kept = replace(SETTLED, desired=Desired(version=version, release="demo@2"), acted_version=acted_version)
    state, actions = restored(kept, Restored("demo@1", None, is_lost=True))
    assert state == replace(
        kept,
        active="demo@1",
        previous=None,
        is_settled=False,
        acted_version=expected,
        installing=Desired(version=version, release="demo@2"),
    )
    assert actions == (Prove(), Install("demo@2"))


def test_a_start_that_lost_something_and_still_serves_the_wanted_release_has_nothing_to_do():
    state, actions = restored(SETTLED, Restored("demo@2", None, is_lost=True))
    assert state == replace(SETTLED, previous=None)
    assert actions == (Prove(), Compare(is_wanted=False))


def test_a_start_with_an_unproved_release_begins_with_what_may_overtake_it_alone():
    third = replace(SETTLED, desired=wanted(5, "demo@3"), is_settled=False)
    on_trial = Restored("demo@2", "demo@1", is_proved=False)
    assert restored(third, on_trial) == (replace(third, is_proving=True), (Prove(),))
    back = replace(SETTLED, desired=wanted(5, "demo@1"), is_settled=False)
    begun = replace(back, installing=back.desired)
    assert restored(back, on_trial) == (begun, (Prove(), progress(""), Install("demo@1")))
    begun = replace(third, installing=third.desired)
    assert restored(third, replace(on_trial, is_proved=True)) == (begun, (Prove(), progress(""), Install("demo@3")))


# A start after a crash loop.


def test_what_crashed_while_its_rollout_wanted_it_has_failed_and_is_settled():
    state = replace(NEW, desired=wanted(5, "demo@3", attempt=2), is_settled=False, acted_version=4)
    after, actions = restored(state, Restored("demo@2", None, crashed="demo@3", reason="it crashed"))
    assert after == replace(
        state,
        active="demo@2",
        is_settled=True,
        acted_version=5,
        outcome=end(FAILED, "it crashed", attempt=2),
        outcome_release="demo@3",
    )
    assert actions == (Save(), Prove())


def test_what_crashed_after_its_rollout_makes_a_failure_of_the_rollouts_end():
    state = replace(SETTLED, outcome=replace(end(SUCCEEDED), step="commit"), outcome_release="demo@2")
    after, actions = restored(state, Restored("demo@1", None, crashed="demo@2", reason="é" * 1025))
    assert after == replace(state, active="demo@1", previous=None, outcome=end(FAILED, "é" * 1024))
    assert actions == (Save(), Prove())


def test_what_crashed_and_nobody_wants_any_more_does_not_stop_what_is_wanted():
    state = replace(
        NEW, desired=wanted(5, "demo@3"), is_settled=False, outcome=end(SUCCEEDED), outcome_release="demo@1"
    )
    after, actions = restored(state, Restored("demo@1", None, crashed="demo@2", reason="it crashed"))
    assert after == replace(state, active="demo@1", installing=state.desired)
    assert actions == (Prove(), progress(""), Install("demo@3"))


def test_what_crashed_without_any_rollout_is_settled_with_no_end_to_tell():
    state = replace(NEW, desired=wanted(5, "demo@3", rollout=None), is_settled=False)
    after, actions = restored(state, Restored(None, None, crashed="demo@3", reason="it crashed"))
    assert (after, actions) == (replace(state, is_settled=True, acted_version=5), (Save(),))


def test_a_crash_is_saved_though_a_state_without_a_wanted_release_says_that_something_is_left():
    state = replace(NEW, is_settled=False)
    assert restored(state, Restored(None, None, crashed="demo@3")) == (state, (Save(),))


# What the fleet wants.


def test_a_version_may_lie_a_thousand_above_the_last_one_and_no_more():
    assert [jumps_too_far(NEW, wanted(version, None)) for version in (1000, 1001)] == [False, True]
    assert [jumps_too_far(SETTLED, wanted(version, None)) for version in (1004, 1005)] == [False, True]


def test_a_version_that_jumps_too_far_is_answered_with_a_report_alone():
    state = replace(SETTLED, outcome=end(SUCCEEDED))
    after, actions = desired_arrived(state, wanted(1005, "demo@3"))
    assert after == replace(state, sequence=1)
    assert actions == (report(state, release="demo@2", previous="demo@1", acted=4),)


def test_the_first_version_of_all_is_begun_and_its_failures_are_counted_from_0():
    state = replace(NEW, failures=3)
    after, actions = desired_arrived(state, wanted(1, "demo@1"))
    assert after == replace(
        NEW, desired=wanted(1, "demo@1"), installing=wanted(1, "demo@1"), is_settled=False, failures=0
    )
    assert actions == (Save(), progress(""), Install("demo@1"))


@pytest.mark.parametrize("version", [4, 3, 0])
def test_a_version_that_was_seen_is_answered_with_a_report_and_its_rollouts_end(version):
    state = replace(SETTLED, outcome=end(SUCCEEDED))
    said = report(state, release="demo@2", previous="demo@1", acted=4)
    for rollout, more in (("r", (Send(Channel.EXECUTION, end(SUCCEEDED)),)), ("other", ()), (None, ())):
        after, actions = desired_arrived(state, wanted(version, "demo@9", rollout=rollout))
        assert (after, actions) == (replace(state, sequence=1), (said, *more))
    assert desired_arrived(SETTLED, Desired(version=version, release=None)) == (replace(SETTLED, sequence=1), (said,))


@pytest.mark.parametrize(
    "busy",
    [
        {"is_settled": False},
        {"installing": Desired(version=4, release="demo@2")},
        {"is_settled": False, "installing": Desired(version=4, release="demo@2")},
    ],
)
def test_a_version_that_was_seen_is_not_answered_before_it_was_acted_on_unless_it_asks_for_a_report_alone(busy):
    state = replace(SETTLED, **busy)
    for version in (4, 1):
        assert desired_arrived(state, wanted(version, "demo@2")) == (state, ())
    said = report(state, release="demo@2", previous="demo@1", acted=4)
    assert desired_arrived(state, wanted(0, None)) == (replace(state, sequence=1), (said,))


def test_a_device_that_knows_of_no_version_answers_version_0():
    state = replace(NEW, is_settled=False)
    said = report(state, release=None, previous=None, acted=0)
    assert desired_arrived(state, wanted(0, None)) == (replace(state, sequence=1), (said,))


@pytest.mark.parametrize("release", ["demo@1", None])
def test_going_back_overtakes_a_release_on_trial(release):
    state = replace(SETTLED, is_proving=True, installing=wanted(4, "demo@2"))
    newer = wanted(5, release)
    after, actions = desired_arrived(state, newer)
    assert after == replace(state, desired=newer, is_settled=False, installing=newer, is_proving=False)
    assert actions == (Save(), progress(""), Install(release))


def test_a_third_release_waits_for_one_on_trial_whether_its_installation_was_before_a_restart_or_not():
    newer = wanted(5, "demo@3")
    for installing in (None, wanted(4, "demo@2")):
        state = replace(SETTLED, is_proving=True, installing=installing)
        assert desired_arrived(state, newer) == (replace(state, desired=newer, is_settled=False), (Save(),))


def test_going_back_waits_for_an_installation_that_has_not_swapped():
    state = replace(SETTLED, installing=wanted(4, "demo@3"))
    newer = wanted(5, "demo@1")
    assert desired_arrived(state, newer) == (replace(state, desired=newer, is_settled=False), (Save(),))


# The installation.


def test_nothing_begins_where_nothing_is_wanted():
    assert begin(NEW) == (NEW, ())


def test_another_version_of_the_release_on_trial_begins_with_its_swap():
    state = replace(SETTLED, desired=wanted(5, "demo@2", compare=True), is_proving=True, is_settled=False)
    after, actions = begin(state)
    assert after == replace(state, installing=state.desired)
    assert actions == (Compare(is_wanted=True), progress("swap"))


def test_another_version_of_a_proved_release_succeeds_at_once():
    state = replace(SETTLED, desired=wanted(5, "demo@2"), is_settled=False, failures=2)
    after, actions = begin(state)
    assert after == replace(
        SETTLED,
        desired=state.desired,
        acted_version=5,
        failures=0,
        outcome=end(SUCCEEDED),
        outcome_release="demo@2",
        sequence=1,
    )
    assert actions == (
        Compare(is_wanted=False),
        Save(),
        report(state, release="demo@2", previous="demo@1", acted=5),
        Send(Channel.EXECUTION, end(SUCCEEDED)),
    )


def test_an_active_release_is_on_trial_for_what_is_wanted_or_for_nobody():
    assert installed_before(SETTLED) == Desired(version=4, release="demo@2")
    on_trial = replace(SETTLED, desired=wanted(5, "demo@2"))
    assert installed_before(on_trial) == wanted(5, "demo@2")
    behind = replace(SETTLED, desired=wanted(5, "demo@3"))
    assert installed_before(behind) == Desired(version=4, release="demo@2")
    assert installed_before(replace(NEW, active="demo@2", acted_version=3)) == Desired(version=3, release="demo@2")


def test_what_was_swapped_in_is_put_on_trial_and_reported():
    wish = wanted(5, "demo@2", compare=True)
    state = replace(SETTLED, desired=wish, installing=wish, is_settled=False)
    after, actions = installed(state)
    assert after == replace(state, is_proving=True, sequence=1)
    assert actions == (
        Prove(),
        Compare(is_wanted=True),
        report(state, release="demo@2", previous="demo@1", acted=4),
    )


def test_what_was_swapped_in_is_overtaken_by_going_back_and_not_by_a_third_release():
    state = replace(SETTLED, installing=wanted(4, "demo@2"), is_settled=False)
    said = (Prove(), Compare(is_wanted=False), report(state, release="demo@2", previous="demo@1", acted=4))
    back = replace(state, desired=wanted(5, "demo@1"))
    after, actions = installed(back)
    assert after == replace(back, installing=back.desired, is_proving=False, sequence=1)
    assert actions == (*said, progress(""), Install("demo@1"))
    third = replace(state, desired=wanted(5, "demo@3"))
    assert installed(third) == (replace(third, is_proving=True, sequence=1), said)


def test_what_was_swapped_in_without_a_wish_or_an_installation_is_put_on_trial():
    for state in (replace(SETTLED, desired=None), SETTLED):
        said = report(state, release="demo@2", previous="demo@1", acted=4)
        after, actions = installed(state)
        assert (after, actions) == (
            replace(state, is_proving=True, sequence=1),
            (Prove(), Compare(is_wanted=False), said),
        )


def test_to_serve_nothing_succeeds_without_a_trial():
    wish = wanted(5, None)
    state = replace(NEW, desired=wish, installing=wish, is_settled=False)
    after, actions = installed(state)
    assert after == replace(NEW, desired=wish, acted_version=5, outcome=end(SUCCEEDED), sequence=1)
    assert actions == (
        Compare(is_wanted=False),
        Save(),
        report(state, release=None, previous=None, acted=5),
        Send(Channel.EXECUTION, end(SUCCEEDED)),
    )


def test_a_proved_installation_commits_and_ends_in_success():
    wish = wanted(5, "demo@2")
    state = replace(SETTLED, desired=wish, installing=wish, is_settled=False)
    after, actions = proved(state)
    assert after == replace(
        SETTLED, desired=wish, acted_version=5, outcome=end(SUCCEEDED), outcome_release="demo@2", sequence=1
    )
    assert actions == (
        progress("commit"),
        Save(),
        report(state, release="demo@2", previous="demo@1", acted=5),
        Send(Channel.EXECUTION, end(SUCCEEDED)),
    )


def test_a_proof_begins_what_waited_for_it_and_disturbs_nothing_else():
    waiting = replace(SETTLED, desired=wanted(5, "demo@3"), is_settled=False)
    begun = replace(waiting, installing=waiting.desired)
    assert proved(waiting) == (begun, (progress(""), Install("demo@3")))
    assert proved(SETTLED) == (SETTLED, ())
    assert proved(begun) == (begun, ())
    unsettled = replace(SETTLED, installing=wanted(4, "demo@3"))
    assert proved(unsettled) == (unsettled, ())


# The end.


@pytest.mark.parametrize(
    ("failures", "after_s"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (7, 128.0), (8, 256.0), (9, 300.0), (40, 300.0)]
)
def test_a_failure_that_no_rollout_counts_is_tried_again_after_twice_as_long_and_at_most_after_5_minutes(
    failures, after_s
):
    wish = wanted(5, "demo@3", rollout=None)
    state = replace(SETTLED, desired=wish, installing=wish, is_settled=False, failures=failures)
    after, actions = install_failed(state, InstallFailed("no room", False, "demo@2", "demo@1"))
    assert after == replace(state, installing=None, failures=failures + 1, sequence=1)
    assert actions == (report(state, release="demo@2", previous="demo@1", acted=4), RetryLater(after_s))


@pytest.mark.parametrize(("is_final", "ended_as"), [(False, FAILED), (True, REJECTED)])
def test_a_failure_in_a_rollout_ends_the_installation(is_final, ended_as):
    wish = wanted(5, "demo@3", attempt=2)
    state = replace(SETTLED, desired=wish, installing=wish, is_settled=False, failures=2)
    after, actions = install_failed(state, InstallFailed("no room", is_final, "demo@2", "demo@1"))
    outcome = end(ended_as, "no room", attempt=2)
    assert after == replace(
        SETTLED, desired=wish, acted_version=5, outcome=outcome, outcome_release="demo@3", sequence=1
    )
    assert actions == (
        Compare(is_wanted=False),
        Save(),
        report(state, release="demo@2", previous="demo@1", acted=5),
        Send(Channel.EXECUTION, outcome),
    )


def test_a_final_failure_without_a_rollout_keeps_the_end_of_the_last_one():
    wish = wanted(5, "demo@3", rollout=None)
    before = replace(SETTLED, outcome=end(SUCCEEDED), outcome_release="demo@2")
    state = replace(before, desired=wish, installing=wish, is_settled=False)
    after, actions = install_failed(state, InstallFailed("wrong hardware", True, "demo@2", "demo@1"))
    assert after == replace(before, desired=wish, acted_version=5, sequence=1)
    assert actions == (
        Compare(is_wanted=False),
        Save(),
        report(state, release="demo@2", previous="demo@1", acted=5),
    )


def test_a_failure_of_what_is_not_wanted_any_more_is_no_reason_to_try_it_again():
    newer = wanted(6, "demo@3")
    state = replace(SETTLED, desired=newer, installing=wanted(5, "demo@9", rollout=None), is_settled=False)
    after, actions = install_failed(state, InstallFailed("no room", False, "demo@2", "demo@1"))
    assert after == replace(state, installing=newer, acted_version=5, sequence=1)
    assert actions == (
        Compare(is_wanted=False),
        Save(),
        report(state, release="demo@2", previous="demo@1", acted=5),
        progress(""),
        Install("demo@3"),
    )


def test_a_failure_without_a_wish_is_reported_and_begins_nothing():
    state = replace(SETTLED, desired=None, installing=Desired(version=4, release="demo@3"))
    after, actions = install_failed(state, InstallFailed("9 of 9 failed", True, "demo@2", "demo@1"))
    assert after == replace(state, installing=None, is_settled=False, sequence=1)
    assert actions == (
        Compare(is_wanted=False),
        Save(),
        report(state, release="demo@2", previous="demo@1", acted=4),
    )


def test_a_failure_of_nothing_only_says_what_is_compared():
    event = InstallFailed("9 of 9 failed", False, "demo@2", "demo@1")
    assert install_failed(SETTLED, event) == (SETTLED, (Compare(is_wanted=False),))
    assert install_failed(NEW, event) == (NEW, (Compare(is_wanted=False),))


@pytest.mark.parametrize(("newer", "begins"), [("demo@3", False), ("demo@1", True)])
def test_an_end_begins_what_is_wanted_by_then_unless_it_waits_for_a_trial(newer, begins):
    wish = wanted(6, newer)
    state = replace(SETTLED, desired=wish, installing=wanted(5, "demo@9"), is_settled=False, is_proving=True)
    after, actions = install_failed(state, InstallFailed("no room", False, "demo@2", "demo@1"))
    outcome = end(FAILED, "no room")
    over = replace(state, installing=None, acted_version=5, outcome=outcome, outcome_release="demo@9", sequence=1)
    said: tuple[Action, ...] = (
        Compare(is_wanted=False),
        Save(),
        report(state, release="demo@2", previous="demo@1", acted=5),
        Send(Channel.EXECUTION, outcome),
    )
    if begins:
        assert after == replace(over, installing=wish, is_proving=False)
        assert actions == (*said, progress(""), Install(newer))
    else:
        assert (after, actions) == (over, said)
