"""Tests of hedgerow.server.cohort.schedule: which rows run when, played with rows that count their steps."""

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.cohort.schedule import padded_rows, plan_segments


def played(steps):
    """Return what each client's row holds when it is taken, where a step adds one to every row that runs."""
    rows = [0] * padded_rows(len(steps))
    taken = {}
    for segment in plan_segments(steps):
        for _ in range(segment.first, segment.end):
            for row in range(segment.rows):
                rows[row] += 1
        for row in segment.finished:
            assert row not in taken
            taken[row] = rows[row]
    return [taken[row] for row in range(len(steps))]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80))
def test_every_client_is_taken_once_right_after_its_last_step(steps):
    steps.sort(reverse=True)
    assert played(steps) == steps


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80))
def test_rows_that_still_train_always_run_and_rows_only_shrink(steps):
    steps.sort(reverse=True)
    segments = plan_segments(steps)
    assert all(segment.rows >= segment.finished.stop for segment in segments)
    assert [segment.rows for segment in segments] == sorted((s.rows for s in segments), reverse=True)
    assert segments[0].first == 0
    assert segments[-1].end == steps[0]
    assert len({segment.rows for segment in segments}) <= 6


def test_equal_clients_are_one_segment():
    (segment,) = plan_segments([4, 4, 4])
    assert (segment.first, segment.end, segment.rows, segment.finished) == (0, 4, 3, range(3))


@given(st.integers(1, 10_000))
def test_padding_is_at_most_an_eighth_and_sizes_are_few(clients):
    assert clients <= padded_rows(clients) <= clients * 9 / 8
    assert padded_rows(padded_rows(clients)) == padded_rows(clients)


def test_a_thousand_cohort_sizes_need_few_traces():
    assert len({padded_rows(clients) for clients in range(1, 1001)}) <= 64
    assert len({padded_rows(clients) for clients in range(90, 111)}) <= 4
