import math
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hedgerow.fleet.drift.alert import Alert, AlertKind
from hedgerow.fleet.drift.alerts import DeviceDrift, DriftState, SliceDrift
from hedgerow.fleet.drift.scores import ScoreSlice, ScoreState, ScoreVerdict, forget_device
from hedgerow.fleet.errors import ServiceStoppedError, StoreError
from hedgerow.fleet.records import RunState, TrainingRun
from hedgerow.fleet.registry import Device
from hedgerow.fleet.rollout.events import Started
from hedgerow.fleet.rollout.rules import advance, create_rollout
from hedgerow.fleet.rollout.stages import DeviceFacts
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.store.migrations import MIGRATIONS
from hedgerow.fleet.store.writing import Store
from hedgerow.wire.device import Desired
from hedgerow.wire.telemetry import Telemetry
from tests.fleet.virtual_fleet import CANARY, make_window
from tests.scores import scored

DEVICE = Device(
    name="a",
    target="pi",
    release="toy@1",
    online=True,
    boot="b2",
    sequence=3,
    past_boots=("b0", "b1"),
    desired_version=7,
    agent_version="1",
    runtimes=("onnxruntime",),
    problems=("windows: OSError: full",),
    last_seen=5.0,
)
DRIFT = DriftState(
    "toy@1",
    devices={name: DeviceDrift("pi", 1, make_window("toy@1")) for name in "abc"},
    slices={"fleet": SliceDrift(looks=2, streaks={"x": 1})},
    observed=3,
)


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "fleet.db")
    yield opened
    opened.close()


@pytest.fixture
def reader(store):
    opened = store.open_reader()
    yield opened
    opened.close()


def telemetry(sequence, **window):
    return Telemetry(boot="b", sequence=sequence, window=make_window("toy@1", **window))


def test_what_was_saved_is_there_after_reopening(tmp_path):
    store = Store(tmp_path / "fleet.db")
    rollout = create_rollout("rollout-1", "toy@1", CANARY, [DeviceFacts("a", "pi", None)], 1.0)
    desired = Desired(version=7, release="toy@1", rollout="rollout-1", attempt=2, compare=True)
    alert = Alert("drift-1", "toy@1", 2.0, ("a",), ("x",), (), 2)
    with store.transaction():
        store.save_device(DEVICE)
        store.save_rollout(rollout, None, number=store.next_rollout_number())
        store.save_desired("a", desired)
        store.add_window("a", telemetry(1), 9.0, keep=10)
        store.save_drift_state(DRIFT, None)
        store.save_baselines("toy@1", {"a": {"x": (1, 2)}})
        store.save_alert(alert, 3.0)
        store.save_run(RUN)
        store.add_audit(at=1.0, actor="me", action="rollout.start", subject="rollout-1")
        store.add_admin_key("f" * 64, "first", 1.0)
    store.close()
    again = Store(tmp_path / "fleet.db")
    assert again.device("a") == DEVICE
    assert again.devices() == (DEVICE,)
    assert again.rollout("rollout-1") == rollout
    assert again.desired("a") == desired
    assert again.windows("a")[0].window == telemetry(1).window
    assert again.drift_state("toy@1") == DRIFT
    assert again.baselines("toy@1") == {"a": {"x": (1, 2)}}
    assert again.alerts() == (alert,)
    assert again.runs() == (RUN,)
    assert again.audit()[0].subject == "rollout-1"
    assert again.admin_key_hashes() == ("f" * 64,)
    assert again.next_rollout_number() == 2
    again.close()


def test_the_file_is_private_and_in_wal_mode_with_foreign_keys(store):
    assert store.path.stat().st_mode & 0o777 == 0o600
    found = [store.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "foreign_keys")]
    assert found == ["wal", 1]
    with pytest.raises(sqlite3.IntegrityError):
        store.save_desired("nobody", Desired(version=1, release=None))


def test_migrations_are_numbered_without_gaps_and_recorded(store):
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    recorded = store.connection.execute("SELECT number FROM migrations ORDER BY number").fetchall()
    assert [row["number"] for row in recorded] == [migration.number for migration in MIGRATIONS]


