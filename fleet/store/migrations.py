"""Numbered changes of the store's tables. A migration that was released is never edited; the next one corrects it.

New ones call the API of sqlite-utils; where it has no word for something (tables without row ids, partial indexes,
triggers), and in the first six, a step is SQL. Its ``transform`` makes a table anew without its triggers, and with row
ids: see docs/adr/0019-what-sqlite-utils-does.md before you use it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlite_utils import Database

from hedgerow.fleet.errors import StoreError
from hedgerow.fleet.store.score_records import rescored

__all__ = ["MIGRATIONS", "Migration", "apply_migrations"]

_RECORDS = "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One change.

    Attributes:
        number: Its place in the order, from 1, without gaps.
        name: What it does, for people.
        steps: SQL, or what is done with the database; all in one transaction together with the row that records it.
    """

    number: int
    name: str
    steps: tuple[str | Callable[[Database], object], ...]

    def apply(self, database: Database) -> None:
        """Run the steps and record that they were; the caller holds the transaction."""
        for step in self.steps:
            if isinstance(step, str):
                database.execute(step)
            else:
                step(database)
        database.table("migrations").insert({"number": self.number, "name": self.name})


def _rescore(table: str) -> Callable[[Database], object]:
    return lambda database: database.table(table).convert("record", rescored)


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "devices and rollouts",
        (
            """
            CREATE TABLE devices (
                name TEXT PRIMARY KEY,
                target TEXT,
                release TEXT,
                previous TEXT,
                online INTEGER NOT NULL,
                boot TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                past_boots TEXT NOT NULL,
                desired_version INTEGER NOT NULL,
                agent_version TEXT NOT NULL,
                runtimes TEXT NOT NULL,
                last_seen REAL NOT NULL
            )
            """,
            """
            CREATE TABLE rollouts (
                number INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                release TEXT NOT NULL,
                state TEXT NOT NULL,
                is_over INTEGER NOT NULL,
                record TEXT NOT NULL
            )
            """,
            "CREATE INDEX rollouts_in_progress ON rollouts (number) WHERE NOT is_over",
            """
            CREATE TABLE executions (
                rollout TEXT NOT NULL REFERENCES rollouts (id),
                device TEXT NOT NULL,
                state TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (rollout, device)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE desired (
                device TEXT PRIMARY KEY REFERENCES devices (name),
                version INTEGER NOT NULL,
                release TEXT,
                rollout TEXT REFERENCES rollouts (id),
                attempt INTEGER NOT NULL,
                compare INTEGER NOT NULL
            )
            """,
        ),
    ),
    Migration(
        2,
        "telemetry, drift and training runs",
        (
            """
            CREATE TABLE windows (
                id INTEGER PRIMARY KEY,
                device TEXT NOT NULL,
                boot TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                release TEXT NOT NULL,
                received_at REAL NOT NULL,
                record TEXT NOT NULL,
                UNIQUE (device, boot, sequence)
            )
            """,
            "CREATE INDEX windows_by_time ON windows (received_at)",
            # A repeat of a window that was pruned must still be known as one.
            """
            CREATE TABLE pruned_windows (
                device TEXT NOT NULL,
                boot TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                PRIMARY KEY (device, boot)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE merged_windows (
                slice TEXT NOT NULL,
                release TEXT NOT NULL,
                period INTEGER NOT NULL,
                windows INTEGER NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (slice, release, period)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE gate_windows (
                rollout TEXT NOT NULL REFERENCES rollouts (id),
                stage INTEGER NOT NULL,
                windows INTEGER NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (rollout, stage)
            ) WITHOUT ROWID
            """,
            "CREATE TABLE drift_states (release TEXT PRIMARY KEY, record TEXT NOT NULL)",
            # One row a device and a slice: a window changes a handful of them, whatever the size of the fleet.
            """
            CREATE TABLE drift_parts (
                release TEXT NOT NULL REFERENCES drift_states (release),
                kind TEXT NOT NULL,
                name TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (release, kind, name)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE baselines (
                release TEXT NOT NULL,
                device TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (release, device)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE alerts (
                id TEXT PRIMARY KEY,
                release TEXT NOT NULL,
                raised_at REAL NOT NULL,
                updated_at REAL NOT NULL,
                record TEXT NOT NULL
            )
            """,
            """
            CREATE TABLE runs (
                id TEXT PRIMARY KEY,
                started_at REAL NOT NULL,
                ended_at REAL,
                state TEXT NOT NULL,
                trigger TEXT NOT NULL,
                parent TEXT NOT NULL,
                release TEXT,
                reason TEXT NOT NULL
            )
            """,
        ),
    ),
    Migration(
        3,
        "admin keys and the append-only audit log",
        (
            "CREATE TABLE admin_keys (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, created_at REAL NOT NULL)",
            """
            CREATE TABLE audit (
                id INTEGER PRIMARY KEY,
                at REAL NOT NULL,
                actor TEXT NOT NULL,
                action TEXT NOT NULL,
                subject TEXT NOT NULL,
                detail TEXT NOT NULL
            )
            """,
            """
            CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
            BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END
            """,
            """
            CREATE TRIGGER audit_keeps_words BEFORE UPDATE ON audit
            BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END
            """,
        ),
    ),
    Migration(
        4,
        "what does not work on a device, and devices by their last contact",
        (
            "ALTER TABLE devices ADD COLUMN problems TEXT NOT NULL DEFAULT '[]'",
            "CREATE INDEX devices_by_contact ON devices (last_seen, name) WHERE online",
        ),
    ),
    Migration(
        5,
        "scores of releases, and which of them have proven themselves",
        (
            "CREATE TABLE score_states (release TEXT PRIMARY KEY, record TEXT NOT NULL)",
            """
            CREATE TABLE score_slices (
                release TEXT NOT NULL REFERENCES score_states (release),
                name TEXT NOT NULL,
                record TEXT NOT NULL,
                PRIMARY KEY (release, name)
            ) WITHOUT ROWID
            """,
            "CREATE TABLE proven_releases (release TEXT PRIMARY KEY, at REAL NOT NULL, reason TEXT NOT NULL)",
        ),
    ),
    Migration(
        6,
        "how many devices were forgotten under a release",
        (
            "UPDATE drift_states SET record = json_set(record, '$.forgotten', 0)",
            "UPDATE score_states SET record = json_set(record, '$.forgotten', 0)",
        ),
    ),
    Migration(
        7,
        "windows by device and rollouts by release",
        (
            # Each window asks for its device's oldest, and for the last rollout of its release.
            lambda database: database.table("windows").create_index(["device"], "windows_by_device"),
            lambda database: database.table("rollouts").create_index(["release"], "rollouts_by_release"),
        ),
    ),
    Migration(
        8,
        "scores of any size instead of right and wrong",
        (
            _rescore("windows"),
            _rescore("merged_windows"),
            _rescore("gate_windows"),
            _rescore("drift_states"),
            _rescore("drift_parts"),
            _rescore("score_slices"),
        ),
    ),
)


