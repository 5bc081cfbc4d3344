"""Tests of hedgerow.server.run_folder."""

import errno
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from hedgerow.errors import CheckpointError
from hedgerow.server import run_folder
from hedgerow.server.errors import NoUpdateError, RunFolderError, RunMismatchError
from hedgerow.server.privacy import NoisyMean
from hedgerow.server.run_folder import RunFolder
from hedgerow.server.run_records import RoundRecord, RunSettings, SavedRound

SETTINGS = RunSettings(
    run="points-1", task="points", strategy="fedavg", seed=0, grid="in-process", clients=2, fraction=1.0, epochs=1,
    learning_rate=0.1, batch_size=8, data_fingerprint="d", initial_sha256="i",
)  # fmt: skip


def finished(number: int) -> tuple[RoundRecord, SavedRound]:
    record = RoundRecord(
        round=number, loss=1.0 / number, score=0.5, train_loss=None, seconds=0.1, examples=3, participants=("0",),
        failures={"1": "declined"},
    )  # fmt: skip
    checkpoint = Checkpoint(
        weights={"w": np.full(2, number, np.float32)}, task="points", run="points-1", round=number, strategy="fedavg",
        grid="in-process", seed=0,
    )  # fmt: skip
    return record, SavedRound(checkpoint, {"m_t/w": np.full(2, -number, np.float32)})


def test_a_new_folder_has_no_round(tmp_path):
    with RunFolder.opened(tmp_path / "run", SETTINGS) as folder:
        assert folder.last_round() is None
        assert folder.history(0) == []
        assert folder.settings == SETTINGS