def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path):
    """Its tables and the row that records it come and go together."""
    connection = sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)
    connection.execute("CREATE TABLE windows (id INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match="windows"):
        Store(tmp_path / "fleet.db")
    connection = sqlite3.connect(tmp_path / "fleet.db")
    assert connection.execute("SELECT MAX(number) FROM migrations").fetchone() == (1,)
    assert connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'gate_windows'").fetchone() == (0,)
    connection.close()


def test_a_store_of_a_newer_version_and_a_file_that_is_none_are_refused(tmp_path):
    store = Store(tmp_path / "fleet.db")
    store.connection.execute("INSERT INTO migrations VALUES (999, 'from the future')")
    store.close()
    with pytest.raises(StoreError, match="version 999"):
        Store(tmp_path / "fleet.db")
    (tmp_path / "text.db").write_text("no database" * 1000)
    with pytest.raises(StoreError, match="SQLite"):
        Store(tmp_path / "text.db")


def test_only_one_process_may_write(store):
    with pytest.raises(StoreError, match="another fleet service"):
        Store(store.path)


def test_a_transaction_that_fails_leaves_no_trace(store):
    def fail():
        with store.transaction():
            store.save_device(DEVICE)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert store.devices() == ()
    with store.transaction(), store.transaction():
        store.save_device(DEVICE)
    assert store.devices() == (DEVICE,)


RUN = TrainingRun(id="r", started_at=1.0, ended_at=None, state=RunState.RUNNING, trigger="manual", parent="toy@1")
ROLLOUT = create_rollout("rollout-1", "toy@1", CANARY, [DeviceFacts("a", "pi", None)], 1.0)


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.save_rollout(ROLLOUT, None, number=1),
        lambda store: store.save_proof("toy@1", 1.0, "above"),
        lambda store: store.save_baselines("toy@1", {"b": {"x": (1, 2)}}),
        lambda store: store.save_alert(Alert("drift-1", "toy@1", 2.0, ("a",), ("x",), (), 2), 3.0),
        lambda store: store.save_run(RUN),
        lambda store: store.add_admin_key("f" * 64, "first", 1.0),
        lambda store: store.add_audit(at=1.0, actor="me", action="x", subject="y"),
        lambda store: store.forget_device("a"),
    ],
)
def test_what_sqlite_utils_writes_is_part_of_the_open_transaction(store, reader, write):
    """Version 3 committed it."""

    def write_and_fail():
        with store.transaction():
            write(store)
            assert store.connection.in_transaction
            raise OSError("no")

    store.save_device(DEVICE)
    store.save_baseline("toy@1", "a", {"x": (1, 2)})
    before = list(store.connection.iterdump())
    with pytest.raises(OSError, match="no"):
        write_and_fail()
    assert list(store.connection.iterdump()) == before
    with store.transaction():
        write(store)
    assert list(reader.connection.iterdump()) != before


def test_a_table_that_is_gone_is_an_error_to_read_and_to_write_and_is_not_made_anew(store, reader):
    store.save_alert(Alert("drift-1", "toy@1", 2.0, ("a",), ("x",), (), 2), 3.0)
    connection = sqlite3.connect(store.path)
    for table in ("alerts", "devices", "admin_keys"):
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_moved")
    connection.close()
    tables = store.connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    for used in (
        reader.alerts,
        reader.devices,
        reader.count_devices,
        lambda: reader.device("a"),
        lambda: store.save_alert(Alert("drift-2", "toy@1", 2.0, ("a",), ("x",), (), 2), 3.0),
        lambda: store.add_admin_key("f" * 64, "first", 1.0),
        lambda: store.forget_device("a"),
    ):
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            used()
    assert store.connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == tables


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.save_baselines("toy@1", {f"d{number}": {"x": [1] * 100} for number in range(500)}),
        lambda store: store.add_admin_key("f" * 50_000, "first", 1.0),
        lambda store: store.save_run(replace(RUN, reason="x" * 50_000)),
        lambda store: store.save_alert(Alert("drift-1", "toy@1", 2.0, ("a" * 50_000,), ("x",), (), 2), 3.0),
        lambda store: store.add_audit(at=1.0, actor="me", action="x", subject="y" * 50_000),
        lambda store: store.save_proof("toy@1", 1.0, "x" * 50_000),
        lambda store: store.save_rollout(replace(ROLLOUT, reason="x" * 50_000), None, number=1),
    ],
)
def test_a_disk_that_is_full_while_sqlite_utils_writes_is_told_as_such_and_leaves_no_trace(store, write):
    def write_it_with_others():
        with store.transaction():
            store.save_device(Device(name="half"))
            write(store)

    store.save_device(DEVICE)
    before = list(store.connection.iterdump())
    (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError) as told:
        write_it_with_others()
    assert told.value.sqlite_errorname == "SQLITE_FULL"
    assert not store.connection.in_transaction
    assert list(store.connection.iterdump()) == before
    store.connection.execute("PRAGMA max_page_count = 1000000")
    write_it_with_others()
    assert [device.name for device in store.devices()] == ["a", "half"]


