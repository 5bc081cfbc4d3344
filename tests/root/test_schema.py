"""A schema checks itself, the caller's arrays and documents."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError, InputError
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import NO_OUTPUTS, Classes, Outputs
from hedgerow.schema import TensorSpec
from tests.root.documents import SCHEMA, damaged


def decode(payload: bytes) -> ModelSchema:
    return ModelSchema.from_fields(decode_json(payload, "schema", limit_bytes=10**6))


def test_a_schema_survives_the_wire():
    assert decode(encode_json(SCHEMA.to_record())) == SCHEMA


@given(st.data())
def test_a_damaged_schema_is_another_schema_or_a_decode_error(data):
    try:
        decode(data.draw(damaged(encode_json(SCHEMA.to_record()))))
    except DecodeError:
        return


def test_a_sound_tensor_has_no_mistakes():
    assert SCHEMA.inputs[0].mistakes() == []


@pytest.mark.parametrize(
    ("spec", "mistake"),
    [
        (TensorSpec("Image", (1,)), "the tensor name 'Image'"),
        (TensorSpec("image", (0, 8)), "positive whole numbers"),
        (TensorSpec("image", 64), "positive whole numbers"),
        (TensorSpec("image", (8.0,)), "positive whole numbers"),
        (TensorSpec("image", (8,), "float16"), "the dtype 'float16'"),
        (TensorSpec("image", (8,), minimum=2.0, maximum=2.0), "is not below the maximum"),
        (TensorSpec(3, (8,)), "the tensor name 3"),
        (TensorSpec("x", (True,)), "positive whole numbers"),
        (TensorSpec("x", (8,), minimum="0"), "x: the minimum must be a number, found '0'"),
        (TensorSpec("x", (8,), maximum=float("nan")), "x: the maximum must be a number, found nan"),
        (TensorSpec("x", (8,), minimum=0, maximum=float("inf")), "x: the maximum must be a number, found inf"),
        (TensorSpec("x", (8,), missing="yes"), "missing must be True or False, found 'yes'"),
        (TensorSpec("x", (8,), kind=["sensor"]), "the kind ['sensor'] is none of sensor, image"),
        (TensorSpec("x", (8,), kind="picture"), "the kind 'picture' is none of sensor, image, audio"),
        (
            TensorSpec("x", (3,), channels=("a", "b")),
            "as many channel names as one dimension of the shape (3,), found 2",
        ),
        (TensorSpec("x", (2,), channels=("a", "a")), "its channel names repeat"),
        (TensorSpec("x", (2,), channels=("a", "b:c")), "the channel name 'b:c' is not like"),
        (TensorSpec("x", (2,), channels=(1, 2)), "channels must be a sequence of names"),
        (TensorSpec("x", (2,), channels=3), "channels must be a sequence of names, found 3"),
        (TensorSpec("x", (2,), unit=("m", "s", "kg")), "one unit as text, or a text for each channel, found 3 units"),
        (TensorSpec("x", (4, 2), unit=("m",) * 4, channels=("a", "b")), "a text for each channel, found 4 units"),
        (TensorSpec("x", (2,), unit=7), "a unit as text, found 7"),
        (TensorSpec("x", (2,), "int32", missing=True), "only float32 can hold a missing value (NaN), found int32"),
        (TensorSpec("x", (40,), kind="tokens"), "tokens are whole numbers such as int64, found float32"),
    ],
)
def test_each_mistake_in_a_tensor_is_one_sentence(spec, mistake):
    assert [mistake in sentence for sentence in spec.mistakes()] == [True]


SAID = TensorSpec("pump", (2,), unit=("bar", "K"), kind="sensor", channels=("oil", "case"), missing=True)


def test_what_an_input_says_of_itself_survives_the_wire():
    schema = ModelSchema((SAID,), SCHEMA.outputs, SCHEMA.answers)

    assert SAID.mistakes() == []
    assert decode(encode_json(schema.to_record())) == schema


def test_an_input_that_says_nothing_more_is_the_record_it_always_was():
    assert sorted(SCHEMA.inputs[0].to_record()) == ["dtype", "maximum", "minimum", "name", "shape", "unit"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "picture"}, "kind: expected one of audio, category"),
        ({"kind": ""}, "kind: expected one of audio, category"),
        ({"channels": ["a"]}, "as many channel names as one dimension"),
        ({"channels": ["a", "a"]}, "its channel names repeat"),
        ({"channels": ["a", "x" * 33]}, "channels: expected strings of at most 32 characters"),
        ({"units": ["bar"]}, "a text for each channel"),
        ({"units": ["bar", "K" * 65]}, "units: expected strings of at most 64 characters"),
        ({"missing": 1}, "missing: expected true or false"),
        ({"dtype": "int32"}, "only float32 can hold a missing value"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, sentence):
    with pytest.raises(DecodeError, match=sentence):
        TensorSpec.from_fields(Fields({**SAID.to_record(), **change}, "tensor"))


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (TensorSpec("x", (3,)), "sensor"),
        (TensorSpec("x", (2000,)), "sensor"),
        (TensorSpec("x", (1, 28, 28)), "image"),
        (TensorSpec("x", (3, 28, 28), "uint8"), "image"),
        (TensorSpec("x", (2, 28, 28)), "sensor"),
        (TensorSpec("x", (1, 4, 4)), "sensor"),
        (TensorSpec("x", (64, 6)), "sensor"),
        (TensorSpec("x", (4,), "bool"), "flag"),
        (TensorSpec("x", (64,), "int64"), "tokens"),
        (TensorSpec("x", (16,), "int64"), "sensor"),
        (TensorSpec("x", (16000,), kind="audio"), "audio"),
        (TensorSpec("x", (1, 28, 28), kind="category"), "category"),
    ],
)
def test_the_kind_is_what_is_said_and_else_follows_from_the_form(spec, kind):
    assert spec.counted_as == kind


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (TensorSpec("x", (2,), unit="m"), "m"),
        (SAID, "oil: bar, case: K"),
        (TensorSpec("x", (2,), unit=("", "K")), "1: K"),
    ],
)
def test_units_of_channels_are_one_text_for_people(spec, text):
    assert spec.unit_text == text


def test_a_list_is_taken_as_a_shape():
    assert TensorSpec("image", [1, 8]).shape == (1, 8)


def batch(size: int = 2, **changes) -> dict[str, np.ndarray]:
    return {"image": np.zeros((size, 1, 8, 8), np.float32), **changes}


def test_a_batch_of_any_size_fits():
    for size in (0, 1, 5):
        SCHEMA.check_inputs(batch(size))


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "expected the inputs image, found none"),
        (batch(other=np.zeros(2)), "expected the inputs image, found image, other"),
        (
            {"image": np.zeros((2, 8, 8), np.float32)},
            r"image: expected the shape \(batch, 1, 8, 8\), found \(2, 8, 8\)",
        ),
        ({"image": np.zeros((1, 8, 8), np.float32)}, r"image: expected the shape"),
        ({"image": np.zeros((2, 1, 8, 8))}, "image: expected the dtype float32, found float64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, sentence):
    with pytest.raises(InputError, match=sentence):
        SCHEMA.check_inputs(inputs)


def test_all_inputs_have_one_batch_size():
    schema = ModelSchema((TensorSpec("a", ()), TensorSpec("b", ())), ())

    with pytest.raises(InputError, match=r"one batch size in all inputs, found \[2, 3\]"):
        schema.check_inputs({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)})


def test_an_unknown_field_is_refused():
    record = {**SCHEMA.to_record(), "extra": 1}

    with pytest.raises(DecodeError, match="also extra"):
        ModelSchema.from_fields(Fields(record, "schema"))


STREAMING = ModelSchema(
    (TensorSpec("frame", (16,)), TensorSpec("h", (2, 1, 128))),
    (TensorSpec("probabilities", (2,)), TensorSpec("h_next", (2, 1, 128))),
    Outputs.of(Classes(("silence", "speech"))),
    {"h": "h_next"},
)


def test_a_schema_with_state_survives_its_record_and_gives_callers_what_is_theirs():
    assert ModelSchema.from_fields(Fields(STREAMING.to_record(), "schema")) == STREAMING
    assert [spec.name for spec in STREAMING.given.inputs] == ["frame"]
    assert [spec.name for spec in STREAMING.given.outputs] == ["probabilities"]
    assert STREAMING.given.state == {}


def test_a_schema_without_state_has_no_word_of_it_in_its_record():
    assert "state" not in SCHEMA.to_record()
    assert SCHEMA.given is SCHEMA


def test_an_output_that_is_the_whole_answer_stays_one_when_it_is_state_too():
    schema = ModelSchema(
        (TensorSpec("x", (2,)), TensorSpec("h", (3,))), (TensorSpec("y", (3,)),), NO_OUTPUTS, {"h": "y"}
    )

    assert schema.state_misfit() is None
    assert [spec.name for spec in schema.given.outputs] == ["y"]


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        ({"state": {"h": "absent"}}, "pairs of an input and an output of the schema", "h = absent"),
        ({"state": {"absent": "h_next"}}, "pairs of an input and an output of the schema", "absent = h_next"),
        (
            {"state": {"h": "probabilities"}},
            "one shape and one dtype at both ends of a state",
            "float32[2, 1, 128] as h and float32[2] as probabilities",
        ),
        (
            {"outputs": [{**TensorSpec("h_next", (2, 1, 128), "int8").to_record()}], "answers": {}},
            "one shape and one dtype at both ends of a state",
            "float32[2, 1, 128] as h and int8[2, 1, 128] as h_next",
        ),
        ({"inputs": [TensorSpec("h", (2, 1, 128)).to_record()]}, "an input that is no state", "none"),
        (
            {
                "inputs": [TensorSpec(name, (2,)).to_record() for name in ("x", "a", "b")],
                "outputs": [TensorSpec("y", (2,)).to_record()],
                "answers": {},
                "state": {"a": "y", "b": "y"},
            },
            "an output of its own for each state",
            "one output for two",
        ),
        (
            {
                "inputs": [TensorSpec("x", (2,)).to_record(), TensorSpec("h", (2**11, 2**12)).to_record()],
                "outputs": [TensorSpec("h_next", (2**11, 2**12)).to_record()],
                "answers": {},
            },
            "at most 4194304 numbers of state",
            "8388608",
        ),
    ],
)
def test_state_that_does_not_fit_is_refused_where_a_schema_is_read(changes, expected, found):
    with pytest.raises(DecodeError) as caught:
        ModelSchema.from_fields(Fields({**STREAMING.to_record(), **changes}, "schema"))

    assert (caught.value.where, caught.value.expected, caught.value.found) == ("schema.state", expected, found)


@pytest.mark.parametrize("count", [0, 9])
def test_none_and_too_many_state_tensors_are_refused_before_they_are_looked_at(count):
    record = {**STREAMING.to_record(), "state": {f"h{i}": 5 for i in range(count)}}

    with pytest.raises(DecodeError, match=f"one to 8 state tensors, found {count}"):
        ModelSchema.from_fields(Fields(record, "schema"))


def test_bounds_that_numpy_gave_stand_in_a_record_as_plain_numbers():
    spec = TensorSpec("x", (2,), minimum=np.float32(-0.5), maximum=np.arange(4).max())

    record = TensorSpec("x", (2,), minimum=-0.5, maximum=3).to_record()
    assert (spec.mistakes(), json.loads(encode_json(spec.to_record()))) == ([], record)
