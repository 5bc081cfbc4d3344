"""What is wanted of a device, and what it says it is."""

import json
from dataclasses import replace

import pytest

from hedgerow.errors import DecodeError
from hedgerow.wire.device import VERSION_LIMIT, Desired, Reported
from tests.root.documents import MESSAGES


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


def test_a_plain_assignment_is_of_no_rollout_and_compares_nothing():
    assert Desired(version=1, release=None).to_record() == {
        "version": 1,
        "release": None,
        "rollout": None,
        "attempt": 1,
        "compare": False,
    }


def test_a_release_that_is_no_id_is_refused():
    with pytest.raises(DecodeError, match=r"desired.release"):
        Desired.decode(Desired(version=1, release="digits").encode())


def test_versions_and_sequences_may_be_as_large_as_they_ever_get():
    assert Desired(version=VERSION_LIMIT, release=None).encode()
    assert Desired.decode(Desired(version=VERSION_LIMIT, release=None).encode()).version == VERSION_LIMIT
    report = next(message for message in MESSAGES if message.KIND == "reported")
    largest = replace(report, desired_version=VERSION_LIMIT // 2, sequence=2**40)
    assert type(report).decode(largest.encode()) == largest
    with pytest.raises(DecodeError):
        type(report).decode(replace(report, desired_version=VERSION_LIMIT // 2 + 1).encode())