def test_a_run_and_an_alert_are_replaced_by_what_they_became(store):
    store.save_run(RUN)
    ended = replace(RUN, ended_at=2.0, state=RunState.FAILED, reason="no client")
    store.save_run(ended)
    alert = Alert("drift-1", "toy@1", 2.0, ("a",), ("x",), (), 2)
    for number, devices in enumerate((("a",), ("a", "b"))):
        store.save_alert(replace(alert, devices=devices), 3.0 + number)
    assert store.runs() == (ended,)
    assert store.alerts() == (replace(alert, devices=("a", "b")),)
    (updated_at,) = store.connection.execute("SELECT updated_at FROM alerts").fetchone()
    assert updated_at == 4.0


def test_baselines_of_many_devices_are_replaced_as_a_whole(store):
    many = {f"d{number:03}": {"x": (number, 1)} for number in range(250)}
    store.save_baselines("toy@1", many)
    store.save_baselines("toy@2", {"other": {"x": (1,)}})
    assert store.baselines("toy@1") == many
    store.save_baselines("toy@1", {"d001": {"x": (7,)}})
    assert store.baselines("toy@1") == {"d001": {"x": (7,)}}
    store.save_baselines("toy@1", {})
    assert (store.baselines("toy@1"), store.has_baselines("toy@2")) == ({}, True)


def test_a_commit_that_is_refused_leaves_no_trace_and_no_open_transaction(store, reader):
    def write_what_its_commit_refuses():
        with store.transaction():
            store.save_device(Device(name="half"))
            store.connection.execute("PRAGMA defer_foreign_keys = ON")
            store.connection.execute("INSERT INTO score_slices VALUES ('toy@1', 'fleet', '{}')")

    with pytest.raises(sqlite3.IntegrityError):
        write_what_its_commit_refuses()
    with store.transaction():
        store.save_device(Device(name="whole"))
    assert [device.name for device in reader.devices()] == ["whole"]


def test_readers_see_what_is_committed_and_nothing_else(store, reader):
    with store.transaction():
        store.save_device(DEVICE)
        assert reader.devices() == ()
        assert store.devices() == (DEVICE,)
    assert reader.devices() == (DEVICE,)


def test_each_reader_is_closed_by_itself_and_then_says_that_the_service_was_stopped(store, reader):
    other = store.open_reader()
    other.close()
    store.save_device(DEVICE)
    assert reader.devices() == (DEVICE,)
    with pytest.raises(ServiceStoppedError):
        other.devices()


def test_a_backup_is_a_whole_store(store, tmp_path):
    store.save_device(DEVICE)
    store.backup(tmp_path / "copy.db")
    copy = Store(tmp_path / "copy.db")
    assert copy.devices() == (DEVICE,)
    copy.close()
    with pytest.raises(StoreError):
        store.backup(tmp_path / "copy.db")


def test_windows_are_kept_once_and_only_the_latest_of_each_device(store):
    for sequence in range(10):
        assert store.add_window("a", telemetry(sequence), float(sequence), keep=4)
    store.add_window("b", telemetry(0), 99.0, keep=4)
    assert [stored.received_at for stored in store.windows("a")] == [6.0, 7.0, 8.0, 9.0]
    for sequence in range(10):
        assert not store.add_window("a", telemetry(sequence), 50.0, keep=4), "a repeat, pruned or not"
    assert len(store.windows()) == 5
    assert len(store.windows(since=8.0)) == 3
    assert len(store.windows(release="toy@2")) == 0
    assert len(store.windows("a", release="toy@1")) == 4
    assert len(store.windows("b", since=99.5)) == 0
    assert [stored.received_at for stored in store.windows(limit=2)] == [9.0, 99.0]


