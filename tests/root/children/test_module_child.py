"""Tests of hedgerow.children.module_child and module_entry: interpreters that are spoken to."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.children.child import numeric_threads
from hedgerow.children.output import OutputFile
from hedgerow.errors import DecodeError
from tests.processes import new_since, wait_until_gone, what_is_held
from tests.root.children.talking import talker


def facts(bounds=None, **more):
    with talker("facts", **more) as child:
        child.channel.send(json.dumps({"bounds": bounds or {}}).encode())
        found = json.loads(child.channel.receive() or b"{}")
        assert child.wait(30)
        assert child.end().code == 0
    return child.process_id, found


def test_messages_go_to_and_fro_until_the_channel_is_closed():
    with talker("echo") as child:
        for message in (b"", b"one", os.urandom(2**20)):
            child.channel.send(message)
            assert child.channel.receive() == message
        child.channel.close()
        assert child.wait(30)
        assert child.end().code == 0


def test_a_child_is_what_was_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    process_id, found = facts(environment=numeric_threads(2), scratch=True)
    assert (found["session"], found["parent"], found["stdin"], found["threads"]) == (process_id, os.getpid(), "", "2")
    assert Path(found["temporary"]).parent == tmp_path
    assert len(found["descriptors"]) == 5  # the three standard ones, the channel, and what lists them
    assert list(tmp_path.iterdir()) == []


def test_a_child_bounds_itself():
    _, free = facts()
    bounds = {"address_space_bytes": 2**33, "data_bytes": 2**32, "niceness": 5}
    _, bound = facts(bounds)
    assert (bound["address_space_bytes"], bound["data_bytes"], bound["core_bytes"]) == (2**33, 2**32, 0)
    assert bound["niceness"] == min(19, os.nice(0) + 5)
    assert bound["oom"] == "1000"
    assert free["address_space_bytes"] == resource.getrlimit(resource.RLIMIT_AS)[0]
    assert free["data_bytes"] == resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_what_a_module_raises_is_its_last_words():
    with talker("fall", output=OutputFile()) as child:
        assert child.channel.receive() is None
        assert child.wait(30)
        ended = child.end()
    assert (ended.code, ended.last_line) == (1, "RuntimeError: out of luck")


def test_a_message_that_is_too_long_is_refused_in_both_directions():
    with talker("echo", limit_bytes=100) as child:
        with pytest.raises(ValueError, match="takes 100"):
            child.channel.send(b"x" * 101)
        child.channel.send(b"x" * 100)
        assert child.channel.receive() == b"x" * 100
    with talker("garbage") as child:
        child.channel.send(b"")
        with pytest.raises(DecodeError, match="at most 1048576 bytes, found 8872761342884799858 bytes"):
            child.channel.receive()


def test_a_child_that_does_not_read_holds_nobody_up():
    with talker("read_nothing", limit_bytes=2**26) as child, pytest.raises(TimeoutError):
        child.channel.send(bytes(2**25), 0.05)


def test_a_child_that_does_not_answer_holds_nobody_up():
    with talker("say_nothing") as child, pytest.raises(TimeoutError):
        child.channel.receive(0.05)


def test_a_message_that_is_cut_off_is_the_end():
    with talker("half_a_message") as child:
        child.channel.send(b"")
        assert child.channel.receive() is None


def test_what_is_sent_to_a_child_that_is_gone_fails_nobody():
    with talker("fall", output=OutputFile()) as child:
        child.wait(30)
        child.channel.send(b"x" * 2**20)
        assert child.channel.receive() is None


def test_what_a_child_started_goes_with_it():
    with talker("leave_a_child_behind") as child:
        grandchild = int(child.channel.receive() or b"0")
        assert child.wait(30)
    wait_until_gone(grandchild)


def test_a_module_that_does_not_exist_is_an_end_with_a_reason():
    from hedgerow.children.module_child import ModuleChild

    with ModuleChild("hedgerow.nowhere", limit_bytes=1, name="nothing", output=OutputFile()) as child:
        assert child.channel.receive() is None
        assert child.wait(30)
        assert child.end().last_line == "ModuleNotFoundError: No module named 'hedgerow.nowhere'"


def test_nothing_is_left_after_many_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with talker("echo"):
        pass
    before = what_is_held()
    for number, what in enumerate(["echo", "say_nothing", "fall", "read_nothing"] * 2):
        with talker(what, scratch=bool(number % 2), output=OutputFile()) as child:
            child.channel.send(b"hello")
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        talker("echo", output=OutputFile(), scratch=True)
    assert new_since(before) == []
    assert list(tmp_path.iterdir()) == []


def test_the_entry_imports_next_to_nothing():
    code = (
        "import sys, hedgerow.children.module_entry, hedgerow.children.module_child, hedgerow.children.conversation\n"
        "print(sorted({'numpy', 'click', 'paho', 'psutil', 'multiprocessing', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
