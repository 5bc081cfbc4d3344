"""Tests of hedgerow.server.flower."""

import copy
import logging
import os
import pickle
import subprocess
import sys
from importlib.metadata import entry_points, version

import numpy as np
import pytest

from hedgerow.server.errors import FlowerVersionError
from hedgerow.server.flower import (
    TESTED_VERSIONS,
    adopt_flower,
    answering_clients,
    array_record,
    check_flower_version,
    error_codes,
    numpy_arrays,
    received_message,
    set_answering_clients,
    set_message_id,
)


@pytest.mark.parametrize("found", ["1.41.0", "1.42.3", "1.41.0rc1"])
def test_tested_versions_are_accepted(found):
    check_flower_version(found)


@pytest.mark.parametrize("found", ["1.40.9", "1.43.0", "2.41.0", "1.4.1"])
def test_other_versions_are_refused_with_the_command_that_helps(found):
    with pytest.raises(FlowerVersionError) as caught:
        check_flower_version(found)
    assert caught.value.found == found
    assert "pip install 'flwr==1.42.*'" in str(caught.value)


@pytest.mark.heavy
def test_the_installed_flower_is_a_tested_one():
    assert ".".join(version("flwr").split(".")[:2]) in TESTED_VERSIONS


@pytest.mark.heavy
def test_messages_can_be_made_and_answered_without_superlink():
    adopt_flower()
    from flwr.app import Error, Message, RecordDict

    message = Message(RecordDict({"arrays": array_record({"w": np.ones(2, np.float32)})}), 7, "train")
    set_message_id(message, "41")
    received = received_message(message, RecordDict())
    reply = Message(Error(error_codes().NODE_UNAVAILABLE, "gone"), reply_to=received)

    assert reply.metadata.reply_to_message_id == "41"
    assert reply.metadata.src_node_id == 7
    assert reply.error.code == 5


@pytest.mark.heavy
def test_an_identity_that_flower_set_is_kept_and_logs_go_to_the_program():
    adopt_flower()
    from flwr.supercore.task_identity import TaskIdentity

    before = TaskIdentity.run_id
    adopt_flower()
    assert TaskIdentity.run_id == before
    assert logging.getLogger("flwr").propagate
    assert not logging.getLogger("flwr").handlers


@pytest.mark.heavy
@pytest.mark.parametrize(("wanted", "found"), [(None, "0"), ("1", "1"), ("0", "0")])
def test_telemetry_is_off_unless_somebody_asked_for_it(wanted, found):
    script = """
import os
from hedgerow.server.grids import in_process  # imports Flower
from hedgerow.server.flower import adopt_flower
from flwr.supercore import telemetry
before = dict(os.environ)
adopt_flower()
assert dict(os.environ) == before
print(telemetry.FLWR_TELEMETRY_ENABLED)
"""
    environment = {name: value for name, value in os.environ.items() if name != "FLWR_TELEMETRY_ENABLED"}
    if wanted is not None:
        environment["FLWR_TELEMETRY_ENABLED"] = wanted
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, found), done.stderr


@pytest.mark.heavy
def test_records_are_in_the_order_of_names():
    record = array_record({"b": np.zeros(1), "a": np.ones(2)})
    assert list(record) == ["a", "b"]
    assert numpy_arrays(record)["a"].tolist() == [1, 1]


VALUES = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(3, np.int64),
    np.zeros((0, 4), np.float16),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(10)[::2],
]


@pytest.mark.heavy
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_held_arrays_are_serialized_as_flower_would(value):
    from flwr.app import Array, ArrayRecord

    held, plain = array_record({"w": value})["w"], Array(value)
    assert isinstance(held, Array)
    assert (held.dtype, held.shape, held.stype, held.data) == (plain.dtype, plain.shape, plain.stype, plain.data)
    assert (held.deflate(), held.object_id) == (plain.deflate(), plain.object_id)
    assert held == plain
    assert plain == held
    assert held != Array(np.asarray(value + 1)) or not value.size
    assert held != 3
    record = ArrayRecord({"w": held})  # Flower makes plain arrays of what it is given
    assert record.object_id == ArrayRecord({"w": plain}).object_id
    assert array_record({"w": value}).object_id == record.object_id
    np.testing.assert_array_equal(Array.inflate(held.deflate(), held.children).numpy(), value)


@pytest.mark.heavy
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda array: pickle.loads(pickle.dumps(array))])
def test_held_arrays_can_be_copied_and_sent_between_processes(clone):
    value = np.arange(3.0)
    made = clone(array_record({"w": value}, shared=True)["w"])
    assert made.numpy().tolist() == [0, 1, 2]
    assert not np.shares_memory(made.numpy(), value)
    made.data = array_record({"w": value + 1})["w"].data
    assert clone(made).numpy().tolist() == [1, 2, 3]


@pytest.mark.heavy
def test_readers_get_copies_unless_the_arrays_are_theirs():
    value = np.zeros(2)
    lent, given = array_record({"w": value}), array_record({"w": value}, shared=True)
    lent["w"].numpy()[:] = 1
    assert value.tolist() == [0, 0]
    assert numpy_arrays(lent)["w"] is value
    given["w"].numpy()[:] = 1
    assert value.tolist() == [1, 1]
    (emptied,) = lent.to_numpy_ndarrays(keep_input=False)
    assert emptied.tolist() == [1, 1]
    assert not lent


@pytest.mark.heavy
def test_new_bytes_of_a_held_array_are_what_it_holds_from_then_on():
    array = array_record({"w": np.zeros(2)})["w"]
    before = array.object_id
    array.data = array_record({"w": np.ones(2)})["w"].data
    assert array.numpy().tolist() == [1, 1]
    assert numpy_arrays({"w": array})["w"].tolist() == [1, 1]
    assert array.object_id != before


@pytest.mark.heavy
def test_a_reply_says_for_whom_it_stands():
    adopt_flower()
    from flwr.app import Message, RecordDict

    reply = Message(RecordDict(), 7, "train")
    assert answering_clients(reply) is None
    set_answering_clients(reply, (1, 2))
    assert answering_clients(reply) == (1, 2)


@pytest.mark.heavy
@pytest.mark.parametrize("command", ["flwr", "flower-superlink", "flower-supernode"])
def test_flowers_own_commands_start_in_this_environment(command):
    (entry,) = entry_points(group="console_scripts", name=command)
    start = (
        f"import sys; sys.argv[:] = [{command!r}, '--help']; from {entry.module} import {entry.attr}; {entry.attr}()"
    )

    done = subprocess.run([sys.executable, "-P", "-c", start], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
