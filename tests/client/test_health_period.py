"""When a release is healthy for long enough; the clock is a number here."""

from dataclasses import replace

import pytest

from hedgerow.client.health_period import HealthDecision, HealthPeriod, Signs, is_stuck

WELL = Signs(release="demo@2", is_failing=False, is_stuck=False, is_proving=True, is_proved=False)


def begun(length_s: float = 100.0) -> HealthPeriod:
    period = HealthPeriod(length_s)
    period.begin(1000.0, "demo@2")
    return period


def test_a_period_ends_healthy_at_its_length_and_not_before():
    period = begun(5.0)
    assert period.is_running
    assert period.look(1004.999, WELL) is HealthDecision.WAIT
    assert period.look(1005.0, WELL) is HealthDecision.HEALTHY
    assert not period.is_running
    assert period.look(2000.0, WELL) is HealthDecision.WAIT


def test_a_long_period_says_every_thirty_seconds_that_it_lives():
    period = begun()
    times = (1000.0, 1029.9, 1030.0, 1030.1, 1059.9, 1060.0, 1095.0, 1099.9)
    assert [period.look(now, WELL) for now in times] == [
        HealthDecision.WAIT,
        HealthDecision.WAIT,
        HealthDecision.SAY_ALIVE,
        HealthDecision.WAIT,
        HealthDecision.WAIT,
        HealthDecision.SAY_ALIVE,
        HealthDecision.SAY_ALIVE,
        HealthDecision.WAIT,
    ]


def test_it_counts_for_the_release_with_which_it_began_and_no_other():
    period = begun()
    assert period.look(1100.0, replace(WELL, release="demo@3")) is HealthDecision.WAIT
    assert not period.is_running
    assert period.look(1200.0, WELL) is HealthDecision.WAIT


def test_a_new_period_takes_the_place_of_the_one_before():
    period = begun(50.0)
    period.begin(1040.0, "demo@3")
    other = replace(WELL, release="demo@3")
    assert period.look(1069.0, other) is HealthDecision.WAIT
    assert period.look(1070.0, other) is HealthDecision.SAY_ALIVE
    assert period.look(1089.0, other) is HealthDecision.WAIT
    assert period.look(1090.0, other) is HealthDecision.HEALTHY


def test_a_release_that_fails_at_the_end_is_unhealthy():
    period = begun()
    failing = replace(WELL, is_failing=True)
    assert period.look(1010.0, failing) is HealthDecision.WAIT, "not judged before"
    assert period.look(1100.0, failing) is HealthDecision.UNHEALTHY
    assert not period.is_running


def test_one_that_another_is_about_to_replace_is_judged_later():
    period = begun()
    assert period.look(1100.0, replace(WELL, is_failing=True, is_proving=False)) is HealthDecision.WAIT
    assert period.is_running
    assert period.look(1101.0, replace(WELL, is_failing=True)) is HealthDecision.UNHEALTHY


def test_one_that_was_proved_before_and_fails_is_left_to_what_asked_for_it():
    period = begun()
    assert (
        period.look(1100.0, replace(WELL, is_failing=True, is_proving=False, is_proved=True)) is HealthDecision.HEALTHY
    )


def test_a_release_that_is_stuck_is_no_success_as_long_as_it_is():
    period = begun()
    stuck = replace(WELL, is_stuck=True)
    assert period.look(1100.0, stuck) is HealthDecision.WAIT
    assert period.look(1500.0, stuck) is HealthDecision.WAIT
    assert period.look(1501.0, WELL) is HealthDecision.HEALTHY
    assert begun().look(1100.0, replace(stuck, is_proved=True)) is HealthDecision.HEALTHY


@pytest.mark.parametrize(
    ("busy_s", "is_proved", "length_s", "expected"),
    [
        (4.9, False, 5.0, False),
        (5.0, False, 5.0, True),
        (59.9, True, 5.0, False),
        (60.0, True, 5.0, True),
        (60.0, True, 90.0, False),
        (90.0, True, 90.0, True),
    ],
)
def test_what_has_proved_itself_may_take_a_minute_for_a_sample(busy_s, is_proved, length_s, expected):
    assert is_stuck(busy_s, is_proved=is_proved, length_s=length_s) is expected
