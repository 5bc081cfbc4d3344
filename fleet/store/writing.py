"""The store: one SQLite file (WAL), one writer. SQL is in this folder only.

A :class:`Store` belongs to one thread, the service's own, which reads through it what it has just written. Others open
readers of their own (:meth:`Store.open_reader`), which see the last committed state and never wait for the writer.

What is written now and then is written by sqlite-utils, which joins the open transaction. What every message of a
device writes (devices, what is wanted of them, executions, windows and their sums, states) is SQL, as is what such a
write reads first: sqlite-utils looks at the table before each row and opens a savepoint, and a row costs it 20 to 75
microseconds where SQLite needs 2. See docs/adr/0019-what-sqlite-utils-does.md.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from filelock import BaseFileLock, Timeout

from hedgerow.decode import Fields
from hedgerow.file_lock import file_lock
from hedgerow.fleet.drift.alert import Alert
from hedgerow.fleet.drift.alerts import DriftState
from hedgerow.fleet.drift.scores import ScoreSlice, ScoreState
from hedgerow.fleet.errors import StoreError
from hedgerow.fleet.records import TrainingRun
from hedgerow.fleet.registry import Device
from hedgerow.fleet.rollout.state import Rollout
from hedgerow.fleet.store.migrations import apply_migrations
from hedgerow.fleet.store.reading import DRIFT_PARTS, StoreReader, connect, to_text
from hedgerow.window import Window, merge_windows
from hedgerow.wire.device import Desired
from hedgerow.wire.telemetry import Telemetry

__all__ = ["Store", "is_written"]

_PRIMARY_CODE = 0xFF
_DISK_CODES = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
"""The database is well, but the disk is full or cannot be written."""


def _lock(path: Path) -> BaseFileLock:
    """Take the right to write; the kernel takes it back when the process ends, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock(path.with_name(f"{path.name}.lock"))
        lock.acquire()
    except Timeout:
        raise StoreError(
            str(path), "that nobody else writes it", "another fleet service that does", "stop that service first"
        ) from None
    except OSError as exc:
        raise StoreError(
            str(path), "a folder that can be written and locked", str(exc), "correct the fleet folder"
        ) from exc
    return lock


def is_written(path: Path) -> bool:
    """Return whether another process writes the store at *path*: a fleet service runs on it."""
    if not path.parent.is_dir():
        return False
    lock = file_lock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


