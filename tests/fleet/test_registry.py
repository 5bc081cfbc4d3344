from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.fleet.registry import (
    REPORT_JUMP,
    Device,
    contradicts,
    execution_refusal,
    is_doubtful,
    needs_desired,
    next_desired,
    renumbered,
    report_refusal,
    reports_success,
    reset,
    revived,
    take_contact,
    take_presence,
    take_report,
)
from hedgerow.wire.device import VERSION_JUMP, Desired, Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState


def report(boot="b1", sequence=0, **values):
    return Reported(
        **{
            "boot": boot,
            "sequence": sequence,
            "desired_version": 0,
            "release": None,
            "previous": None,
            "target": "pi",
            "agent_version": "1",
            **values,
        }
    )


def test_a_report_is_taken_once():
    device = take_report(Device(name="a"), report(sequence=3), 1.0)
    assert (device.sequence, device.online, device.target, device.last_seen) == (3, True, "pi", 1.0)
    assert take_report(device, report(sequence=3), 2.0) is None
    assert take_report(device, report(sequence=2), 2.0) is None


def test_what_does_not_work_is_what_the_last_report_says():
    device = take_report(Device(name="a"), report(sequence=1, problems=("model: RuntimeError",)), 1.0)
    assert device.problems == ("model: RuntimeError",)
    assert take_report(device, report(sequence=2), 2.0).problems == ()


def test_a_new_start_begins_its_own_sequence_and_ends_the_one_before():
    device = take_report(Device(name="a"), report("b1", 9), 1.0)
    device = take_report(device, report("b2", 0), 2.0)
    assert (device.boot, device.past_boots) == ("b2", ("b1",))
    assert take_report(device, report("b1", 10), 3.0) is None
    assert take_presence(device, Presence(online=False, boot="b1"), 3.0) is None
    assert not take_presence(device, Presence(online=False, boot="b2"), 3.0).online


def test_presence_that_changes_nothing_is_no_change():
    device = take_report(Device(name="a"), report(), 1.0)
    assert take_presence(device, Presence(online=True, boot="b1"), 2.0) is None


def test_a_kept_presence_takes_a_device_offline_and_never_online():
    gone = Device(name="a", boot="b1", past_boots=("b0",))
    there = replace(gone, online=True)
    assert take_presence(gone, Presence(online=True, boot="b1"), 2.0, is_old=True) is None
    assert take_presence(gone, Presence(online=True, boot="b2"), 2.0, is_old=True) is None
    assert not take_presence(there, Presence(online=False, boot="b1"), 2.0, is_old=True).online
    assert take_presence(there, Presence(online=False, boot="b0"), 2.0, is_old=True) is None
    assert take_presence(gone, Presence(online=True, boot="b1"), 2.0).online, "said now, it counts"


def test_what_presence_cannot_say_is_a_question():
    gone = Device(name="a", boot="b1", past_boots=("b0",))
    there = replace(gone, online=True)
    kept_online, will = Presence(online=True, boot="b1"), Presence(online=False, boot="b9")
    assert is_doubtful(gone, kept_online, is_old=True)
    assert not is_doubtful(there, kept_online, is_old=True), "it is asked with all others"
    assert not is_doubtful(gone, kept_online)
    assert is_doubtful(there, will), "the will of a start that was never heard of"
    assert take_presence(there, will, 2.0) is None
    assert not is_doubtful(there, Presence(online=False, boot="b1"))
    for old in (True, False):
        assert not is_doubtful(gone, Presence(online=True, boot="b0"), is_old=old), "a past start says nothing"


def test_contact_is_noted_every_few_seconds_and_takes_nobody_online():
    device = Device(name="a", online=True, last_seen=100.0)
    assert take_contact(device, 104.0) is None
    assert take_contact(device, 105.0) == replace(device, last_seen=105.0)
    assert take_contact(device, 50.0) == replace(device, last_seen=50.0), "a clock that was set back"
    assert take_contact(replace(device, online=False), 500.0) is None


@given(st.integers(0, 100), st.integers(0, 100))
def test_desired_versions_rise_above_both_sides(theirs, ours):
    device = Device(name="a", desired_version=theirs)
    wanted = next_desired(device, Desired(version=ours, release=None), "toy@1")
    assert wanted.version > max(theirs, ours)
    assert needs_desired(device, wanted)


@given(st.lists(st.tuples(st.sampled_from(["b1", "b2", "b3"]), st.integers(0, 3)), max_size=20))
def test_repeating_every_report_changes_nothing(history):
    once = twice = Device(name="a")
    for boot, sequence in history:
        once = take_report(once, report(boot, sequence), 0.0) or once
        for _ in range(2):
            twice = take_report(twice, report(boot, sequence), 0.0) or twice
    assert once == twice


def test_a_report_proves_success_only_for_the_version_and_release_of_a_rollout():
    wanted = Desired(version=4, release="toy@1", rollout="r-1")
    device = Device(name="a", desired_version=4, release="toy@1")
    assert reports_success(device, wanted)
    assert not reports_success(replace(device, desired_version=3), wanted)
    assert not reports_success(replace(device, release=None), wanted)
    assert not reports_success(device, replace(wanted, rollout=None))
    assert not reports_success(device, None)


