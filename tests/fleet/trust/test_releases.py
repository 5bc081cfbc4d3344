import json
import shutil
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hedgerow.checkpoint import WEIGHTS_FILE, Checkpoint, save_checkpoint
from hedgerow.cli import main
from hedgerow.compile.build import Build, load_build, save_build
from hedgerow.compile.errors import BuildFolderError
from hedgerow.durable import sha256_of
from hedgerow.fleet.commands import release
from hedgerow.fleet.errors import (
    FailedChecksError,
    KeyFileError,
    ReleaseError,
    SigningError,
    UnknownReleaseError,
)
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.checkpoints import kept_checkpoint
from hedgerow.fleet.trust.keys import create_keys, load_signers
from hedgerow.fleet.trust.releases import create_release, list_releases, load_release, revocation, revoke_release
from hedgerow.fleet.trust.signing import init_repository, signed_releases
from tests.fleet.sample_release import REFERENCE, SCHEMA, golden_samples, make_artifact, put_blob

# What is signed is held against the real clock, as a device would.
NOW = float(int(time.time()))
NOW_TEXT = datetime.fromtimestamp(NOW, UTC).isoformat(timespec="seconds")


@pytest.fixture
def folder(tmp_path):
    folder = FleetFolder(tmp_path / "fleet")
    create_keys(folder)
    init_repository(folder, load_signers(folder), NOW)
    return folder


@pytest.fixture
def build_folder(tmp_path):
    return write_build(tmp_path / "build")


def write_build(path, *, check="passed", checkpoint_sha256="ab" * 32):
    build = Build(
        task="digits",
        model_schema=SCHEMA,
        artifacts=(
            make_artifact(path, "raspberry-pi-4", b"pi", golden=golden_samples()),
            make_artifact(path, "android-arm64", b"android", check=check),
        ),
        train_graphs=(),
        reference=put_blob(path, REFERENCE),
        checkpoint_sha256=checkpoint_sha256,
        run="run-1",
        data_fingerprint="data-1",
        metrics={"accuracy": 0.97},
        parent=None,
    )
    save_build(path, build)
    return path


def files(folder):
    """All files of the fleet but locks and the counter, with their content."""
    return {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in folder.path.rglob("*")
        if path.is_file() and path.name not in {".lock", "last-number"}
    }


def states(folder):
    return {entry.manifest.release: entry.state for entry in list_releases(folder)}


def test_a_build_becomes_a_release_with_a_manifest_and_its_blobs(folder, build_folder):
    manifest = create_release(folder, "digits", build_folder, now=NOW, parent="digits@9", note="first")

    path = folder.release("digits@1")
    assert manifest.release == "digits@1"
    assert manifest.created_at == NOW_TEXT
    assert (manifest.lineage.parent, manifest.lineage.note) == ("digits@9", "first")
    assert (manifest.lineage.run, manifest.lineage.checkpoint_sha256) == ("run-1", "ab" * 32)
    assert load_release(folder, "digits@1") == manifest
    assert sorted(p.name for p in (path / "blobs").iterdir()) == sorted(blob.sha256 for blob in manifest.blobs())
    assert signed_releases(folder) == ("digits@1",)


def test_the_same_build_twice_gives_two_numbers(folder, build_folder):
    made = [create_release(folder, "digits", build_folder, now=NOW).release for _ in range(2)]

    assert made == ["digits@1", "digits@2"]


def test_models_are_numbered_apart(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)

    assert create_release(folder, "faces", build_folder, now=NOW).release == "faces@1"


def test_a_revoked_number_is_not_used_again(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)
    revoke_release(folder, "digits@1", now=NOW, reason="broken weights")

    assert create_release(folder, "digits", build_folder, now=NOW).release == "digits@2"
    assert states(folder) == {"digits@1": "revoked", "digits@2": "listed"}
    assert revocation(folder, "digits@1") == (NOW_TEXT, "broken weights")
    assert revocation(folder, "digits@2") is None