def apply_migrations(database: Database, path: str, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the tables up to date.

    Each migration runs in a transaction of its own together with the row that records it: a process that dies in
    between leaves the store before or after a migration, never inside one.

    Args:
        database: Over an open connection, in autocommit mode.
        path: The file, for messages.
        migrations: All of them, in order, numbered from 1.

    Raises:
        StoreError: The store was written by a newer version, which this one would misread, or lacks a table.
    """
    database.execute(_RECORDS)
    applied = max((row["number"] for row in database.table("migrations").rows), default=0)
    if applied > len(migrations):
        raise StoreError(
            path,
            f"tables of version {len(migrations)} or earlier",
            f"version {applied}",
            "run the version of Hedgerow that wrote it, or a later one",
        )
    for migration in migrations[applied:]:
        database.execute("BEGIN IMMEDIATE")
        try:
            migration.apply(database)
        except BaseException:
            # On a full disk SQLite may have rolled back already; then this does nothing.
            database.rollback()
            raise
        database.commit()
    _check_tables(database, path, migrations)


def _check_tables(database: Database, path: str, migrations: tuple[Migration, ...]) -> None:
    # A damaged store is told when it is opened, and not by the first message that needs what is absent.
    found = _columns(database)
    with Database(memory=True, execute_plugins=False) as fresh:
        fresh.execute(_RECORDS)
        for migration in migrations:
            migration.apply(fresh)
        expected = _columns(fresh)
    for table, columns in expected.items():
        if found.get(table) != columns:
            raise StoreError(
                path,
                f"a table {table} with the columns {', '.join(columns)}",
                ", ".join(found.get(table, ())) or "no such table",
                "restore it from a backup",
            )


def _columns(database: Database) -> dict[str, tuple[str, ...]]:
    return {table.name: tuple(column.name for column in table.columns) for table in database.tables}
