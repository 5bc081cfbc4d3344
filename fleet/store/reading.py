"""What can be read from the store: rows in, domain objects out. The writing half is writing.py.

sqlite-utils reads: lists of one table with ``rows_where``, counts with ``count_where``, the rest with ``query``. Its
``get`` asks for the table's columns each time, which takes many times as long as the row: see
docs/adr/0019-what-sqlite-utils-does.md.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.db import Table

from hedgerow.decode import Fields
from hedgerow.fleet.drift.alert import Alert
from hedgerow.fleet.drift.alerts import DriftState
from hedgerow.fleet.drift.scores import ScoreState
from hedgerow.fleet.errors import ServiceStoppedError
from hedgerow.fleet.records import AuditEntry, RunState, StoredWindow, TrainingRun
from hedgerow.fleet.registry import ASK_REPORT, Device
from hedgerow.fleet.rollout.executions import ExecutionRecord
from hedgerow.fleet.rollout.state import Rollout
from hedgerow.window import Window
from hedgerow.wire.device import Desired

__all__ = ["DRIFT_PARTS", "StoreReader", "connect", "to_text"]

DRIFT_PARTS = ("devices", "slices")
"""The mappings of a drift state that are kept in rows of their own."""

_BUSY_TIMEOUT_S = 10.0


def to_text(record: Mapping[str, Any]) -> str:
    """Return a record as canonical JSON text."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _fields(text: str, where: str) -> Fields:
    # Our own rows, so they are bounded by what was let in; the decoders still check every field.
    return Fields(json.loads(text), where)


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the store's file that any thread may use."""
    # Autocommit: transactions begin where we say so, and DDL takes part in them.
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


