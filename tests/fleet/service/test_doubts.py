from hypothesis import given
from hypothesis import strategies as st

from hedgerow.fleet.service.doubts import Doubts


def test_a_start_proves_that_it_lives_by_saying_something_new_after_the_question():
    doubts = Doubts(5.0)
    assert [doubts.hear("a", "b1", n) for n in (7, 7, 6, 8, 8)] == ["doubt", "repeat", "repeat", "proof", "doubt"]


def test_starts_are_doubted_apart_and_the_proof_of_one_ends_the_doubt_of_all():
    doubts = Doubts(5.0)
    assert [doubts.hear("a", boot, 1) for boot in ("b1", "b2")] == ["doubt", "doubt"]
    assert doubts.hear("c", "b1", 2) == "doubt"
    assert doubts.hear("a", "b2", 2) == "proof"
    assert doubts.hear("a", "b1", 9) == "doubt"
    doubts.settle("a")
    assert doubts.hear("a", "b1", 10) == "doubt"


def test_questions_to_one_device_keep_their_distance_unless_the_clock_goes_back():
    doubts = Doubts(5.0)
    assert [doubts.may_ask("a", at) for at in (100.0, 104.9, 105.0)] == [True, False, True]
    assert doubts.may_ask("b", 105.0)
    assert doubts.may_ask("a", 50.0)


def test_a_refusal_is_news_once_for_each_reason_and_is_gone_after_a_reset():
    doubts = Doubts(5.0)
    assert [doubts.refuse("a", reason, 1.0) for reason in ("x", "x", "y")] == [True, False, True]
    assert doubts.refusals["a"].reason == "y"
    doubts.forget("a")
    assert doubts.refusals == {}
    assert doubts.refuse("a", "y", 2.0)
    assert doubts.may_ask("a", 2.0)


@given(st.lists(st.tuples(st.sampled_from(["b1", "b2"]), st.integers(0, 4)), max_size=30))
def test_a_start_that_only_repeats_itself_is_never_believed(words):
    doubts, highest = Doubts(5.0), {}
    for boot, sequence in words:
        first = highest.setdefault(boot, sequence)
        if doubts.hear("a", boot, min(first, sequence)) == "proof":
            raise AssertionError("believed a repeat")
