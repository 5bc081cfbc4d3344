"""Tests of hedgerow.server.outcome."""

import pytest

from hedgerow.server.errors import NoUpdateError
from hedgerow.server.outcome import check_end, check_round, refusals, shown_refusals
from hedgerow.server.run_records import RoundRecord


def rounds(*used, refused=None):
    """Return a record a round, with so many updates each."""
    return [
        RoundRecord(
            round=number, loss=None, score=None, train_loss=None, seconds=0.0, examples=0, participants=(),
            clients=count, refused=refused or ({"late": 2, "count": 1} if not count else {"late": 1}),
            failures={} if count else {"7": f"why in round {number}"},
        )
        for number, count in enumerate(used, start=1)
    ]  # fmt: skip


@pytest.mark.parametrize("used", [(1,), (0, 1), (0, 0, 3), (4, 0, 0, 1)])
def test_a_run_whose_last_round_used_an_update_is_a_success(used):
    check_end(rounds(*used))


@pytest.mark.parametrize(("used", "empty"), [((0,), 1), ((3, 0), 1), ((1, 0, 0), 2), ((0, 0), 2), ((0, 5, 0), 1)])
def test_a_run_whose_last_round_used_none_is_a_failure_with_the_reasons_since_one_did(used, empty):
    with pytest.raises(NoUpdateError) as caught:
        check_end(rounds(*used))
    assert (caught.value.round_number, caught.value.rounds) == (len(used), empty)
    assert caught.value.kinds == {"late": 2 * empty, "count": empty}
    assert caught.value.reasons == {"7": f"why in round {len(used)}"}


def test_in_the_middle_the_third_round_in_a_row_ends_a_run_and_the_second_does_not():
    *before, third = rounds(9, 0, 0, 0)
    check_round(before[:2], before[2], last=False)
    with pytest.raises(NoUpdateError, match="none in the last 3 rounds"):
        check_round(before, third, last=False)


def test_a_folder_without_rounds_says_nothing():
    check_end([])


def test_refusals_are_summed_and_shown_the_most_frequent_first():
    total = refusals(rounds(3, 0, 3))
    assert total == {"late": 4, "count": 1}
    assert shown_refusals(total) == "5 (4 late, 1 count)"
    assert shown_refusals({"late": 1200}) == "1,200 (1,200 late)"
    assert shown_refusals({}) == "0"