KNOWN = Device(name="a", target="pi", release="toy@1", online=True, boot="b1", sequence=9, desired_version=4)
WANTED = Desired(version=6, release="toy@2", rollout="r-1", attempt=2)


def test_a_report_is_refused_for_another_target_or_a_jump_and_only_of_a_known_device():
    assert report_refusal(KNOWN, WANTED, report(desired_version=6 + REPORT_JUMP)) is None
    assert "was asked for 6 at most" in report_refusal(KNOWN, WANTED, report(desired_version=7 + REPORT_JUMP))
    assert "was asked for 4 at most" in report_refusal(KNOWN, None, report(desired_version=5 + REPORT_JUMP))
    assert "target is x86" in report_refusal(KNOWN, WANTED, report(target="x86"))
    assert report_refusal(KNOWN, WANTED, report(sequence=1_000_009)) is None
    assert "jumps from 9 to 1000010" in report_refusal(KNOWN, WANTED, report(sequence=1_000_010))
    assert report_refusal(KNOWN, WANTED, report("b2", sequence=10**9)) is None
    for unknown in (Device(name="a"), reset(KNOWN)):
        assert report_refusal(unknown, WANTED, report("b1", 10**9, desired_version=10**9, target="x86")) is None


def test_an_exact_repeat_contradicts_nothing_and_everything_else_that_is_no_news_does():
    again = report("b1", 9, release="toy@1", desired_version=4)
    assert not contradicts(KNOWN, again)
    assert contradicts(KNOWN, replace(again, sequence=8))
    assert contradicts(KNOWN, replace(again, release=None))
    assert contradicts(replace(KNOWN, boot="b2", past_boots=("b1",)), again)


def test_a_start_that_lives_takes_the_place_of_the_one_that_was_believed():
    hidden = replace(KNOWN, boot="liar", sequence=0, past_boots=("b0", "b1"))
    device = take_report(revived(hidden, "b1"), report("b1", 12), 5.0)
    assert (device.boot, device.sequence, device.past_boots) == ("b1", 12, ("b0", "liar"))
    forged = replace(KNOWN, sequence=10**5)
    assert take_report(revived(forged, "b1"), report("b1", 12), 5.0).sequence == 12


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_what_is_wanted_is_numbered_so_that_the_device_takes_it(seen, version):
    device = replace(KNOWN, desired_version=seen)
    number = (renumbered(device, replace(WANTED, version=version)) or replace(WANTED, version=version)).version
    assert seen <= number <= seen + VERSION_JUMP
    assert number > 0
    assert number > seen or number == version


def test_a_number_that_the_device_takes_stays_and_the_wish_stays_in_any_case():
    assert renumbered(KNOWN, WANTED) is None
    assert renumbered(KNOWN, replace(WANTED, version=4)) is None
    assert renumbered(KNOWN, replace(WANTED, version=4 + VERSION_JUMP)) is None
    assert renumbered(KNOWN, replace(WANTED, version=5 + VERSION_JUMP)) == replace(WANTED, version=5)
    assert renumbered(KNOWN, replace(WANTED, version=3)) == replace(WANTED, version=5)
    assert renumbered(replace(KNOWN, desired_version=0), replace(WANTED, version=0)) == replace(WANTED, version=1)


def word(state, **changes):
    return Execution(**{"rollout": "r-1", "attempt": 2, "state": ExecutionState(state), **changes})


def test_an_execution_counts_of_a_device_that_is_there_was_asked_and_acknowledged():
    done = replace(KNOWN, desired_version=6, release="toy@2")
    assert execution_refusal(done, WANTED, word("SUCCEEDED")) is None
    assert execution_refusal(KNOWN, WANTED, word("IN_PROGRESS")) is None
    assert execution_refusal(replace(KNOWN, desired_version=6), WANTED, word("FAILED")) is None
    assert execution_refusal(done, replace(WANTED, rollout=None), word("FAILED")) is None
    for device, wanted, message, reason in (
        (None, WANTED, word("SUCCEEDED"), "never reported"),
        (Device(name="a", online=True), WANTED, word("SUCCEEDED"), "never reported"),
        (replace(done, online=False), WANTED, word("IN_PROGRESS"), "offline"),
        (replace(done, online=False), WANTED, word("FAILED"), "offline"),
        (done, None, word("SUCCEEDED"), "not asked"),
        (done, WANTED, word("SUCCEEDED", attempt=1), "not asked for attempt 1 of r-1"),
        (done, WANTED, word("IN_PROGRESS", rollout="r-2"), "not asked"),
        (replace(done, release="toy@1"), WANTED, word("SUCCEEDED"), "runs toy@1"),
        (replace(done, desired_version=5), WANTED, word("SUCCEEDED"), "acted on version 5, and was asked for 6"),
        (KNOWN, WANTED, word("REJECTED"), "acted on version 4"),
    ):
        assert reason in execution_refusal(device, wanted, message)
