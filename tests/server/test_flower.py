"""Tests of hedgerow.server.flower."""

import logging
from importlib.metadata import version

import numpy as np
import pytest

from hedgerow.server.errors import FlowerVersionError
from hedgerow.server.flower import (
    TESTED_VERSIONS,
    adopt_flower,
    array_record,
    check_flower_version,
    error_codes,
    numpy_arrays,
    received_message,
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
def test_telemetry_is_off():
    adopt_flower()
    from flwr.supercore import telemetry

    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"


@pytest.mark.heavy
def test_records_are_in_the_order_of_names():
    record = array_record({"b": np.zeros(1), "a": np.ones(2)})
    assert list(record) == ["a", "b"]
    assert numpy_arrays(record)["a"].tolist() == [1, 1]
