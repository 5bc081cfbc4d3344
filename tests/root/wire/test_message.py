"""Messages survive the wire; nothing else is taken for one."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError
from hedgerow.wire.device import Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.topics import Channel
from hedgerow.wire.training import TrainUpdate
from tests.root.documents import MESSAGES, damaged

KINDS = sorted({type(message) for message in MESSAGES}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.KIND)
def test_a_message_survives_the_wire(message):
    assert type(message).decode(message.encode()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.KIND)
@given(data=st.data())
def test_a_damaged_message_is_another_message_or_a_decode_error(message, data):
    try:
        decoded = type(message).decode(data.draw(damaged(message.encode())))
    except DecodeError:
        return
    assert type(message).decode(decoded.encode()) == decoded


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
@given(payload=st.binary(max_size=100))
def test_arbitrary_bytes_are_no_message(kind, payload):
    with pytest.raises(DecodeError):
        kind.decode(payload)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_one_kind_is_not_taken_for_another(kind):
    for message in MESSAGES:
        if not isinstance(message, kind):
            with pytest.raises(DecodeError):
                kind.decode(message.encode())


def test_every_channel_has_one_kind_of_message():
    assert sorted(kind.KIND for kind in KINDS) == sorted(channel.value for channel in Channel)


def test_another_protocol_version_is_refused():
    payload = json.dumps({**json.loads(Presence(online=True, boot="b").encode()), "v": 2}).encode()

    with pytest.raises(DecodeError, match=r"presence.v: expected a whole number from 1 to 1, found 2"):
        Presence.decode(payload)


def test_a_payload_above_256_kib_is_refused_unread():
    with pytest.raises(DecodeError, match="at most 262144 bytes"):
        Presence.decode(b" " * (256 * 1024 + 1))


def test_what_a_device_says_in_words_is_one_line_that_moves_no_cursor():
    said, read = "it failed\n2026-01-01 all is well\x1b[2J\u2028\u202e", "it failed 2026-01-01 all is well [2J  "
    execution = Execution(rollout="r", attempt=1, state=ExecutionState.FAILED, step="a\rb", reason=said)
    report = next(message for message in MESSAGES if isinstance(message, Reported))
    report = replace(report, agent_version="1\n2", runtimes=("a\tb",), problems=(said,))
    update = TrainUpdate(run="r", round=1, state="failed", reason=said)

    assert Execution.decode(execution.encode()) == replace(execution, step="a b", reason=read)
    assert Reported.decode(report.encode()) == replace(report, agent_version="1 2", runtimes=("a b",), problems=(read,))
    assert TrainUpdate.decode(update.encode()).reason == read


# A seed only feeds a generator, an index only names a window, and metrics are judged where they are used.
ANY_NUMBER = {"seed", "index", "loss"}


def numbers_in(node, path=()):
    """Yield the path of every number in a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)
        yield from numbers_in(value, (*path, key))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.KIND)
@pytest.mark.parametrize("number", [2**53 - 1, 2**53, -1, 1e300, -1e300])
def test_no_number_of_a_message_may_be_anything(message, number):
    for path in numbers_in(json.loads(message.encode())):
        document = json.loads(message.encode())
        node = document
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = number
        if path[-1] in ANY_NUMBER:
            continue
        with pytest.raises(DecodeError):
            type(message).decode(json.dumps(document).encode())
