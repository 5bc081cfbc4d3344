"""Databases of released versions, as they were written then (released/), become the present one."""

import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from hedgerow.fleet.errors import StoreError
from hedgerow.fleet.store.migrations import MIGRATIONS, Migration, apply_migrations
from hedgerow.fleet.store.writing import Store
from hedgerow.wire.device import Desired
from tests.fleet.store.test_writing import DEVICE, DRIFT, SCORES, telemetry

RELEASED = Path(__file__).parent / "released"
VERSIONS = range(1, 7)
RECORDS = "CREATE TABLE migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL)"


def write_released(path, version):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript((RELEASED / f"version_{version}.sql").read_text())
    connection.close()


def schema(path):
    """Return kind and name of everything in the file -> the text that made it."""
    connection = sqlite3.connect(path)
    found = schema_of(connection)
    connection.close()
    return found


def schema_of(connection):
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {(kind, name): sql for kind, name, sql in rows}


@pytest.fixture
def database():
    with Database(sqlite3.connect(":memory:", isolation_level=None), execute_plugins=False) as opened:
        yield opened


@pytest.mark.parametrize("version", VERSIONS)
def test_a_released_migration_makes_the_same_bytes_of_schema_as_when_it_was_released(tmp_path, database, version):
    write_released(tmp_path / "then.db", version)
    database.execute(RECORDS)
    for migration in MIGRATIONS[:version]:
        migration.apply(database)

    assert schema_of(database.conn) == schema(tmp_path / "then.db")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_database_of_a_released_version_becomes_what_a_new_one_is(tmp_path, version):
    write_released(tmp_path / "old.db", version)
    for name in ("old.db", "new.db"):
        Store(tmp_path / name).close()

    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")
    with Database(tmp_path / "old.db") as database:
        assert list(database.query("PRAGMA integrity_check")) == [{"integrity_check": "ok"}]
        assert list(database.query("PRAGMA foreign_key_check")) == []
        recorded = [(row["number"], row["name"]) for row in database.table("migrations").rows_where(order_by="number")]
        assert recorded == [(migration.number, migration.name) for migration in MIGRATIONS]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_released_version_wrote_is_read_as_it_was_meant(tmp_path, version):
    write_released(tmp_path / "fleet.db", version)
    store = Store(tmp_path / "fleet.db")
    (device,) = store.devices()
    problems = DEVICE.problems if version >= 4 else ()
    assert (device.name, device.past_boots, device.problems) == ("a", ("b0", "b1"), problems)
    assert store.desired("a") == Desired(version=7, release="toy@1", rollout="rollout-1", attempt=2, compare=True)
    assert set(store.rollout("rollout-1").executions) == {"a"}
    if version >= 2:
        assert [stored.window for stored in store.windows("a")] == [telemetry(n).window for n in (1, 2)]
        assert not store.add_window("a", telemetry(0), 9.0, keep=2), "a repeat of one that was pruned"
        assert store.gate_window("rollout-1", 0) == telemetry(0).window
        assert store.drift_state("toy@1") == DRIFT
        assert store.baselines("toy@1") == {"a": {"x": (1, 2)}}
        assert [alert.id for alert in store.alerts()] == ["drift-1"]
        assert [run.id for run in store.runs()] == ["r"]
    if version >= 3:
        assert [entry.subject for entry in store.audit()] == ["rollout-1"]
        assert store.admin_key_hashes() == ("f" * 64,)
    if version >= 5:
        assert store.score_state("toy@1") == SCORES
        assert store.proven_releases() == {"toy@1": 5.0}
    store.close()


def test_each_window_finds_its_devices_oldest_without_sorting(tmp_path):
    store = Store(tmp_path / "fleet.db")
    plan = store.connection.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM windows WHERE device = ? ORDER BY id DESC LIMIT -1 OFFSET ?", ("a", 2)
    ).fetchall()
    store.close()

    assert [row["detail"] for row in plan] == ["SEARCH windows USING COVERING INDEX windows_by_device (device=?)"]


def test_a_step_that_fails_takes_the_steps_before_it_back(database):
    def fail(_database):
        raise OSError("no")

    steps = (lambda found: found.table("first").create({"id": int}, pk="id"), fail)
    with pytest.raises(OSError, match="no"):
        apply_migrations(database, "x", (Migration(1, "two steps", steps),))

    assert not database.conn.in_transaction
    assert database.table_names() == ["migrations"]
    assert database.table("migrations").count == 0
    apply_migrations(database, "x", (Migration(1, "one step", steps[:1]),))
    assert database.table_names() == ["migrations", "first"]


def test_a_migration_that_ends_the_transaction_itself_is_reported_as_what_it_was(database):
    """SQLite does so on a full disk; another ROLLBACK would then be the error that is told."""

    def fail(found):
        found.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        apply_migrations(database, "x", (Migration(1, "full", (fail,)),))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DROP TABLE alerts", "no such table"),
        ("ALTER TABLE alerts DROP COLUMN record", "id, release, raised_at, updated_at"),
    ],
)
def test_a_store_without_a_table_or_a_column_is_refused_and_left_as_it_is(tmp_path, damage, found):
    Store(tmp_path / "fleet.db").close()
    connection = sqlite3.connect(tmp_path / "fleet.db")
    connection.execute(damage)
    connection.close()
    before = schema(tmp_path / "fleet.db")

    for _ in range(2):  # the lock was given back
        with pytest.raises(StoreError, match=f"table alerts with the columns id, .*, found {found}; restore it"):
            Store(tmp_path / "fleet.db")
    assert schema(tmp_path / "fleet.db") == before


def test_what_else_is_in_the_file_is_left_alone(tmp_path):
    with Database(tmp_path / "fleet.db") as database:
        database.table("notes").insert({"text": "mine"})
    Store(tmp_path / "fleet.db").close()
    Store(tmp_path / "fleet.db").close()
    with Database(tmp_path / "fleet.db") as database:
        assert list(database.table("notes").rows) == [{"text": "mine"}]