def test_a_window_with_a_made_up_number_does_not_turn_those_that_follow_into_repeats(store):
    assert store.add_window("a", telemetry(0), 1.0, keep=3)
    assert store.add_window("a", telemetry(2**40), 2.0, keep=3)
    for sequence in range(1, 20):
        assert store.add_window("a", telemetry(sequence), 3.0, keep=3), sequence
        assert not store.add_window("a", telemetry(sequence), 3.0, keep=3)
    assert not store.add_window("a", telemetry(3), 4.0, keep=3), "a repeat of one that was pruned"


@pytest.mark.parametrize("module", ["migrations", "writing", "reading"])
def test_no_statement_numbers_its_placeholders(module):
    """Python 3.12 warns of numbers that are given a sequence, and 3.14 refuses them."""
    source = (Path(__file__).parents[3] / "fleet" / "store" / f"{module}.py").read_text()

    assert re.findall(r"\?\d", source) == []


def test_merged_windows_add_up_by_slice_release_and_period(store):
    for period, correct in ((1, 10), (1, 20), (2, 5)):
        store.add_to_merged("fleet", period, make_window("toy@1", correct=correct))
    store.add_to_merged("target:pi", 1, make_window("toy@1"))
    merged = store.merged_windows("fleet", "toy@1")
    assert [(period, window.scores, window.samples) for period, window in merged] == [
        (1, scored(30, 200), 200),
        (2, scored(5, 100), 100),
    ]


def test_only_executions_that_changed_are_written(store):
    devices = [DeviceFacts(f"d{index}", "pi", None) for index in range(50)]
    before = create_rollout("rollout-1", "toy@1", CANARY, devices, 1.0)
    store.save_rollout(before, None, number=1)
    after, _commands = advance(before, Started(2.0))
    written = []
    store.connection.set_trace_callback(written.append)
    store.save_rollout(after, before)
    store.connection.set_trace_callback(None)
    assert sum("executions" in sql for sql in written) == 13
    assert store.rollout("rollout-1") == after
    assert store.rollouts(only_unfinished=True) == (after,)
    store.save_rollout(replace(after, state=RolloutState.FINISHED), after)
    assert store.rollouts(only_unfinished=True) == ()
    assert store.last_finished_release() == "toy@1"


def test_the_audit_log_cannot_be_rewritten(store):
    store.add_audit(at=1.0, actor="me", action="x", subject="y")
    rewrite = "REPLACE INTO audit VALUES (1, 1.0, 'you', 'x', 'y', '')"
    for sql in ("DELETE FROM audit", "UPDATE audit SET actor = 'you'", rewrite):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.connection.execute(sql)
    assert [entry.actor for entry in store.audit()] == ["me"]


def test_only_the_parts_of_a_drift_state_that_changed_are_written(store):
    store.save_drift_state(DRIFT, None)
    after = replace(DRIFT, observed=4, devices={**DRIFT.devices, "b": DeviceDrift("pi", 4, make_window("toy@1"))})
    written = []
    store.connection.set_trace_callback(written.append)
    store.save_drift_state(after, DRIFT)
    store.connection.set_trace_callback(None)
    assert len(written) == 2
    assert store.drift_state("toy@1") == after
    less = replace(after, devices={"a": DRIFT.devices["a"]})
    store.save_drift_state(less, after)
    assert store.drift_state("toy@1") == less


def test_the_longest_silent_devices_come_first_and_unknown_names_are_left_out(store):
    with store.transaction():
        for number, name in enumerate("abcde"):
            store.save_device(Device(name=name, online=name != "b", last_seen=float(number)))
    assert store.last_seen(silent_since=3.0, limit=2) == {"a": 0.0, "c": 2.0}
    assert store.last_seen(silent_since=3.0, limit=10) == {"a": 0.0, "c": 2.0, "d": 3.0}
    assert store.last_seen(silent_since=-math.inf, limit=10, also=("b", "e", "stranger")) == {"b": 1.0, "e": 4.0}


SCORES = ScoreState(
    "toy@1",
    slices={
        "fleet": ScoreSlice(1, 3, scored(60, 70), ScoreVerdict.ABOVE, 12.5),
        "device:a": ScoreSlice(1),
        "device:b": ScoreSlice(2),
    },
    raised=1,
    open=Alert("score-toy-1-1", "toy@1", 2.0, ("b",), (), (), 0, AlertKind.SCORE, "below", {"device:b": 1.5}),
)


