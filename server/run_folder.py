"""A training run on disk. It can be killed at any instant and goes on from its last finished round.

::

    RUN/
      run.json         what the run is; written once, compared when it is resumed
      rounds.jsonl     one line a finished round: loss, score (of classes accuracy), seconds, examples, participants,
                       failures
      rounds/000007/   the last two saved rounds: a checkpoint with the strategy's state (strategy.safetensors) and,
                       where the grid carries something on, the grid's (grid.json)
      checkpoint/      the result, written after the last round
      failed.json      why the run failed, until it succeeds
      noise.key        of a private run: what its noise and its cohorts are drawn from. Whoever has it can take the
                       noise off again, so only its owner can read it, and it is in no checkpoint
      lock             held while a process trains here

A round's folder appears by one rename, so it is there whole or not at all. No generator's state is kept: every one is
made anew from (seed, round, client), or from the key. Simulations save not every round; what came after the last saved
one is run again.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from hedgerow.checkpoint import FAILURE_FILE, ROUNDS_FOLDER, Checkpoint, read_checkpoint, save_checkpoint
from hedgerow.decode import decode_json, encode_json
from hedgerow.durable import sync_folder, write_durably
from hedgerow.errors import CheckpointError, DecodeError
from hedgerow.file_lock import file_lock
from hedgerow.server.errors import RoundFailedError, RunFolderError, RunMismatchError
from hedgerow.server.run_records import RoundRecord, RunSettings, SavedRound
from hedgerow.weights import decode_arrays, encode_arrays

__all__ = ["RunFolder", "recorded_settings"]

_LOG = logging.getLogger(__name__)
_VERSION = 1
_LIMIT_BYTES = 2**20
_STATE_LIMIT_BYTES = 16 * 2**30
_GRID_LIMIT_BYTES = 2**30
_KEY_FILE, _KEY_BYTES = "noise.key", 32


class RunFolder:
    """One run's folder, held exclusively; made by :meth:`opened`."""

    def __init__(self, path: Path, settings: RunSettings) -> None:
        self.path, self.settings = path, settings

    @classmethod
    @contextmanager
    def opened(cls, path: Path, settings: RunSettings, *, fresh: bool = False) -> "Iterator[RunFolder]":
        """Hold *path* for the run with *settings*; the run's identity is the folder's if it already has one.

        Args:
            path: Made if absent.
            settings: What is asked for.
            fresh: Forget what is there.

        Raises:
            RunMismatchError: The folder holds a run with other settings.
            RunFolderError: It cannot be written, is damaged, or another process trains in it.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            held = file_lock(path / "lock").acquire()
        except Timeout as exc:
            raise RunFolderError(
                path, "a run folder that is free", "another process training in it", "wait or choose another"
            ) from exc
        except OSError as exc:
            raise RunFolderError(
                path, "a folder that can be written and locked", f"none ({exc.strerror})", "choose another"
            ) from exc
        with held:
            if fresh:
                _forget(path)
            opened = cls(path, _recorded(path, settings))
            try:
                yield opened
            except RoundFailedError as exc:
                opened.save_failure(exc)
                raise

    def noise_key(self) -> bytes:
        """Return the run's secret, made when it is asked for first.

        Raises:
            RunFolderError: It cannot be written, or is damaged.
        """
        path = self.path / _KEY_FILE
        try:
            if not path.exists():
                part = path.with_name(f".{path.name}.part")
                part.unlink(missing_ok=True)
                with open(part, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(path)
                sync_folder(self.path)
            key = path.read_bytes()
        except OSError as exc:
            raise self._unwritable(exc) from exc
        if len(key) != _KEY_BYTES:
            raise RunFolderError(
                self.path, f"a {_KEY_FILE} of {_KEY_BYTES} bytes", f"{len(key)} bytes", "start with --fresh"
            )
        return key

    def last_round(self) -> SavedRound | None:
        """Return the newest finished round that is whole, or None before the first."""
        for folder in sorted(_round_folders(self.path), reverse=True):
            try:
                checkpoint = read_checkpoint(folder)
                state = decode_arrays(
                    (folder / "strategy.safetensors").read_bytes(), folder.name, limit_bytes=_STATE_LIMIT_BYTES
                )
                grid = None
                if (folder / "grid.json").exists():
                    grid = decode_json(
                        (folder / "grid.json").read_bytes(), "grid.json", limit_bytes=_GRID_LIMIT_BYTES
                    ).plain()
            except (CheckpointError, DecodeError, OSError) as exc:
                _LOG.warning("the round in %s cannot be used, an older one is taken: %s", folder, exc)
                continue
            return SavedRound(checkpoint, state, grid)
        return None

    def history(self, up_to: int) -> list[RoundRecord]:
        """Return the records of rounds 1..*up_to*, and drop later ones from the file: those rounds are run again.

        Raises:
            RunFolderError: The file is damaged, or lacks one of them: what a run promises is counted over all.
        """
        path = self.path / "rounds.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        records: dict[int, RoundRecord] = {}
        damaged: DecodeError | None = None
        for number, line in enumerate(lines, start=1):
            try:
                record = RoundRecord.from_fields(decode_json(line, f"rounds.jsonl:{number}", limit_bytes=_LIMIT_BYTES))
            except DecodeError as exc:
                damaged = damaged or exc
                continue
            records[record.round] = record
        kept = [records[number] for number in sorted(records) if number <= up_to]
        if len(kept) < up_to:  # else a power cut took lines of rounds that are run again
            absent = next(number for number in range(1, up_to + 1) if number not in records)
            found = f"none of round {absent}" if damaged is None else str(damaged)
            advice = "restore the file or start with --fresh"
            raise RunFolderError(self.path, f"a whole line for each of {up_to} rounds in rounds.jsonl", found, advice)
        write_durably(path, b"".join(encode_json(record.to_record()) + b"\n" for record in kept))
        return kept

    def add_record(self, record: RoundRecord) -> None:
        """Write a finished round's line, which outlives a kill of the process, but not always a power cut.

        Raises:
            RunFolderError: The disk is full or cannot be written.
        """
        try:
            with (self.path / "rounds.jsonl").open("ab") as file:
                file.write(encode_json(record.to_record()) + b"\n")
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def save_round(self, record: RoundRecord, saved: SavedRound) -> None:
        """Make a finished round durable.

        Raises:
            RunFolderError: The disk is full or cannot be written; the rounds before are untouched.
        """
        self.add_record(record)
        self.save_state(saved)

    def save_state(self, saved: SavedRound) -> None:
        """Make a finished round durable whose line, like those before it, was added already.

        Raises:
            RunFolderError: The disk is full or cannot be written; the rounds before are untouched.
        """
        number = saved.checkpoint.round
        rounds = self.path / ROUNDS_FOLDER
        folder, part = rounds / f"{number:06d}", rounds / f".{number:06d}.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            with (self.path / "rounds.jsonl").open("ab") as file:
                os.fsync(file.fileno())
            write_durably(part / "strategy.safetensors", encode_arrays(saved.state))
            if saved.grid is not None:
                write_durably(part / "grid.json", encode_json(saved.grid))
            save_checkpoint(part, saved.checkpoint)
            shutil.rmtree(folder, ignore_errors=True)  # only now: a full disk leaves what was there
            part.rename(folder)
            sync_folder(rounds)
        except OSError as exc:
            shutil.rmtree(part, ignore_errors=True)
            raise self._unwritable(exc) from exc
        for old in sorted(_round_folders(self.path))[:-2]:
            shutil.rmtree(old, ignore_errors=True)

    def save_failure(self, error: RoundFailedError) -> None:
        """Write why the run failed: until it succeeds, nothing in this folder is taken for a result.

        Raises:
            RunFolderError: The disk is full or cannot be written.
        """
        record = {
            "version": _VERSION,
            "round": error.round_number,
            "reason": str(error).partition("; correct the cause")[0],
            "refused": error.kinds,
        }
        try:
            write_durably(self.path / FAILURE_FILE, encode_json(record))
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def save_result(self, checkpoint: Checkpoint) -> Path:
        """Write the run's checkpoint and return its folder.

        Raises:
            RunFolderError: The disk is full or cannot be written.
        """
        try:
            save_checkpoint(self.path / "checkpoint", checkpoint)
            (self.path / FAILURE_FILE).unlink(missing_ok=True)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        return self.path / "checkpoint"

    def _unwritable(self, exc: OSError) -> RunFolderError:
        advice = "make room and run it again, finished rounds are kept"
        return RunFolderError(self.path, "a folder that can be written", f"{exc.strerror}", advice)


def recorded_settings(path: Path) -> RunSettings | None:
    """Return the settings of the run that is in the folder *path*, or None if there is none.

    Raises:
        RunFolderError: They cannot be read.
    """
    file = path / "run.json"
    if not file.exists():
        return None
    try:
        fields = decode_json(file.read_bytes(), "run.json", limit_bytes=_LIMIT_BYTES)
        fields.integer("version", minimum=_VERSION, maximum=_VERSION)
        held = RunSettings.from_fields(fields)
        fields.finish()
    except DecodeError as exc:
        raise RunFolderError(path, "a readable run.json", str(exc), "choose another folder or --fresh") from exc
    return held


def _recorded(path: Path, settings: RunSettings) -> RunSettings:
    """Return the settings on disk after comparing them, or write these."""
    held = recorded_settings(path)
    if held is None:
        write_durably(path / "run.json", encode_json({"version": _VERSION, **settings.to_record()}))
        return settings
    asked, found = ({**each.to_record(), "more": None, **each.more} for each in (settings, held))
    differing = {
        name: (found.get(name), asked.get(name))
        for name in {**found, **asked}
        if name != "run" and found.get(name) != asked.get(name)
    }
    if len(differing) > 1:
        differing.pop("initial_sha256", None)  # it follows from the others
    if differing:
        raise RunMismatchError(path, differing)
    return held


def _round_folders(path: Path) -> Sequence[Path]:
    rounds = path / ROUNDS_FOLDER
    return [folder for folder in rounds.iterdir() if folder.name.isdecimal()] if rounds.is_dir() else []


def _forget(path: Path) -> None:
    for name in (ROUNDS_FOLDER, "checkpoint"):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in ("rounds.jsonl", "run.json", FAILURE_FILE, _KEY_FILE):
        (path / name).unlink(missing_ok=True)
