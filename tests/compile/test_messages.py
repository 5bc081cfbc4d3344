import pytest

from hedgerow.compile.messages import Job, decode_job, decode_message, progress_from, progress_record
from hedgerow.decode import encode_json
from hedgerow.errors import DecodeError
from hedgerow.progress import Progress

JOB = Job(
    toolchain="onnx",
    task="/t/task.py:task",
    checkpoint="/c",
    weights_sha256="0" * 64,
    folder="/b",
    search_path=("/a", "/b c"),
    max_drop=0.015,
    artifacts={"x86-gateway": "onnx-int8-inc"},
    train_formats=("onnx",),
    reference=True,
    counts={"image.mean": (1, 2, 3)},
)


def test_a_job_is_one_message_and_comes_back():
    line = JOB.encode()
    kind, fields = decode_message(line)
    assert kind == "job"
    assert decode_job(fields) == JOB


def test_a_job_says_what_it_makes():
    assert JOB.work == "x86-gateway, the onnx train graph"


def test_progress_comes_back():
    progress = Progress("compile x86-gateway", 1.0, 4.0, "export-onnx")
    _kind, fields = decode_message(encode_json({"progress": progress_record(progress)}))
    assert progress_from(fields) == progress


@pytest.mark.parametrize("line", [b"", b"{}", b'{"a": {}, "b": {}}', b'{"job": 1}', b"noise on the pipe"])
def test_a_line_that_is_no_message_is_refused(line):
    with pytest.raises(DecodeError):
        decode_message(line)
