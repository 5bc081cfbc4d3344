"""Messages survive the wire; nothing else is taken for one; topics name one device and one channel."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError
from hedgerow.wire import (
    VERSION_LIMIT,
    Channel,
    Desired,
    Execution,
    ExecutionState,
    Presence,
    Reported,
    Telemetry,
    TrainTask,
    TrainUpdate,
    device_topic,
    fleet_filter,
    parse_topic,
)
from tests.root.documents import BLOB, MESSAGES, damaged

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


def test_a_report_names_problems_only_when_there_are_any_and_keeps_them_short():
    healthy, ill = (message for message in MESSAGES if isinstance(message, Reported))
    assert "problems" not in json.loads(healthy.encode())
    assert json.loads(ill.encode())["problems"] == ["model: RuntimeError: out of arena", "windows: OSError: no space"]
    many = Reported.decode(replace(ill, problems=("x" * 300,) * 20).encode())
    assert many.problems == ("x" * 256,) * 16


@pytest.mark.parametrize("problems", [None, "model", {}, [1], ["x" * 257], ["x"] * 17, [["x"]]])
def test_a_report_with_problems_of_another_form_is_refused(problems):
    healthy = next(message for message in MESSAGES if isinstance(message, Reported))
    record = json.loads(healthy.encode()) | {"problems": problems}
    with pytest.raises(DecodeError, match="problems"):
        Reported.decode(json.dumps(record).encode())


def test_every_channel_has_one_kind_of_message():
    assert sorted(kind.KIND for kind in KINDS) == sorted(channel.value for channel in Channel)


def test_another_protocol_version_is_refused():
    payload = json.dumps({**json.loads(Presence(online=True, boot="b").encode()), "v": 2}).encode()

    with pytest.raises(DecodeError, match=r"presence.v: expected a whole number from 1 to 1, found 2"):
        Presence.decode(payload)


def test_a_payload_above_256_kib_is_refused_unread():
    with pytest.raises(DecodeError, match="at most 262144 bytes"):
        Presence.decode(b" " * (256 * 1024 + 1))


def test_a_device_cannot_report_what_only_the_fleet_decides():
    for state in (ExecutionState.QUEUED, ExecutionState.TIMED_OUT, ExecutionState.CANCELED, ExecutionState.REMOVED):
        message = Execution(rollout="r", attempt=1, state=state)
        with pytest.raises(DecodeError, match=r"execution.state"):
            Execution.decode(message.encode())


def test_a_long_reason_is_cut_by_the_sender():
    message = Execution(rollout="r", attempt=1, state=ExecutionState.FAILED, reason="x" * 5000)

    assert len(Execution.decode(message.encode()).reason) == 1024


@pytest.mark.parametrize(("state", "weights"), [("done", None), ("failed", BLOB), ("declined", BLOB)])
def test_an_update_has_weights_exactly_when_it_is_done(state, weights):
    with pytest.raises(DecodeError, match=r"update.weights: expected weights exactly when done"):
        TrainUpdate.decode(TrainUpdate(run="r", round=1, state=state, weights=weights).encode())


def test_a_training_token_is_not_shown():
    task = next(message for message in MESSAGES if isinstance(message, TrainTask))

    assert "secret" not in repr(task)


def test_a_release_that_is_no_id_is_refused():
    with pytest.raises(DecodeError, match=r"desired.release"):
        Desired.decode(Desired(version=1, release="digits").encode())


@pytest.mark.parametrize(
    "counts",
    [
        {"correct": 7},
        {"labelled": 11},
        {"out_of_range": 11},
        {"latency": [0]},
        {"latency": [11] + [0] * 14},
        {"features": {"image.mean": {"counts": [3, 4, 2], "missing": 0}}},
        {
            "paired": {
                "agreed": 9,
                "disagreed": 2,
                "both_right": 0,
                "only_new_right": 0,
                "only_old_right": 0,
                "both_wrong": 0,
            }
        },
        {
            "paired": {
                "agreed": 1,
                "disagreed": 1,
                "both_right": 2,
                "only_new_right": 0,
                "only_old_right": 1,
                "both_wrong": 0,
            }
        },
        {"labelled": 0, "correct": 0},
        {"labelled": 3, "correct": 2},
        {"labelled": 9, "correct": 0},
        {"labelled": 9, "correct": 9},
    ],
)
def test_counts_that_contradict_each_other_are_refused(counts):
    (telemetry,) = (message for message in MESSAGES if isinstance(message, Telemetry))
    record = json.loads(telemetry.encode())
    record["window"].update(counts)

    with pytest.raises(DecodeError, match=r"telemetry.window"):
        Telemetry.decode(json.dumps(record).encode())


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(NAMES, NAMES, st.sampled_from(list(Channel)))
def test_a_topic_names_its_fleet_device_and_channel(fleet, device, channel):
    topic = device_topic(fleet, device, channel)

    assert parse_topic(topic) == (fleet, device, channel)
    assert topic.count("/") <= 7


@given(st.text(max_size=60))
def test_an_arbitrary_text_is_no_topic(text):
    assert parse_topic(text) is None


@pytest.mark.parametrize(
    "topic",
    [
        "hedgerow/v2/f/d/desired",
        "hedgerow/v1/f/d/desired/x",
        "hedgerow/v1/f/d/other",
        "hedgerow/v1/+/d/desired",
        "hedgerow/v1//d/desired",
        "hedgerow/v1/f/a b/desired",
    ],
)
def test_a_topic_of_another_shape_is_not_ours(topic):
    assert parse_topic(topic) is None


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "-a", "é", "a" * 65, "a\n"])
def test_a_name_that_would_change_a_topic_is_refused(name):
    with pytest.raises(ValueError, match="expected a name like"):
        device_topic("fleet", name, Channel.DESIRED)
    with pytest.raises(ValueError, match="expected a name like"):
        device_topic(name, "device", Channel.DESIRED)


def test_a_fleet_listens_to_a_channel_of_all_devices():
    assert fleet_filter("garden", Channel.TELEMETRY) == "hedgerow/v1/garden/+/telemetry"


def test_two_states_are_not_the_end():
    assert [state.value for state in ExecutionState if not state.is_terminal] == ["QUEUED", "IN_PROGRESS"]


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


def test_versions_and_sequences_may_be_as_large_as_they_ever_get():
    assert Desired(version=VERSION_LIMIT, release=None).encode()
    assert Desired.decode(Desired(version=VERSION_LIMIT, release=None).encode()).version == VERSION_LIMIT
    report = next(message for message in MESSAGES if message.KIND == "reported")
    largest = replace(report, desired_version=VERSION_LIMIT // 2, sequence=2**40)
    assert type(report).decode(largest.encode()) == largest
    with pytest.raises(DecodeError):
        type(report).decode(replace(report, desired_version=VERSION_LIMIT // 2 + 1).encode())


def test_an_update_has_few_metrics():
    update = TrainUpdate(run="r", round=1, state="failed", metrics={f"m{n}": 1.0 for n in range(65)})
    with pytest.raises(DecodeError, match="at most 64 metrics"):
        TrainUpdate.decode(update.encode())


def test_a_task_for_a_device_whose_world_held_reads_as_it_always_did():
    """Agents refuse fields that they do not know."""
    whole = next(m for m in MESSAGES if isinstance(m, TrainTask) and m.maximum_age_s is None)

    assert b"maximum_age_s" not in whole.encode()


@pytest.mark.parametrize("age_s", [-1, "60", True, float("1e999"), 10**12])
def test_an_age_that_is_none_refuses_the_task(age_s):
    task = next(m for m in MESSAGES if isinstance(m, TrainTask))
    document = json.loads(task.encode()) | {"maximum_age_s": age_s}

    with pytest.raises(DecodeError, match=r"maximum_age_s|finite"):
        TrainTask.decode(json.dumps(document).encode())