def test_rounds_come_back_and_only_two_are_kept(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        for number in (1, 2, 3):
            folder.save_round(*finished(number))
    with RunFolder.opened(tmp_path, replace(SETTINGS, run="another identity")) as folder:
        saved = folder.last_round()
        history = folder.history(3)

        assert folder.settings.run == "points-1"
        assert saved.checkpoint.round == 3
        assert saved.state["m_t/w"].tolist() == [-3, -3]
        assert history == [finished(number)[0] for number in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["000002", "000003"]


def test_a_damaged_round_falls_back_to_the_one_before_and_later_records_are_dropped(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        for number in (1, 2):
            folder.save_round(*finished(number))
        weights = tmp_path / "rounds" / "000002" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        assert folder.last_round().checkpoint.round == 1
        assert [record.round for record in folder.history(1)] == [1]
        folder.save_round(*finished(2))
        assert folder.last_round().checkpoint.round == 2


@pytest.mark.parametrize("left", [b"", b'{"round":2,"lo\n'])
def test_a_history_that_lacks_a_finished_round_is_refused(tmp_path, left):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        for number in (1, 2, 3):
            folder.save_round(*finished(number))
        lines = (tmp_path / "rounds.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "rounds.jsonl").write_bytes(lines[0] + left + lines[2])
        with pytest.raises(RunFolderError, match="expected a whole line for each of 3 rounds") as caught:
            folder.history(3)
        assert "restore the file or start with --fresh" in str(caught.value)
        assert len((tmp_path / "rounds.jsonl").read_bytes().splitlines()) == 2 + bool(left)
        assert len(folder.history(1)) == 1


def test_a_full_disk_leaves_the_round_that_was_to_be_saved_again(tmp_path, monkeypatch):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        for number in (1, 2):
            folder.save_round(*finished(number))

        def full(path, _content):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(run_folder, "write_durably", full)
        with pytest.raises(RunFolderError, match="No space left on device"):
            folder.save_state(finished(2)[1])
        assert folder.last_round().checkpoint.round == 2
        assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["000001", "000002"]


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.save_round(*finished(1))
        with (tmp_path / "rounds.jsonl").open("ab") as file:
            file.write(b'{"round":2,"lo')
        assert [record.round for record in folder.history(1)] == [1]


def test_a_round_that_was_being_written_when_the_power_went_is_ignored(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.save_round(*finished(1))
        (tmp_path / "rounds" / ".000002.part").mkdir()
        assert folder.last_round().checkpoint.round == 1
        folder.save_round(*finished(2))
        assert folder.last_round().checkpoint.round == 2


def test_other_settings_are_refused_by_name(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS):
        pass
    with (
        pytest.raises(RunMismatchError, match="seed 0 instead of 4") as caught,
        RunFolder.opened(tmp_path, replace(SETTINGS, seed=4, initial_sha256="other")),
    ):
        pass
    assert caught.value.differing == {"seed": (0, 4)}


def test_fresh_forgets_the_run(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.save_round(*finished(1))
        folder.save_result(finished(1)[1].checkpoint)
    (tmp_path / "notes.txt").write_text("mine")
    with RunFolder.opened(tmp_path, replace(SETTINGS, seed=4), fresh=True) as folder:
        assert folder.last_round() is None
        assert not (tmp_path / "checkpoint").exists()
        assert (tmp_path / "notes.txt").exists()


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    with (
        RunFolder.opened(tmp_path, SETTINGS),
        pytest.raises(RunFolderError, match="another process"),
        RunFolder.opened(tmp_path, SETTINGS),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_an_error_of_the_world(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can be written"), RunFolder.opened(tmp_path / "file", SETTINGS):
        pass


def test_a_damaged_run_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"run\.json"), RunFolder.opened(tmp_path, SETTINGS):
        pass


def test_the_result_is_an_ordinary_checkpoint(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        path = folder.save_result(finished(5)[1].checkpoint)
    assert load_checkpoint(path).round == 5


def test_lines_after_the_last_saved_round_may_be_damaged_and_are_dropped(tmp_path):
    """A simulation saves not every round; a power cut may take lines that were not made durable."""
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.save_round(*finished(1))
        folder.add_record(finished(2)[0])
        with (tmp_path / "rounds.jsonl").open("ab") as file:
            file.write(b"\0\0\0\n\0\0\n")

        assert folder.last_round().checkpoint.round == 1
        assert [record.round for record in folder.history(1)] == [1]
        assert (tmp_path / "rounds.jsonl").read_bytes().count(b"\n") == 1


def test_damaged_lines_of_saved_rounds_are_an_error(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.save_round(*finished(1))
        folder.save_round(*finished(2))
        lines = (tmp_path / "rounds.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "rounds.jsonl").write_bytes(b"{" + b"".join(lines))

        with pytest.raises(RunFolderError, match=r"rounds\.jsonl.*start with --fresh"):
            folder.history(2)


def test_what_a_grid_carries_on_and_virtual_time_come_back(tmp_path):
    record, saved = finished(1)
    record, saved = replace(record, virtual_s=12.5), replace(saved, grid={"now_s": 12.5})
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.save_round(record, saved)

        assert folder.last_round().grid == {"now_s": 12.5}
        assert folder.history(1) == [record]


def test_further_settings_are_compared_by_name(tmp_path):
    settings = replace(SETTINGS, more={"cohort": 5, "partition": "iid"})
    with RunFolder.opened(tmp_path, settings) as folder:
        assert folder.settings == settings
    with RunFolder.opened(tmp_path, replace(settings, run="again")) as folder:
        assert folder.settings == settings
    for more, differing in (
        ({"cohort": 6, "partition": "iid"}, {"cohort": (5, 6)}),
        ({"cohort": 5}, {"partition": ("iid", None)}),
    ):
        with pytest.raises(RunMismatchError) as caught, RunFolder.opened(tmp_path, replace(settings, more=more)):
            pass
        assert caught.value.differing == differing


def test_a_rounds_refusals_and_what_it_gave_away_come_back(tmp_path):
    given = NoisyMean(nodes=100, asked=10, answered=9, clip=0.5, noise_std=0.125)
    record = replace(finished(1)[0], refused={"late": 1}, privacy=given)
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.add_record(record)
        assert folder.history(1) == [record]


def test_a_line_of_an_older_version_has_neither(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.add_record(finished(1)[0])
        assert b"refused" not in (tmp_path / "rounds.jsonl").read_bytes()
        (found,) = folder.history(1)
    assert (found.refused, found.privacy, found.used) == ({}, None, 1)


def test_the_key_of_a_private_run_is_made_once_read_by_its_owner_alone_and_forgotten_with_the_run(tmp_path):
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        key = folder.noise_key()
        assert len(key) == 32
        assert folder.noise_key() == key
    assert (tmp_path / "noise.key").stat().st_mode & 0o777 == 0o600
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        assert folder.noise_key() == key
    with RunFolder.opened(tmp_path, SETTINGS, fresh=True) as folder:
        assert not (tmp_path / "noise.key").exists()
        assert folder.noise_key() != key


def test_a_damaged_key_is_refused_rather_than_replaced(tmp_path):
    (tmp_path / "noise.key").write_bytes(b"short")
    with (
        RunFolder.opened(tmp_path, SETTINGS) as folder,
        pytest.raises(RunFolderError, match=r"noise.key of 32 bytes.*found 5 bytes"),
    ):
        folder.noise_key()


def test_a_failure_is_written_until_there_is_a_result(tmp_path):
    checkpoint = finished(1)[1].checkpoint

    def fail():
        with RunFolder.opened(tmp_path, SETTINGS) as folder:
            folder.save_result(checkpoint)
            raise NoUpdateError(3, 1, {"0": "gone"}, {"late": 2})

    with pytest.raises(NoUpdateError):
        fail()
    with pytest.raises(CheckpointError, match="2 late; 0: gone"):
        load_checkpoint(tmp_path / "checkpoint")
    assert read_checkpoint(tmp_path / "checkpoint").round == 1
    with RunFolder.opened(tmp_path, SETTINGS) as folder:
        folder.save_result(checkpoint)
    assert load_checkpoint(tmp_path / "checkpoint").round == 1