def test_numbers_are_not_used_again_when_folders_are_gone(folder, build_folder):
    for _ in range(2):
        create_release(folder, "digits", build_folder, now=NOW)
    revoke_release(folder, "digits@2", now=NOW, reason="")
    shutil.rmtree(folder.release("digits@2"))

    assert create_release(folder, "digits", build_folder, now=NOW).release == "digits@3"


def test_releases_made_at_the_same_time_get_different_numbers(folder, build_folder):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(create_release(folder, "digits", build_folder, now=NOW).release))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(made) == ["digits@1", "digits@2", "digits@3", "digits@4"]
    assert signed_releases(folder) == tuple(sorted(made))


def test_a_release_does_not_change_when_its_build_does(folder, build_folder):
    manifest = create_release(folder, "digits", build_folder, now=NOW)
    blob = manifest.artifacts[0].blob.sha256
    (build_folder / "blobs" / blob).write_bytes(b"xx")

    assert (folder.release("digits@1") / "blobs" / blob).read_bytes() == b"pi"


def test_a_build_with_failed_checks_is_refused(folder, tmp_path):
    failing = write_build(tmp_path / "failing", check="failed")
    before = files(folder)

    with pytest.raises(FailedChecksError, match="android-arm64: accuracy") as failure:
        create_release(folder, "digits", failing, now=NOW)

    assert failure.value.failed == {"android-arm64": ("accuracy",)}
    assert files(folder) == before


def test_checks_that_were_not_run_do_not_stop_a_release(folder, tmp_path):
    build = write_build(tmp_path / "unrun", check="not run")

    assert create_release(folder, "digits", build, now=NOW).artifacts[1].checks["accuracy"] == "not run"


def test_failed_checks_can_be_allowed_and_are_recorded(folder, tmp_path):
    failing = write_build(tmp_path / "failing", check="failed")

    manifest = create_release(folder, "digits", failing, now=NOW, allow_failed_checks=True)

    assert load_release(folder, manifest.release).artifacts[1].checks["accuracy"] == "failed"


@pytest.mark.parametrize(
    "wrong", [{"name": "Digits"}, {"name": "../up"}, {"parent": "digits"}, {"note": "two\nlines"}, {"note": "x" * 1025}]
)
def test_wrong_names_parents_and_notes_are_refused(folder, build_folder, wrong):
    arguments = {"name": "digits", "build_folder": build_folder, "now": NOW} | wrong
    before = files(folder)

    with pytest.raises(ReleaseError):
        create_release(folder, **arguments)

    assert files(folder) == before


def test_a_damaged_build_is_refused_and_leaves_nothing(folder, build_folder):
    next((build_folder / "blobs").iterdir()).write_bytes(b"?")
    before = files(folder)

    with pytest.raises(BuildFolderError):
        create_release(folder, "digits", build_folder, now=NOW)

    assert files(folder) == before


def test_no_fleet_is_one_clear_sentence(tmp_path, build_folder):
    folder = FleetFolder(tmp_path / "nowhere")

    with pytest.raises(KeyFileError, match="hedgerow fleet init"):
        create_release(folder, "digits", build_folder, now=NOW)
    with pytest.raises(SigningError, match="hedgerow fleet init"):
        list_releases(folder)
    assert not folder.path.exists()


def test_a_failure_while_signing_leaves_nothing(tmp_path, folder, build_folder):
    stranger = FleetFolder(tmp_path / "stranger")
    create_keys(stranger)
    before = files(folder)

    with pytest.raises(SigningError):
        create_release(folder, "digits", build_folder, now=NOW, signers=load_signers(stranger))

    assert files(folder) == before
    assert not list((folder.releases / "digits").glob("[0-9]*"))
    # The number was given away before; it stays unused.
    assert create_release(folder, "digits", build_folder, now=NOW).release == "digits@2"


