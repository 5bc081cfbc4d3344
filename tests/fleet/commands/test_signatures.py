import json
import shutil
import time

import pytest

from hedgerow.cli import main
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.commands.signatures import EXPIRY_EXIT_CODE
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.keys import load_signers
from hedgerow.fleet.trust.signing import init_repository
from hedgerow.fleet.trust.tuf_metadata import Lifetimes

DAY_S = 86400.0


@pytest.fixture
def folder(tmp_path):
    made = FleetFolder(tmp_path / "f")
    make_fleet(made, "garden", now=time.time())
    return made


def ends_soon(folder, **lifetimes):
    shutil.rmtree(folder.tuf)
    init_repository(folder, load_signers(folder), time.time(), lifetimes=Lifetimes(**lifetimes))


def test_a_fresh_fleet_is_well(folder, capsys):
    assert main(["fleet", "status", str(folder.path)]) == 0
    out = capsys.readouterr()
    assert "releases: none" in out.out
    assert "root: until" in out.out
    assert out.err == ""


def test_what_ends_soon_is_told_by_words_json_and_exit_code_until_it_is_renewed(folder, capsys):
    ends_soon(folder, root_s=20 * DAY_S, targets_s=10 * DAY_S)
    assert main(["fleet", "status", str(folder.path)]) == EXPIRY_EXIT_CODE == 3
    assert capsys.readouterr().err.count("bring the offline keys and run `hedgerow fleet renew`") == 2
    assert main(["fleet", "status", str(folder.path), "--json"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert [alarm["role"] for alarm in record["alarms"]] == ["targets", "root"]
    assert main(["release", "list", "--fleet-folder", str(folder.path), "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["alarms"] == record["alarms"]
    assert out.err.startswith("warning: the signature of targets ends at")

    assert main(["fleet", "renew", str(folder.path)]) == 0
    assert "root and targets are signed until" in capsys.readouterr().out
    assert main(["fleet", "status", str(folder.path)]) == 0
    assert main(["fleet", "renew", str(folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["signatures"]["root"] > time.time() + 364 * DAY_S
    assert sorted(path.name for path in folder.tuf_metadata.glob("*.root.json")) == [
        "1.root.json",
        "2.root.json",
        "3.root.json",
    ]


def test_a_timestamp_that_nobody_keeps_fresh_is_an_alarm(folder, capsys):
    ends_soon(folder, timestamp_s=3600.0)
    assert main(["fleet", "status", str(folder.path)]) == 3
    assert "keep `hedgerow fleet serve` running" in capsys.readouterr().err


def test_renewing_without_the_offline_keys_says_which_key_is_away(folder, capsys):
    before = sorted(path.name for path in folder.tuf_metadata.iterdir())
    folder.offline_keys.rename(folder.path / "stick")
    assert main(["fleet", "renew", str(folder.path)]) == 1
    assert "the root key" in capsys.readouterr().err
    assert sorted(path.name for path in folder.tuf_metadata.iterdir()) == before


def test_no_fleet_is_one_sentence_and_another_exit_code(tmp_path, capsys):
    assert main(["fleet", "status", str(tmp_path)]) == 1
    assert "hedgerow fleet init" in capsys.readouterr().err
