import pytest

from hedgerow.compile.messages import Job, SentRecipe, decode_job, decode_message, progress_from, progress_record
from hedgerow.compile.recipes import find_recipe
from hedgerow.decode import encode_json
from hedgerow.errors import DecodeError, HedgerowError
from hedgerow.hardware import load_target
from hedgerow.progress import Progress

JOB = Job(
    toolchain="onnx",
    task="/t/task.py:task",
    checkpoint="/c",
    weights_sha256="0" * 64,
    folder="/b",
    search_path=("/a", "/b c"),
    max_drop=0.015,
    limit_s=600.0,
    artifacts={"x86-gateway": SentRecipe.of(find_recipe("onnx-int8-inc-smoothquant"))},
    targets={"x86-gateway": load_target("x86-gateway")},
    train_formats=("onnx",),
    train_options=("optimizer=adam", "trainable=head.*"),
    reference=True,
    counts={"image.mean": (1, 2, 3)},
)


def test_a_job_is_one_message_and_comes_back():
    line = JOB.encode()
    kind, fields = decode_message(line)
    assert kind == "job"
    assert decode_job(fields) == JOB


def test_a_job_carries_its_recipes_with_every_setting():
    _kind, fields = decode_message(JOB.encode().rstrip())
    sent = decode_job(fields).artifacts["x86-gateway"]
    assert sent.read() == find_recipe("onnx-int8-inc-smoothquant")
    assert '{"pass":"smooth-activations","settings":{"alpha":0.5}}' in sent.record


@pytest.mark.parametrize(
    ("found", "wrong", "refusal"),
    [
        ('"alpha":0.5', '"alpha":0.5,"beta":1', "a setting that it does not have"),
        ('"alpha":0.5', '"alpha":1.5', "expected a number from 0 to 1 for the setting 'alpha', found 1.5"),
        ('"smooth-activations"', '"smooth-activation"', "no pass is called 'smooth-activation'; did you mean"),
        ('"smaller_than_float":true', '"smaller_than_float":1', "smaller_than_float"),
        ('"name":"onnx', '"extra":1,"name":"onnx', "extra"),
    ],
)
def test_a_recipe_that_was_changed_on_the_way_is_refused(found, wrong, refusal):
    sent = JOB.artifacts["x86-gateway"]
    assert found in sent.record
    with pytest.raises(HedgerowError, match=refusal):
        SentRecipe(sent.name, sent.record.replace(found, wrong)).read()


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