def test_what_a_power_cut_left_is_cleared_by_the_next_release(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)
    shutil.copytree(folder.release("digits@1"), folder.release("digits@2"))
    (folder.tuf_targets / "digits" / "2").mkdir()
    (folder.releases / "digits" / "last-number").write_text("2")
    (folder.releases / ".under-way").write_text("digits@2")
    (folder.releases / ".abc.part").mkdir()

    assert create_release(folder, "digits", build_folder, now=NOW).release == "digits@3"

    assert states(folder) == {"digits@1": "listed", "digits@3": "listed"}
    assert not folder.release("digits@2").exists()
    assert not (folder.tuf_targets / "digits" / "2").exists()
    assert not (folder.releases / ".abc.part").exists()


def test_a_release_that_was_signed_before_the_power_cut_stays(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)
    (folder.releases / ".under-way").write_text("digits@1")

    create_release(folder, "digits", build_folder, now=NOW)

    assert states(folder) == {"digits@1": "listed", "digits@2": "listed"}


def test_a_revocation_that_was_cut_off_can_be_finished(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)
    copy = folder.path / "copy"
    shutil.copytree(folder.tuf_targets, copy)
    revoke_release(folder, "digits@1", now=NOW, reason="bad")
    shutil.rmtree(folder.tuf_targets)
    copy.rename(folder.tuf_targets)

    revoke_release(folder, "digits@1", now=NOW + 60, reason="again")

    assert not (folder.tuf_targets / "digits" / "1").exists()
    assert revocation(folder, "digits@1") == (NOW_TEXT, "bad")
    with pytest.raises(UnknownReleaseError):
        revoke_release(folder, "digits@1", now=NOW, reason="third")


@pytest.mark.parametrize("release", ["digits@2", "digits", "../../etc@1", "digits@0", ""])
def test_unknown_releases_are_one_clear_sentence(folder, build_folder, release):
    create_release(folder, "digits", build_folder, now=NOW)

    with pytest.raises(UnknownReleaseError, match="the signed ones are: digits@1"):
        load_release(folder, release)
    with pytest.raises(UnknownReleaseError):
        revoke_release(folder, release, now=NOW, reason="")


def test_a_manifest_that_was_changed_is_refused(folder, build_folder):
    manifest = create_release(folder, "digits", build_folder, now=NOW)
    path = folder.release("digits@1") / "manifest.json"
    path.unlink()
    path.write_bytes(replace(manifest, task="other").encode())

    with pytest.raises(ReleaseError, match="the signed manifest"):
        load_release(folder, "digits@1")


def run(*arguments):
    return CliRunner().invoke(getattr(release, arguments[0]), [str(a) for a in arguments[1:]], catch_exceptions=False)


def test_the_commands_make_list_and_show_a_release(folder, build_folder):
    fleet = ("--fleet-folder", folder.path)

    assert "no releases yet" in run("list_releases", *fleet).output
    assert run("create", "digits", "--build", build_folder, *fleet, "--note", "[bold]one[/bold]").output == (
        "digits@1 is signed for raspberry-pi-4, android-arm64\n"
    )
    assert "digits@1" in run("list_releases", *fleet).output
    shown = run("show", "digits@1", *fleet).output
    assert "[bold]one[/bold]" in shown
    assert "probabilities: classes; names no, yes; softmax True" in shown
    assert "android-arm64" in shown


def test_the_commands_write_one_json_object_on_the_last_line(folder, build_folder):
    fleet = ("--fleet-folder", folder.path, "--json")

    made = json.loads(run("create", "digits", "--build", build_folder, *fleet).output.splitlines()[-1])
    listed = json.loads(run("list_releases", *fleet).output.splitlines()[-1])
    shown = json.loads(run("show", "digits@1", *fleet).output.splitlines()[-1])

    assert made["release"] == "digits@1"
    assert listed["releases"] == [made]
    assert (shown["name"], shown["number"], shown["state"]) == ("digits", 1, "listed")


