from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.fleet.registry import (
    Device,
    is_doubtful,
    needs_desired,
    next_desired,
    reports_success,
    take_contact,
    take_presence,
    take_report,
)
from hedgerow.wire import Desired, Presence, Reported


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