def test_contacts_of_a_clock_that_was_set_back_since_count_as_just_now(store):
    for name, online, last_seen in (("a", True, 5.0), ("b", True, 90.0), ("c", False, 90.0)):
        store.save_device(Device(name=name, online=online, last_seen=last_seen))
    store.date_contacts_back(10.0)
    assert [(device.name, device.last_seen) for device in store.devices()] == [("a", 5.0), ("b", 10.0), ("c", 90.0)]


def test_only_the_slices_of_a_score_state_that_changed_are_written_and_all_are_there_after_reopening(tmp_path):
    store = Store(tmp_path / "fleet.db")
    store.save_score_state(SCORES, None)
    after = replace(SCORES, slices={**SCORES.slices, "device:a": ScoreSlice(1, scores=scored(4, 5))}, open=None)
    written = []
    store.connection.set_trace_callback(written.append)
    store.save_score_state(after, SCORES)
    store.connection.set_trace_callback(None)
    assert sum("score_slices" in statement for statement in written) == 1
    store.close()
    again = Store(tmp_path / "fleet.db")
    assert again.score_state("toy@1") == after
    assert again.score_state("toy@2") is None
    again.close()


def test_a_slice_that_was_forgotten_is_deleted(store):
    store.save_score_state(SCORES, None)
    less = forget_device(SCORES, "a")
    store.save_score_state(less, SCORES)
    assert set(less.slices) == {"fleet", "device:b"}
    assert store.score_state("toy@1") == less


def test_a_forgotten_device_takes_all_that_is_its_own_along_and_nothing_of_others(store):
    for name in "ab":
        store.save_device(replace(DEVICE, name=name))
        store.save_desired(name, Desired(version=7, release="toy@1"))
        for sequence in range(3):
            store.add_window(name, telemetry(sequence), 5.0, keep=1)
        store.save_baseline("toy@1", name, {"x": (1, 2)})
    store.add_audit(at=1.0, actor="me", action="device.assign", subject="a")
    store.forget_device("a")
    assert [device.name for device in store.devices()] == ["b"]
    assert (store.desired("a"), store.desired("b")) == (None, Desired(version=7, release="toy@1"))
    assert [stored.device for stored in store.windows()] == ["b"]
    assert set(store.baselines("toy@1")) == {"b"}
    assert [entry.subject for entry in store.audit()] == ["a"]
    assert store.add_window("a", telemetry(0), 6.0, keep=1)
    assert not store.add_window("b", telemetry(0), 6.0, keep=1)


def test_a_release_proves_itself_once(store):
    assert not store.is_proven("toy@1")
    assert store.save_proof("toy@1", 5.0, "above the floor")
    assert not store.save_proof("toy@1", 6.0, "again")
    assert (store.is_proven("toy@1"), store.is_proven("toy@2")) == (True, False)


def test_the_latest_rollout_of_a_release_is_found_without_its_executions(store):
    for number in (1, 2):
        rollout = create_rollout(f"rollout-{number}", "toy@1", CANARY, [DeviceFacts("a", "pi", None)], 1.0)
        store.save_rollout(rollout, None, number=number)
    found = store.last_rollout_of("toy@1")
    assert (found.id, found.plan, dict(found.executions)) == ("rollout-2", CANARY, {})
    assert store.last_rollout_state("toy@1") == ("rollout-2", "READY")
    assert (store.last_rollout_of("toy@2"), store.last_rollout_state("toy@2")) == (None, None)


def test_a_stored_list_is_cut_to_the_latest_and_told_in_order_of_time(store):
    for number in range(5):
        store.add_audit(at=float(number), actor="me", action="x", subject="y")
    assert [entry.at for entry in store.audit(limit=2)] == [3.0, 4.0]


@pytest.mark.heavy
def test_sqlite_utils_is_imported_by_the_commands_that_open_a_store_and_by_no_other():
    script = """
import importlib
import sys

import hedgerow.cli
from tests.test_layout import commands

entries = {plugin.reference.partition(":")[0] for _name, plugin in commands() if "hedgerow.fleet" in plugin.reference}
opening = "hedgerow.fleet.commands.fleet"
for name in sorted(entries - {opening}):
    importlib.import_module(name)
before = "sqlite_utils" in sys.modules
importlib.import_module(opening)
print(len(entries) > 3, before, "sqlite_utils" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert (done.returncode, done.stdout) == (0, "True False True\n"), done.stderr
