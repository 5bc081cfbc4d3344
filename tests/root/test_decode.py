"""Documents from outside are read strictly and refused with one sentence."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from tests.root.documents import JSON_VALUES


def read(payload: bytes, limit_bytes: int = 1000) -> Fields:
    return decode_json(payload, "doc", limit_bytes=limit_bytes)


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (b"", "doc: expected JSON in UTF-8"),
        (b"\xff{}", "doc: expected JSON in UTF-8"),
        (b"[]", "doc: expected a JSON object, found list"),
        (b'{"a":1,"a":2}', "doc: expected each key once"),
        (b'{"a":NaN}', "doc: expected finite numbers, found NaN"),
        (b'{"a":-Infinity}', "doc: expected finite numbers, found -Infinity"),
        (b'{"a":' + b"9" * 5000 + b"}", "doc: expected JSON of bounded depth and digits"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "doc: expected at most 32 levels"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "doc: expected"),
        (b'{"a":"\\ud800"}', "doc: expected text in Unicode"),
        (b'{"\\udc00":1}', "doc: expected text in Unicode"),
    ],
)
def test_bytes_that_are_not_one_sane_object_are_refused(payload, sentence):
    with pytest.raises(DecodeError) as caught:
        read(payload, limit_bytes=10**6)

    assert str(caught.value).startswith(sentence)


def test_a_surrogate_pair_is_one_character():
    assert read(b'{"a":"\\ud83c\\udf33"}').text("a") == "\N{DECIDUOUS TREE}"


def test_a_payload_of_the_limit_is_read_and_one_byte_more_is_refused():
    payload = b'{"a":1}'

    assert read(payload, limit_bytes=len(payload)).integer("a") == 1
    with pytest.raises(DecodeError, match="at most 6 bytes, found 7 bytes"):
        read(payload, limit_bytes=len(payload) - 1)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_give_fields_or_a_decode_error(payload):
    try:
        read(payload)
    except DecodeError:
        return


@given(st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=4))
def test_what_is_read_can_be_written_again(document):
    try:
        fields = read(json.dumps(document).encode(), limit_bytes=10**6)
    except DecodeError:
        return

    assert json.loads(encode_json({name: document[name] for name in fields.names()})) == document


def test_equal_documents_encode_to_equal_bytes():
    assert (
        encode_json({"b": 1, "a": [1.5, "é"]})
        == encode_json({"a": [1.5, "é"], "b": 1})
        == '{"a":[1.5,"é"],"b":1}'.encode()
    )


def test_nan_is_not_encoded():
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json({"a": float("nan")})


FIELDS = {
    "text": "abc",
    "whole": 3,
    "real": 1.5,
    "yes": True,
    "wholes": [1, 2],
    "reals": [1, 2.5],
    "texts": ["a", "b"],
    "inner": {"x": 1},
    "items": [{"x": 1}, {"x": 2}],
    "plain": {"a": 1, "b": "c", "d": False},
    "huge": 10**400,
    "null": None,
}


def fields() -> Fields:
    return Fields(FIELDS, "doc")


def test_each_reader_returns_its_type():
    record = fields()

    assert record.text("text", pattern=re.compile("[a-c]+")) == "abc"
    assert record.integer("whole", minimum=3, maximum=3) == 3
    assert record.number("whole") == 3.0
    assert record.number("real") == 1.5
    assert record.boolean("yes") is True
    assert record.integers("wholes") == (1, 2)
    assert record.numbers("reals") == (1.0, 2.5)
    assert record.texts("texts") == ("a", "b")
    assert record.choice("text", {"abc": 7}) == 7
    assert record.nested("inner").integer("x") == 1
    assert record.sequence("items", lambda item: item.integer("x")) == (1, 2)
    assert record.scalars("plain") == {"a": 1, "b": "c", "d": False}


@pytest.mark.parametrize("name", ["absent", "null"])
def test_an_optional_field_may_be_absent_or_null(name):
    record = fields()

    assert record.optional_text(name) is None
    assert record.optional_integer(name) is None
    assert record.optional_number(name) is None
    assert record.optional(name) is None


@pytest.mark.parametrize(
    ("read_field", "where"),
    [
        (lambda f: f.text("absent"), "doc.absent"),
        (lambda f: f.text("whole"), "doc.whole"),
        (lambda f: f.text("text", maximum_chars=2), "doc.text"),
        (lambda f: f.text("text", pattern=re.compile("ab")), "doc.text"),
        (lambda f: f.optional_text("whole"), "doc.whole"),
        (lambda f: f.integer("real"), "doc.real"),
        (lambda f: f.integer("yes"), "doc.yes"),
        (lambda f: f.integer("whole", minimum=4), "doc.whole"),
        (lambda f: f.integer("whole", maximum=2), "doc.whole"),
        (lambda f: f.integer("huge"), "doc.huge"),
        (lambda f: f.number("huge"), "doc.huge"),
        (lambda f: f.number("yes"), "doc.yes"),
        (lambda f: f.number("real", maximum=1), "doc.real"),
        (lambda f: f.number("null"), "doc.null"),
        (lambda f: f.boolean("whole"), "doc.whole"),
        (lambda f: f.integers("reals"), "doc.reals"),
        (lambda f: f.integers("wholes", minimum=2), "doc.wholes"),
        (lambda f: f.integers("wholes", maximum_items=1), "doc.wholes"),
        (lambda f: f.numbers("texts"), "doc.texts"),
        (lambda f: f.texts("wholes"), "doc.wholes"),
        (lambda f: f.texts("texts", maximum_chars=0), "doc.texts"),
        (lambda f: f.choice("text", {"x": 1}), "doc.text"),
        (lambda f: f.nested("text"), "doc.text"),
        (lambda f: f.optional("text"), "doc.text"),
        (lambda f: f.sequence("wholes", lambda item: item), "doc.wholes[0]"),
        (lambda f: f.sequence("items", lambda item: item.text("x")), "doc.items[0].x"),
        (lambda f: f.mapping("texts", lambda item: item), "doc.texts"),
        (lambda f: f.mapping("inner", lambda item: item), "doc.inner[x]"),
        (lambda f: f.scalars("texts"), "doc.texts"),
        (lambda f: f.scalars("plain", maximum_items=2), "doc.plain"),
        (lambda f: f.finish(), "doc"),
    ],
)
def test_a_wrong_field_is_refused_where_it_is(read_field, where):
    with pytest.raises(DecodeError) as caught:
        read_field(fields())

    assert caught.value.where == where


def test_finish_names_the_fields_that_nobody_read():
    record = Fields({"a": 1, "b": 2, "c": 3}, "doc")
    record.integer("b")

    with pytest.raises(DecodeError, match="only the fields b, found also a, c"):
        record.finish()


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(DecodeError) as caught:
        Fields({"a": "x" * 10_000}, "doc").integer("a")

    assert len(str(caught.value)) < 200


def test_a_document_that_is_passed_on_is_plain_values():
    fields = decode_json(b'{"a": {"b": [1, null]}}', "message", limit_bytes=100)
    assert fields.plain() == {"a": {"b": [1, None]}}