class StoreReader:
    """Reads through a connection of its own, one thread at a time; it sees the last committed state.

    Args:
        path: The store's file.

    Attributes:
        connection: To the file, for tools that look at what no method returns.

    Raises:
        sqlite3.Error: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.connection = connect(path)
        # Whatever plug-ins of sqlite-utils are installed are for its command line, not for our connection.
        self._database = Database(self.connection, execute_plugins=False)
        self._is_closed = False
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the connection; whoever reads from now on is told that the service was stopped."""
        with self._lock:
            self._is_closed = True
            self.connection.close()

    @contextmanager
    def _reading(self) -> Iterator[Database]:
        with self._lock:
            if self._is_closed:
                raise ServiceStoppedError
            yield self._database

    # All rows are fetched while the lock is held: what sqlite-utils returns would read on later.

    def _query(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        with self._reading() as database:
            return list(database.query(sql, parameters))

    def _row(self, sql: str, *parameters: object) -> dict[str, Any] | None:
        rows = self._query(sql, *parameters)
        return rows[0] if rows else None

    def _rows(
        self,
        table: str,
        where: str | None = None,
        *parameters: object,
        order_by: str | None = None,
        select: str = "*",
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        with self._reading() as database:
            rows = list(database.table(table).rows_where(where, parameters, order_by, select, limit))
            if not rows:
                self._table(table)
            return rows

    def _table(self, name: str) -> Table:
        # sqlite-utils reads nothing from a table that is absent, and makes one to insert a row.
        table = self._database.table(name)
        if not table.exists():
            raise sqlite3.OperationalError(f"no such table: {name}")
        return table

    def _count(self, table: str, where: str | None = None, *parameters: object) -> int:
        with self._reading() as database:
            return database.table(table).count_where(where, parameters)

    def device(self, name: str) -> Device | None:
        """Return a device, or None when it was never heard of."""
        row = self._row("SELECT * FROM devices WHERE name = ?", name)
        return _device(row) if row else None

    def devices(self) -> tuple[Device, ...]:
        """Return all devices, sorted by name."""
        return tuple(_device(row) for row in self._rows("devices", order_by="name"))

    def count_devices(self) -> int:
        """Return how many devices there are."""
        return self._count("devices")

    def last_seen(self, *, silent_since: float, limit: int, also: Sequence[str] = ()) -> dict[str, float]:
        """Return when devices were heard last.

        Args:
            silent_since: Those online that were not heard after this Unix time.
            limit: At most so many of them, the longest silent first.
            also: These too, as far as they are known.
        """
        rows = self._query(
            "SELECT * FROM (SELECT name, last_seen FROM devices WHERE online AND last_seen <= ?"
            " ORDER BY last_seen, name LIMIT ?) UNION SELECT name, last_seen FROM devices"
            " WHERE name IN (SELECT value FROM json_each(?))",
            silent_since, limit, json.dumps(list(also)),
        )  # fmt: skip
        return {row["name"]: row["last_seen"] for row in rows}

    def desired(self, device: str) -> Desired | None:
        """Return what is wanted of a device, or None when nothing ever was."""
        row = self._row("SELECT * FROM desired WHERE device = ?", device)
        return _desired(row) if row else None

    def pending(self, *, only_online: bool) -> dict[str, Desired]:
        """Return what must be said again, by device.

        Either the device has not acted on what is wanted of it, or its part in a rollout is not over, or it is online
        and nothing is known of its present start; of a device of which nothing is wanted, :data:`ASK_REPORT` is.
        """
        rows = self._query(
            "SELECT v.name AS device, d.version, d.release, d.rollout, d.attempt, d.compare"
            " FROM devices v LEFT JOIN desired d ON d.device = v.name"
            " LEFT JOIN executions e ON e.rollout = d.rollout AND e.device = v.name"
            " LEFT JOIN rollouts r ON r.id = d.rollout"
            " WHERE (v.online OR NOT ?) AND ((v.online AND v.sequence < 0) OR v.desired_version != d.version"
            " OR (e.state IN ('QUEUED', 'IN_PROGRESS') AND NOT r.is_over)) ORDER BY v.name",
            only_online,
        )
        return {row["device"]: _desired(row) if row["version"] is not None else ASK_REPORT for row in rows}

    def rollout(self, rollout: str) -> Rollout | None:
        """Return a rollout with all its executions, or None."""
        row = self._row("SELECT record FROM rollouts WHERE id = ?", rollout)
        return self._rollout(rollout, row["record"]) if row else None

    def rollouts(self, *, only_unfinished: bool = False) -> tuple[Rollout, ...]:
        """Return the rollouts, the first started first."""
        where = "NOT is_over" if only_unfinished else None
        rows = self._rows("rollouts", where, order_by="number", select="id, record")
        return tuple(self._rollout(row["id"], row["record"]) for row in rows)

    def execution(self, rollout: str, device: str) -> ExecutionRecord | None:
        """Return one device's part in a rollout, or None."""
        row = self._row("SELECT record FROM executions WHERE rollout = ? AND device = ?", rollout, device)
        return ExecutionRecord.from_fields(_fields(row["record"], f"executions[{rollout}]")) if row else None

    def last_rollout_state(self, release: str) -> tuple[str, str] | None:
        """Return id and state of the latest rollout of a release, or None when there was none."""
        row = self._row("SELECT id, state FROM rollouts WHERE release = ? ORDER BY number DESC LIMIT 1", release)
        return (row["id"], row["state"]) if row else None

    def last_finished_release(self) -> str | None:
        """Return the release of the latest rollout that finished, or None."""
        row = self._row("SELECT release FROM rollouts WHERE state = 'FINISHED' ORDER BY number DESC LIMIT 1")
        return row["release"] if row else None

    def _rollout(self, rollout: str, record: str) -> Rollout:
        rows = self._rows("executions", "rollout = ?", rollout, order_by="device", select="device, record")
        document = json.loads(record)
        document["executions"] = {row["device"]: json.loads(row["record"]) for row in rows}
        return Rollout.from_fields(Fields(document, f"rollouts[{rollout}]"))

    def windows(
        self, device: str | None = None, *, since: float = 0.0, release: str | None = None, limit: int = 100_000
    ) -> tuple[StoredWindow, ...]:
        """Return the recent windows, the oldest first.

        Args:
            device: Only windows of this device.
            since: Only windows that were received at this Unix time or later.
            release: Only windows of this release.
            limit: At most so many; the latest ones.
        """
        wanted = {"received_at >= ?": since, "device = ?": device, "release = ?": release}
        asked = {condition: value for condition, value in wanted.items() if value is not None}
        rows = self._rows("windows", " AND ".join(asked), *asked.values(), order_by="id DESC", limit=limit)
        return tuple(
            StoredWindow(device=row["device"], received_at=row["received_at"], window=_window(row["record"]))
            for row in reversed(rows)
        )

    def merged_windows(self, slice_name: str, release: str) -> tuple[tuple[int, Window], ...]:
        """Return (period, sum of the slice's windows in it) in order of time."""
        rows = self._rows("merged_windows", "slice = ? AND release = ?", slice_name, release, order_by="period")
        return tuple((row["period"], _window(row["record"])) for row in rows)

    def gate_window(self, rollout: str, stage: int) -> Window | None:
        """Return the sum of what a stage's exposed devices counted on the candidate, or None."""
        row = self._row("SELECT record FROM gate_windows WHERE rollout = ? AND stage = ?", rollout, stage)
        return _window(row["record"]) if row else None

    def drift_state(self, release: str) -> DriftState | None:
        """Return the state of drift detection for a release, or None before its first window."""
        row = self._row("SELECT record FROM drift_states WHERE release = ?", release)
        if row is None:
            return None
        document = json.loads(row["record"])
        for part in self._rows("drift_parts", "release = ?", release, order_by="name"):
            document[part["kind"]][part["name"]] = json.loads(part["record"])
        return DriftState.from_fields(Fields(document, f"drift_states[{release}]"))

    def watched_releases(self) -> tuple[str, ...]:
        """Return the releases of which windows were watched for drift or for scores, sorted."""
        rows = self._query("SELECT release FROM drift_states UNION SELECT release FROM score_states ORDER BY release")
        return tuple(row["release"] for row in rows)

    def score_state(self, release: str) -> ScoreState | None:
        """Return what is known of a release's scores, or None before its first labelled window."""
        row = self._row("SELECT record FROM score_states WHERE release = ?", release)
        if row is None:
            return None
        document = json.loads(row["record"])
        slices = self._rows("score_slices", "release = ?", release, order_by="name")
        document["slices"] = {part["name"]: json.loads(part["record"]) for part in slices}
        return ScoreState.from_fields(Fields(document, f"score_states[{release}]"))

    def is_proven(self, release: str) -> bool:
        """Return whether a release has shown on labelled samples to be above its floor."""
        return self._count("proven_releases", "release = ?", release) > 0

    def proven_releases(self) -> dict[str, float]:
        """Return the releases that have shown to be above their floor -> since when, Unix seconds."""
        return {row["release"]: row["at"] for row in self._rows("proven_releases")}

    def last_rollout_of(self, release: str) -> Rollout | None:
        """Return the latest rollout of a release without its executions, or None when there was none."""
        row = self._row("SELECT id, record FROM rollouts WHERE release = ? ORDER BY number DESC LIMIT 1", release)
        if row is None:
            return None
        return Rollout.from_fields(Fields({**json.loads(row["record"]), "executions": {}}, f"rollouts[{row['id']}]"))

    def baselines(self, release: str) -> dict[str, dict[str, tuple[int, ...]]]:
        """Return device -> input feature -> counts: what each device saw when *release* was trained."""
        rows = self._rows("baselines", "release = ?", release, order_by="device")
        return {r["device"]: {name: tuple(c) for name, c in json.loads(r["record"]).items()} for r in rows}

    def has_baselines(self, release: str) -> bool:
        """Return whether a release was trained on devices, so that each device has its own baseline."""
        return self._row("SELECT 1 FROM baselines WHERE release = ? LIMIT 1", release) is not None

    def alerts(self) -> tuple[Alert, ...]:
        """Return all alerts, the first raised first."""
        rows = self._rows("alerts", order_by="raised_at, id")
        return tuple(Alert.from_fields(_fields(row["record"], f"alerts[{row['id']}]")) for row in rows)

    def runs(self) -> tuple[TrainingRun, ...]:
        """Return all retrainings, the first started first."""
        rows = self._rows("runs", order_by="started_at, id")
        return tuple(TrainingRun(**{**row, "state": RunState(row["state"])}) for row in rows)

    def audit(self, *, limit: int = 1000) -> tuple[AuditEntry, ...]:
        """Return the latest lines of the audit log, the oldest first."""
        rows = self._rows("audit", order_by="id DESC", select="at, actor, action, subject, detail", limit=limit)
        return tuple(AuditEntry(**row) for row in reversed(rows))

    def admin_key_hashes(self) -> tuple[str, ...]:
        """Return the SHA-256 of every admin key."""
        return tuple(row["sha256"] for row in self._rows("admin_keys", order_by="sha256"))


def _device(row: Mapping[str, Any]) -> Device:
    values = dict(row)
    values["online"] = bool(row["online"])
    values["past_boots"] = tuple(json.loads(row["past_boots"]))
    values["runtimes"] = tuple(json.loads(row["runtimes"]))
    values["problems"] = tuple(json.loads(row["problems"]))
    return Device(**values)


def _desired(row: Mapping[str, Any]) -> Desired:
    return Desired(
        version=row["version"],
        release=row["release"],
        rollout=row["rollout"],
        attempt=row["attempt"],
        compare=bool(row["compare"]),
    )


def _window(text: str) -> Window:
    return Window.from_fields(_fields(text, "window"))
