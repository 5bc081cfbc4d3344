"""The roll call: who is asked, how often, and who is gone."""

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.fleet.service.roll_call import RollCall, RollCallResult


def silent(roll_call: RollCall, last_seen: dict[str, float], now: float) -> dict[str, float]:
    """What the store would give."""
    since = roll_call.silent_since(now)
    oldest = sorted((at, name) for name, at in last_seen.items() if at <= since)[: roll_call.limit]
    return {name: at for at, name in oldest} | {
        name: last_seen[name] for name in roll_call.doubted if name in last_seen
    }


def verdicts(roll_call: RollCall, last_seen: dict[str, float], times) -> list[tuple[float, RollCallResult]]:
    found = []
    for now in times:
        verdict = roll_call.take(silent(roll_call, last_seen, now), now)
        if verdict != RollCallResult():
            found.append((now, verdict))
    return found


def test_a_silent_device_is_asked_after_doubling_waits_and_then_is_gone():
    roll_call = RollCall(silence_s=100, answer_s=60)
    found = verdicts(roll_call, {"a": 0.0}, map(float, range(161)))
    assert found == [
        (100.0, RollCallResult(ask=("a",))),
        (105.0, RollCallResult(ask=("a",))),
        (115.0, RollCallResult(ask=("a",))),
        (135.0, RollCallResult(ask=("a",))),
        (160.0, RollCallResult(gone=("a",))),
    ]


def test_a_device_that_answers_is_left_alone_until_it_is_silent_again():
    roll_call = RollCall(silence_s=100, answer_s=60)
    last_seen = {"a": 0.0}
    assert verdicts(roll_call, last_seen, [101.0]) == [(101.0, RollCallResult(ask=("a",)))]
    last_seen["a"] = 102.0
    assert verdicts(roll_call, last_seen, map(float, range(103, 202))) == []
    assert verdicts(roll_call, last_seen, [202.0]) == [(202.0, RollCallResult(ask=("a",)))]
    assert verdicts(roll_call, last_seen, [261.0, 262.0])[-1] == (262.0, RollCallResult(gone=("a",)))


def test_after_a_loss_of_the_link_everybody_is_asked_who_was_not_heard_since():
    roll_call = RollCall(silence_s=100, answer_s=60)
    last_seen = {"a": 9.0, "b": 8.0, "c": 10.5}
    assert verdicts(roll_call, last_seen, [10.0]) == []
    roll_call.doubt_all(10.0)
    assert verdicts(roll_call, last_seen, [11.0]) == [(11.0, RollCallResult(ask=("b", "a")))]
    last_seen["a"] = 11.5
    assert verdicts(roll_call, last_seen, [71.0]) == [(71.0, RollCallResult(gone=("b",)))]


def test_an_answer_in_the_very_moment_of_the_doubt_is_asked_for_again():
    roll_call = RollCall(silence_s=100, answer_s=60)
    roll_call.doubt_all(10.0)
    last_seen = {"a": 10.0}
    assert verdicts(roll_call, last_seen, [10.0]) == [(10.0, RollCallResult(ask=("a",)))]
    assert verdicts(roll_call, last_seen, [10.5]) == [(10.5, RollCallResult(ask=("a",)))]
    last_seen["a"] = 10.75
    assert verdicts(roll_call, last_seen, map(float, range(11, 100))) == []


def test_a_doubted_device_is_asked_also_when_nothing_is_known_of_it_and_forgotten_without_an_answer():
    roll_call = RollCall(silence_s=100, answer_s=60)
    roll_call.doubt("stranger", 1.0)
    assert verdicts(roll_call, {}, [1.0]) == [(1.0, RollCallResult(ask=("stranger",)))]
    assert verdicts(roll_call, {}, [61.0]) == [(61.0, RollCallResult(gone=("stranger",)))]
    assert roll_call.doubted == ()
    roll_call.doubt("stranger", 62.0)
    assert verdicts(roll_call, {}, [62.0]) == [(62.0, RollCallResult(ask=("stranger",)))]
    assert verdicts(roll_call, {"stranger": 62.5}, map(float, range(63, 160))) == []


def test_a_large_fleet_is_asked_in_parts_the_longest_silent_first():
    roll_call = RollCall(silence_s=100, answer_s=60, at_once=2)
    last_seen = {name: float(number) for number, name in enumerate("edcba")}
    roll_call.doubt_all(50.0)
    found = verdicts(roll_call, last_seen, [50.0, 50.5, 51.0, 51.5])
    assert [verdict.ask for _, verdict in found] == [("e", "d"), ("c", "b"), ("a",)]


def test_no_more_questions_are_open_than_the_limit_and_everybody_has_a_turn():
    roll_call = RollCall(silence_s=100, answer_s=60, at_once=2, open_limit=3)
    last_seen = {name: float(number) for number, name in enumerate("edcba")}
    roll_call.doubt_all(50.0)
    found = verdicts(roll_call, last_seen, [50.0, 50.5, 51.0])
    assert [verdict.ask for _, verdict in found] == [("e", "d"), ("c",)]
    gone, now = [], 51.0
    while len(gone) < 5 and now < 500:
        now += 0.5
        for _, verdict in verdicts(roll_call, last_seen, [now]):
            gone += verdict.gone
            for name in verdict.gone:
                del last_seen[name]
    assert gone == list("edcba")
    assert now <= 50 + 2 * 60 + 3


def test_a_clock_that_was_set_back_since_everybody_was_doubted_asks_everybody_once():
    roll_call = RollCall(silence_s=100, answer_s=60)
    roll_call.doubt_all(10_000.0)
    last_seen = {"a": 10.0, "b": 10.0}
    assert verdicts(roll_call, last_seen, [10.5]) == [(10.5, RollCallResult(ask=("a", "b")))]
    last_seen |= {"a": 11.0, "b": 11.0}
    assert verdicts(roll_call, last_seen, [12.0, 20.0, 80.0]) == []


def test_a_clock_that_was_set_back_starts_the_questions_anew():
    roll_call = RollCall(silence_s=100, answer_s=60)
    roll_call.doubt_all(1000.0)
    assert verdicts(roll_call, {"a": 900.0}, [1000.0]) == [(1000.0, RollCallResult(ask=("a",)))]
    assert verdicts(roll_call, {"a": 900.0}, [950.0]) == [(950.0, RollCallResult(ask=("a",)))]
    assert verdicts(roll_call, {"a": 900.0}, [1010.0]) == [(1010.0, RollCallResult(gone=("a",)))]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["heard", "doubt", "doubt all", "pass"])), max_size=40)
)
def test_nobody_is_gone_who_was_heard_since_the_question(history):
    roll_call = RollCall(silence_s=20, answer_s=10)
    last_seen, asked, now = dict.fromkeys("abc", 0.0), {}, 0.0
    for name, what in history:
        now += 3.0
        if what == "heard":
            last_seen[name] = now
        elif what == "doubt":
            roll_call.doubt(name, now)
        elif what == "doubt all":
            roll_call.doubt_all(now)
        verdict = roll_call.take(silent(roll_call, last_seen, now), now)
        for gone in verdict.gone:
            assert last_seen[gone] < asked[gone] <= now - 10
            last_seen[gone] = now  # it comes back at once
        for each in verdict.ask:
            if each not in asked or last_seen[each] >= asked[each]:
                asked[each] = now
