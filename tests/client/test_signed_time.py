"""The lower bound of a clock: exact instants, and what no signature can do to it."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.client.signed_time import RELEASED_AT, SIGNED_AT, DatedDocument, format_time, lower_bound, read_time

ROOT = Path(__file__).resolve().parents[2]
T = datetime(2027, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def documents(**signed_at):
    """Root and targets for a year, snapshot and timestamp for a day, from T on."""
    lives = {"root": 365, "targets": 300, "snapshot": 1, "timestamp": 1}
    return {
        role: DatedDocument(role=role, expires=T + days * DAY, signed_at=signed_at.get(role))
        for role, days in lives.items()
    }


def test_without_signed_times_the_release_of_the_agent_is_the_bound():
    assert lower_bound(documents()).time == RELEASED_AT
    assert "release of this agent" in lower_bound({}).witness


def test_the_newest_signature_wins_and_is_named():
    bound = lower_bound(documents(root=T, timestamp=T + timedelta(hours=3), snapshot=T + timedelta(hours=2)))
    assert (bound.time, bound.witness) == (T + timedelta(hours=3), "the signature of timestamp.json")


def test_no_signature_counts_beyond_its_own_end_or_that_of_the_offline_keys():
    forever = T + 20_000 * DAY
    assert lower_bound(documents(timestamp=forever)).time == T + DAY
    assert lower_bound(documents(root=forever)).time == T + 300 * DAY
    long_lived = documents(timestamp=forever) | {
        "timestamp": DatedDocument(role="timestamp", expires=forever + DAY, signed_at=forever)
    }
    assert lower_bound(long_lived).time == T + 300 * DAY


def test_a_signature_from_before_the_agents_release_changes_nothing():
    assert lower_bound(documents(root=RELEASED_AT - DAY)).time == RELEASED_AT


instants = st.integers(0, 2**33).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(st.dictionaries(st.sampled_from(["root", "targets", "snapshot", "timestamp"]), st.tuples(instants, instants)))
def test_the_bound_lies_between_the_release_and_the_end_of_what_was_signed(drawn):
    made = {r: DatedDocument(role=r, expires=expires, signed_at=at) for r, (expires, at) in drawn.items()}
    bound = lower_bound(made).time
    assert bound >= RELEASED_AT
    assert bound <= max([RELEASED_AT, *(document.expires for document in made.values())])
    assert bound <= max([RELEASED_AT, *(document.signed_at for document in made.values())])


@given(instants)
def test_times_are_read_as_they_are_written(time):
    assert read_time({SIGNED_AT: format_time(time)}) == time.replace(microsecond=0)


@pytest.mark.parametrize("value", [None, 5, "", "tomorrow", "2027-13-01T00:00:00Z", "2027-03-01T00:00:00+02:00", ["x"]])
def test_what_is_no_time_is_no_time(value):
    assert read_time({SIGNED_AT: value}) is None
    assert read_time({}) is None


def test_the_release_date_is_not_in_the_future_and_not_forgotten():
    """Measured against the newest commit, so that a change of the project shows it and the passing of time does not."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no history here")
    done = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"git does not read the history here: {done.stderr.strip()}")
    newest = datetime.fromtimestamp(int(done.stdout), UTC)
    assert newest - 120 * DAY < RELEASED_AT <= newest