def test_a_release_keeps_its_checkpoint_and_another_one_is_refused_before_anything_is_signed(folder, tmp_path):
    weights = {"w": np.zeros(3, np.float32)}
    facts = {"task": "digits", "run": "r", "round": 1, "strategy": "fedavg", "grid": "in-process", "seed": 0}
    save_checkpoint(tmp_path / "run", Checkpoint(weights=weights, **facts))
    save_checkpoint(tmp_path / "other", Checkpoint(weights={"w": weights["w"] + 1}, **facts))
    build = write_build(tmp_path / "build", checkpoint_sha256=sha256_of(tmp_path / "run" / WEIGHTS_FILE))
    create = ["release", "create", "digits", "--build", str(build), "--fleet-folder", str(folder.path), "--checkpoint"]

    assert main([*create, str(tmp_path / "other")]) == 1
    assert list_releases(folder) == ()
    assert main([*create, str(tmp_path / "run")]) == 0
    assert kept_checkpoint(folder, load_release(folder, "digits@1")).weights["w"].tolist() == [0, 0, 0]


def test_the_commands_are_reached_by_their_names_and_errors_are_one_sentence(folder, tmp_path, capsys):
    wrong = ["release", "create", "digits", "--build", str(tmp_path / "none"), "--fleet-folder", str(folder.path)]

    assert main(wrong) == 1
    error = capsys.readouterr().err
    assert error.startswith("hedgerow: expected a build")
    assert len(error.strip().splitlines()) == 1
    assert main(["release", "list", "--fleet-folder", str(folder.path)]) == 0
    assert main(["release", "show", "digits@1", "--fleet-folder", str(folder.path)]) == 1


@pytest.mark.parametrize("name", release.__all__)
def test_every_option_has_a_help_text(name):
    command = getattr(release, name)

    assert command.help
    assert all(parameter.help for parameter in command.params if parameter.param_type_name == "option")


def test_files_of_a_release_are_read_only(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)

    for path in Path(folder.release("digits@1")).rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o222 == 0


# One refusal each


def refused(folder, build_folder, match, **more):
    """Assert that a release is refused and that nothing of the fleet's files has changed."""
    before = files(folder)
    with pytest.raises(ReleaseError, match=match):
        create_release(folder, "digits", build_folder, now=NOW, **more)
    assert files(folder) == before
    assert states(folder) == {}


def test_a_build_without_artifacts_is_refused(folder, build_folder):
    save_build(build_folder, replace(load_build(build_folder), artifacts=()))
    refused(folder, build_folder, "expected at least one artifact, found none; compile for a target")


@pytest.mark.parametrize(
    ("written", "match"),
    [("seven", "the last number that was used, found 'seven'; write that number into it"), ("9" * 30, "digits@1")],
)
def test_a_last_number_that_is_none_or_that_no_manifest_can_carry_is_refused(folder, build_folder, written, match):
    (folder.releases / "digits").mkdir(parents=True)
    (folder.releases / "digits" / "last-number").write_text(written)
    refused(folder, build_folder, match)


def test_an_artifact_that_is_changed_between_its_check_and_its_copy_leaves_nothing(folder, build_folder, monkeypatch):
    blob = load_build(build_folder).artifacts[0].blob

    def change(_build, _folder):
        (build_folder / "blobs" / blob.sha256).write_bytes(b"pI")

    monkeypatch.setattr("hedgerow.fleet.trust.releases.check_fit", change)
    refused(folder, build_folder, f"SHA-256 {blob.sha256[:12]}")
    assert not (folder.releases / "digits" / "1").exists()


def test_an_unlisted_manifest_that_is_none_is_named(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)
    place = folder.release("digits@2")
    place.mkdir()
    (place / "manifest.json").write_bytes(b"{}")
    for read in (lambda: load_release(folder, "digits@2"), lambda: list_releases(folder)):
        with pytest.raises(ReleaseError, match=r"digits@2: expected .* restore the fleet folder from its copy"):
            read()


def test_a_damaged_record_of_a_revocation_is_named(folder, build_folder):
    create_release(folder, "digits", build_folder, now=NOW)
    revoke_release(folder, "digits@1", now=NOW, reason="wrong labels")
    assert revocation(folder, "digits@1") == (NOW_TEXT, "wrong labels")
    (folder.release("digits@1") / "revoked.json").write_bytes(b'{"revoked_at": 1}')
    with pytest.raises(ReleaseError, match=r"digits@1: expected .* restore the fleet folder from its copy"):
        revocation(folder, "digits@1")