class Store(StoreReader):
    """Opens the store, makes it when it is absent, brings its tables up to date.

    Args:
        path: The file; it gets mode 0600.

    Attributes:
        path: The file.

    Raises:
        StoreError: The file is no database, is damaged, was written by a newer version, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._in_transaction = False
        self._held = _lock(path)
        try:
            self._open()
        except BaseException:
            self._held.release()
            raise

    def _open(self) -> None:
        path = self.path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            super().__init__(path)
        except (OSError, sqlite3.Error) as exc:
            raise StoreError(str(path), "a file that can be opened", str(exc), "correct the fleet folder") from exc
        try:
            self.connection.execute("PRAGMA journal_mode = WAL")
            # FULL: what was committed is on disk before it is published or acknowledged.
            self.connection.execute("PRAGMA synchronous = FULL")
            apply_migrations(self._database, str(path))
        except sqlite3.Error as exc:
            self.connection.close()
            if getattr(exc, "sqlite_errorcode", 0) & _PRIMARY_CODE in _DISK_CODES:
                raise StoreError(str(path), "a disk with room that can be written", str(exc), "make room") from exc
            raise StoreError(str(path), "a SQLite database", str(exc), "restore it from a backup") from exc
        except StoreError:
            self.connection.close()
            raise

    def open_reader(self) -> StoreReader:
        """Return a reader for other threads; whoever asked closes it."""
        return StoreReader(self.path)

    def close(self) -> None:
        """Close the connection; another process may write from now on."""
        super().close()
        self._held.release()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all or nothing of what happens inside; a transaction inside another belongs to it."""
        if self._in_transaction:
            yield
            return
        self._sql("BEGIN IMMEDIATE")
        self._in_transaction = True
        try:
            yield
            self._sql("COMMIT")
        except BaseException:
            # On a full disk SQLite has rolled back already; that must not hide what happened.
            if self.connection.in_transaction:
                self._sql("ROLLBACK")
            raise
        finally:
            self._in_transaction = False

    def backup(self, path: Path) -> None:
        """Write a copy of the last committed state into a new file, while the service runs.

        Raises:
            StoreError: *path* exists, or cannot be written.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            connection = connect(self.path)
            try:
                connection.execute("VACUUM INTO ?", (str(path),))
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as exc:
            raise StoreError(str(path), "a new file for the backup", str(exc), "choose another path") from exc

    def _sql(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        return self.connection.execute(sql, parameters)

    def save_device(self, device: Device) -> None:
        """Insert or replace a device."""
        self._sql(
            "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " target = excluded.target, release = excluded.release, previous = excluded.previous,"
            " online = excluded.online, boot = excluded.boot, sequence = excluded.sequence,"
            " past_boots = excluded.past_boots, desired_version = excluded.desired_version,"
            " agent_version = excluded.agent_version, runtimes = excluded.runtimes, last_seen = excluded.last_seen,"
            " problems = excluded.problems",
            device.name, device.target, device.release, device.previous, device.online, device.boot, device.sequence,
            json.dumps(device.past_boots), device.desired_version, device.agent_version, json.dumps(device.runtimes),
            device.last_seen, json.dumps(device.problems),
        )  # fmt: skip

    def forget_device(self, device: str) -> None:
        """Delete a device, what is wanted of it, its windows and its baselines.

        Its parts in rollouts, the alerts that named it and the audit log are history and stay.
        """
        for table in ("desired", "windows", "pruned_windows", "baselines"):
            self._table(table).delete_where("device = ?", [device])
        self._table("devices").delete_where("name = ?", [device])

    def date_contacts_back(self, now: float) -> None:
        """Let devices that were heard after *now*, by a clock that was set back since, have been heard just now."""
        self._sql("UPDATE devices SET last_seen = ? WHERE online AND last_seen > ?", now, now)

    def save_desired(self, device: str, desired: Desired) -> None:
        """Insert or replace what is wanted of a device."""
        self._sql(
            "INSERT OR REPLACE INTO desired VALUES (?, ?, ?, ?, ?, ?)",
            device, desired.version, desired.release, desired.rollout, desired.attempt, desired.compare,
        )  # fmt: skip

    def next_rollout_number(self) -> int:
        """Return the number of the next rollout; numbers are never used again."""
        row = self._row("SELECT COALESCE(MAX(number), 0) + 1 AS number FROM rollouts")
        return int(row["number"]) if row else 1

    def save_rollout(self, rollout: Rollout, before: Rollout | None, *, number: int | None = None) -> None:
        """Insert or update a rollout, writing only the executions that changed.

        Args:
            rollout: As it is now.
            before: As it was saved last; None inserts it.
            number: The one that a new rollout gets.
        """
        record = replace(rollout, executions={}).to_record()
        del record["executions"]
        if before is None:
            row = {"number": number, "id": rollout.id, "release": rollout.release, "state": rollout.state.value}
            self._table("rollouts").insert({**row, "is_over": rollout.state.is_terminal, "record": to_text(record)})
        else:
            self._sql(
                "UPDATE rollouts SET state = ?, is_over = ?, record = ? WHERE id = ?",
                rollout.state.value, rollout.state.is_terminal, to_text(record), rollout.id,
            )  # fmt: skip
        earlier = before.executions if before else {}
        for device, execution in rollout.executions.items():
            if earlier.get(device) is not execution:
                self._sql(
                    "INSERT OR REPLACE INTO executions VALUES (?, ?, ?, ?)",
                    rollout.id, device, execution.state.value, to_text(execution.to_record()),
                )  # fmt: skip

    def add_window(self, device: str, message: Telemetry, received_at: float, *, keep: int) -> bool:
        """Insert a window and drop the device's oldest beyond *keep*.

        Returns:
            False, and nothing was written, when this window was inserted before.
        """
        pruned = self._sql(
            "SELECT sequence FROM pruned_windows WHERE device = ? AND boot = ?", device, message.boot
        ).fetchone()
        if pruned is not None and message.sequence <= pruned["sequence"]:
            return False
        inserted = self._sql(
            "INSERT OR IGNORE INTO windows (device, boot, sequence, release, received_at, record)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            device, message.boot, message.sequence, message.window.release, received_at,
            to_text(message.window.to_record()),
        )  # fmt: skip
        if inserted.rowcount == 0:
            return False
        surplus = self._sql(
            "SELECT id, boot, sequence FROM windows WHERE device = ? ORDER BY id DESC LIMIT -1 OFFSET ?", device, keep
        ).fetchall()
        for row in surplus:
            self._sql("DELETE FROM windows WHERE id = ?", row["id"])
            (lowest,) = self._sql(
                "SELECT MIN(sequence) FROM windows WHERE device = ? AND boot = ?", device, row["boot"]
            ).fetchone()
            # A number that somebody made up must not turn all that follow into repeats.
            pruned_to = row["sequence"] if lowest is None else min(row["sequence"], lowest - 1)
            self._sql(
                "INSERT INTO pruned_windows VALUES (?, ?, ?) ON CONFLICT (device, boot)"
                " DO UPDATE SET sequence = MAX(sequence, excluded.sequence)",
                device, row["boot"], pruned_to,
            )  # fmt: skip
        return True

    def add_to_merged(self, slice_name: str, period: int, window: Window) -> None:
        """Add a window to a slice's sum for a period."""
        row = self._sql(
            "SELECT record FROM merged_windows WHERE slice = ? AND release = ? AND period = ?",
            slice_name, window.release, period,
        ).fetchone()  # fmt: skip
        self._sql(
            "INSERT INTO merged_windows VALUES (?, ?, ?, 1, ?) ON CONFLICT (slice, release, period)"
            " DO UPDATE SET windows = windows + 1, record = excluded.record",
            slice_name, window.release, period, _sum_text(row["record"] if row else None, window),
        )  # fmt: skip

    def add_to_gate(self, rollout: str, stage: int, window: Window) -> None:
        """Add a window to what a stage's gate judges."""
        row = self._sql("SELECT record FROM gate_windows WHERE rollout = ? AND stage = ?", rollout, stage).fetchone()
        self._sql(
            "INSERT INTO gate_windows VALUES (?, ?, 1, ?) ON CONFLICT (rollout, stage)"
            " DO UPDATE SET windows = windows + 1, record = excluded.record",
            rollout, stage, _sum_text(row["record"] if row else None, window),
        )  # fmt: skip

    def save_drift_state(self, state: DriftState, before: DriftState | None) -> None:
        """Insert or update the state of drift detection for a release, writing only the parts that changed.

        Args:
            state: As it is now.
            before: As it was saved last; None: never.
        """
        record = {**state.to_record(), "devices": {}, "slices": {}}
        self._sql(
            "INSERT INTO drift_states VALUES (?, ?) ON CONFLICT (release) DO UPDATE SET record = excluded.record",
            state.release, to_text(record),
        )  # fmt: skip
        for kind in DRIFT_PARTS:
            parts, earlier = getattr(state, kind), getattr(before, kind) if before is not None else {}
            for name, part in parts.items():
                if earlier.get(name) is not part:
                    self._sql(
                        "INSERT OR REPLACE INTO drift_parts VALUES (?, ?, ?, ?)",
                        state.release, kind, name, to_text(part.to_record()),
                    )  # fmt: skip
            for name in earlier.keys() - parts.keys():
                self._sql(
                    "DELETE FROM drift_parts WHERE release = ? AND kind = ? AND name = ?", state.release, kind, name
                )

    def save_score_state(self, state: ScoreState, before: ScoreState | None) -> None:
        """Insert or update what is known of a release's scores, writing only the slices that changed.

        Args:
            state: As it is now.
            before: As it was saved last; None: never.
        """
        self._sql(
            "INSERT INTO score_states VALUES (?, ?) ON CONFLICT (release) DO UPDATE SET record = excluded.record",
            state.release, to_text({**state.to_record(), "slices": {}}),
        )  # fmt: skip
        earlier: Mapping[str, ScoreSlice] = before.slices if before is not None else {}
        for name, found in state.slices.items():
            if earlier.get(name) is not found:
                self._sql(
                    "INSERT OR REPLACE INTO score_slices VALUES (?, ?, ?)",
                    state.release, name, to_text(found.to_record()),
                )  # fmt: skip
        for name in earlier.keys() - state.slices.keys():
            self._sql("DELETE FROM score_slices WHERE release = ? AND name = ?", state.release, name)

    def save_proof(self, release: str, now: float, reason: str) -> bool:
        """Keep that a release has shown on labelled samples to be above its floor; return whether that is new."""
        if self.is_proven(release):
            return False
        self._table("proven_releases").insert({"release": release, "at": now, "reason": reason})
        return True

    def save_baselines(self, release: str, baselines: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
        """Replace what each device saw when *release* was trained."""
        table = self._table("baselines")
        table.delete_where("release = ?", [release])
        # No pk: sqlite-utils would ask for a row id, and this table has none.
        table.insert_all(
            {"release": release, "device": device, "record": _counts_text(counts)}
            for device, counts in sorted(baselines.items())
        )

    def save_baseline(self, release: str, device: str, counts: Mapping[str, Sequence[int]]) -> None:
        """Insert or replace what one device saw when *release* was trained or first ran."""
        self._sql("INSERT OR REPLACE INTO baselines VALUES (?, ?, ?)", release, device, _counts_text(counts))

    def save_alert(self, alert: Alert, now: float) -> None:
        """Insert or update an alert."""
        row = {"id": alert.id, "release": alert.release, "raised_at": alert.raised_at, "updated_at": now}
        # Not by upsert, which on a full disk writes nothing and says nothing: docs/adr/0019-what-sqlite-utils-does.md.
        self._table("alerts").insert({**row, "record": to_text(alert.to_record())}, replace=True)

    def save_run(self, run: TrainingRun) -> None:
        """Insert or replace a retraining."""
        self._table("runs").insert({**asdict(run), "state": run.state.value}, replace=True)

    def add_admin_key(self, sha256: str, name: str, now: float) -> None:
        """Accept one more admin key, known by its hash."""
        self._table("admin_keys").insert({"sha256": sha256, "name": name, "created_at": now})

    def add_audit(self, *, at: float, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Append to the audit log."""
        self._table("audit").insert({"at": at, "actor": actor, "action": action, "subject": subject, "detail": detail})


def _counts_text(counts: Mapping[str, Sequence[int]]) -> str:
    return to_text({name: list(values) for name, values in counts.items()})


def _sum_text(record: str | None, window: Window) -> str:
    before = Window.from_fields(Fields(json.loads(record), "window")) if record is not None else None
    return to_text((merge_windows(before, window) if before else window).to_record())
