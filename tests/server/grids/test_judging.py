"""Tests of hedgerow.server.grids.judging: Flower's messages judged, whoever brought them."""

import io
import pickle

import numpy as np
import pytest

from hedgerow.server.errors import NoUpdateError
from hedgerow.server.flower import array_record, error_codes
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.grids.judging import JudgedGrid, error_reply, judged_replies, kinds_of, reply_kind, sent_arrays
from hedgerow.server.outcome import check_end
from hedgerow.server.replies import Kind, ReplyLimits

pytestmark = pytest.mark.heavy


def asked(nodes=(1, 2, 3)):
    """Return train messages with the ids that a grid would have given them."""
    from flwr.app import ConfigRecord, Message, RecordDict

    from hedgerow.server.flower import adopt_flower, set_message_id

    adopt_flower()
    content = RecordDict(
        {"arrays": array_record({"w": np.zeros(2, np.float32)}), "config": ConfigRecord({"server-round": 4})}
    )
    messages = [Message(content, node, "train") for node in nodes]
    for message in messages:
        set_message_id(message, f"m{message.metadata.dst_node_id}")
    return messages


def answered(message, change=1.0, **metrics):
    from flwr.app import Message, MetricRecord, RecordDict

    arrays = array_record({"w": np.full(2, change, np.float32)})
    return Message(
        RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1, **metrics})}), reply_to=message
    )


def judged(messages, replies):
    return judged_replies(messages, replies, ReplyLimits(), names=lambda node: f"node {node}")


def test_an_honest_reply_passes_as_it_is():
    messages = asked()
    replies = [answered(message) for message in messages]
    assert all(one is other for one, other in zip(judged(messages, replies), replies, strict=True))


def test_a_reply_in_the_name_of_another_node_is_refused_for_the_node_that_was_asked(caplog):
    messages = asked()
    replies = [answered(message) for message in messages]
    replies[1].metadata.__dict__["_src_node_id"] = 3
    first, second, third = judged(messages, replies)
    assert first.has_content()
    assert third.has_content()
    assert (second.metadata.src_node_id, reply_kind(second)) == (2, Kind.FORM)
    assert second.error.reason == "expected the reply of node 2, found one of node 3"
    assert "round 4: the update of node 2 is not used: expected the reply of node 2" in caplog.text


def test_of_two_replies_to_one_message_the_first_counts_and_strangers_are_dropped():
    messages, others = asked((1, 2)), asked((7,))
    replies = [answered(messages[0], 1.0), answered(messages[0], 5.0), answered(others[0]), answered(messages[1])]
    assert judged(messages, replies) == [replies[0], replies[3]]


def test_bytes_that_are_no_array_are_refused():
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

    messages = asked()
    damaged = ArrayRecord({"w": Array("float32", (2,), "numpy.ndarray", b"no array")})
    bad = Message(RecordDict({"arrays": damaged, "metrics": MetricRecord({"num-examples": 1})}), reply_to=messages[0])
    first, second, third = judged(messages, [bad, answered(messages[1]), answered(messages[2])])
    assert reply_kind(first) == Kind.FORM
    assert second.has_content()
    assert third.has_content()


@pytest.mark.parametrize("payload", ["archive", "damaged archive", "header", "deep header", "pickle", "nothing"])
def test_bytes_that_numpy_takes_for_something_else_are_refused_and_the_others_pass(payload):
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

    archive = io.BytesIO()
    np.savez(archive, w=np.zeros(2, np.float32))
    data = {
        "archive": archive.getvalue(),
        "damaged archive": b"PK\x03\x04 and no more",
        "header": b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': ((((".ljust(63) + b"\n",
        "deep header": b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 9_999 + b"\n",
        "pickle": pickle.dumps([1]),
        "nothing": b"",
    }[payload]
    one, two = asked((1, 2))
    record = ArrayRecord({"w": Array("float32", (2,), "numpy.ndarray", data)})
    bad = Message(RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1})}), reply_to=one)
    first, second = judged([one, two], [bad, answered(two)])
    assert reply_kind(first) == Kind.FORM
    assert first.error.reason.startswith("expected arrays, found ")
    assert second.has_content()


def test_a_node_that_answers_something_else_is_counted_and_named():
    def app(message, _context):
        return asked((message.metadata.dst_node_id,))[0]

    replies = InProcessGrid(app, 2).send_and_receive(asked((1, 2)))
    assert [(reply.metadata.src_node_id, reply.error.reason) for reply in replies] == [
        (1, "expected a reply to its message, found none"),
        (2, "expected a reply to its message, found none"),
    ]
    assert kinds_of(replies) == {"late": 2}


def test_what_clients_write_into_reasons_is_cut(caplog):
    from flwr.app import MetricRecord

    one, two = asked((1, 2))
    long = answered(one)
    for number in range(100):
        long.content["arrays"]["n" * 50 + str(number)] = array_record({"x": np.zeros(1, np.float32)})["x"]
    long.content["metrics"] = MetricRecord({"num-examples": 1})
    refused, _fine = judged([one, two], [long, answered(two)])
    assert len(refused.error.reason) == 500
    assert len(caplog.messages[-1]) < 600


def test_kinds_are_counted_also_of_errors_that_flower_made():
    from flwr.app import Error, Message

    one, two, three = asked()
    replies = [
        Message(Error(error_codes().CLIENT_APP_CRASHED, "gone"), reply_to=one),
        error_reply(two, error_codes().MOD_FAILED_PRECONDITION, "b", "too long", Kind.NORM),
        Message(Error(error_codes().REPLY_MESSAGE_UNAVAILABLE, "late"), reply_to=three),
    ]
    assert kinds_of([*replies, answered(one)]) == {"crashed": 1, "norm": 1, "late": 1}


def test_the_weights_that_were_sent_are_the_first_record_of_a_train_message():
    from flwr.app import Message, RecordDict

    (message,) = asked((1,))
    two = RecordDict({**message.content, "correction": array_record({"w": np.ones(2)})})
    assert sent_arrays(Message(two, 1, "train"))["w"].tolist() == [0, 0]
    assert sent_arrays(Message(two, 1, "evaluate")) is None
    assert sent_arrays(Message(RecordDict(), 1, "train")) is None


@pytest.mark.parametrize("bad", ["nan", "exit", "count", "silent"])
def test_another_grid_behind_the_border_keeps_account_of_every_round(bad):
    from flwr.serverapp.strategy import FedAvg

    def app(message, context):
        if context.node_id == 1 and bad == "exit":
            raise SystemExit(1)
        examples = 0 if context.node_id == 1 and bad == "count" else 1
        change = np.nan if context.node_id == 1 and bad == "nan" else 1.0
        reply = answered(message, change)
        reply.content["metrics"]["num-examples"] = examples
        return reply

    class Unjudged(InProcessGrid):
        def judge(self, _messages, replies):
            return [reply for reply in replies if bad != "silent" or reply.metadata.src_node_id != 1]

    grid = JudgedGrid(Unjudged(app, 3))
    result = FedAvg(fraction_evaluate=0.0).start(grid, array_record({"w": np.zeros(2, np.float32)}), num_rounds=2)
    kind = {"nan": "not finite", "exit": "raised", "count": "count", "silent": "late"}[bad]
    assert result.arrays["w"].numpy().tolist() == [1.0, 1.0]
    assert [(record.used, dict(record.refused)) for record in grid.history(2)] == [(2, {kind: 1})] * 2
    check_end(grid.history(2))
    with pytest.raises(NoUpdateError):
        check_end(grid.history(3))
