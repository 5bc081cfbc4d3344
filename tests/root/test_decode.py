"""Documents from outside are read strictly and refused with one sentence."""

import json
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.decode import Fields, decode_json, decode_toml, encode_json
from hedgerow.errors import DecodeError
from tests.root.documents import JSON_VALUES


def read(payload: bytes, limit_bytes: int = 1000) -> Fields:
    return decode_json(payload, "doc", limit_bytes=limit_bytes)


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (b"", "doc: expected JSON in UTF-8, found Expecting value: line 1 column 1 (char 0)"),
        (
            b"\xff{}",
            "doc: expected JSON in UTF-8, found 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (b"[]", "doc: expected a JSON object, found list"),
        (b'{"a":1,"a":2}', "doc: expected each key once, found a repeated key"),
        (b'{"a":{"b":1,"b":1}}', "doc: expected each key once, found a repeated key"),
        (b'{"a":NaN}', "doc: expected finite numbers, found NaN"),
        (b'{"a":-Infinity}', "doc: expected finite numbers, found -Infinity"),
        (b'{"a":' + b"9" * 5000 + b"}", "doc: expected JSON of bounded depth and digits, found ValueError"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "doc: expected at most 32 levels, found more"),
        (
            b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "doc: expected JSON of bounded depth and digits, found RecursionError",
        ),
        (b'{"a":"\\ud800"}', "doc: expected text in Unicode, found half of a surrogate pair"),
        (b'{"\\udc00":1}', "doc: expected text in Unicode, found half of a surrogate pair"),
    ],
)
def test_bytes_that_are_not_one_sane_object_are_refused(payload, sentence):
    with pytest.raises(DecodeError) as caught:
        read(payload, limit_bytes=10**6)

    assert str(caught.value) == sentence


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_document_of_the_deepest_level_is_read_and_one_more_is_refused(opening, closing):
    def nested(levels: int) -> bytes:
        return b'{"a":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"

    assert read(nested(31)).names() == ("a",)
    with pytest.raises(DecodeError) as caught:
        read(nested(32))

    assert str(caught.value) == "doc: expected at most 32 levels, found more"


def test_a_surrogate_pair_is_one_character():
    assert read(b'{"a":"\\ud83c\\udf33"}').text("a") == "\N{DECIDUOUS TREE}"


def test_a_payload_of_the_limit_is_read_and_one_byte_more_is_refused():
    payload = b'{"a":1}'

    assert read(payload, limit_bytes=len(payload)).integer("a") == 1
    with pytest.raises(DecodeError, match=r"^doc: expected at most 6 bytes, found 7 bytes$"):
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


@pytest.mark.parametrize(
    ("read_field", "sentence"),
    [
        (lambda f: f.text("absent"), "doc.absent: expected a value, found nothing"),
        (lambda f: f.scalars("absent"), "doc.absent: expected a value, found nothing"),
        (lambda f: f.text("whole"), "doc.whole: expected a string of at most 1024 characters, found 3"),
        (
            lambda f: f.text("text", pattern=re.compile("ab")),
            "doc.text: expected a string like ab, found 'abc'",
        ),
        (lambda f: f.choice("text", {"y": 1, "x": 2}), "doc.text: expected one of x, y, found 'abc'"),
        (lambda f: f.integer("real"), f"doc.real: expected a whole number from 0 to {2**53 - 1}, found 1.5"),
        (lambda f: f.number("yes"), "doc.yes: expected a finite number from -inf to inf, found True"),
        (lambda f: f.boolean("whole"), "doc.whole: expected true or false, found 3"),
        (lambda f: f.integers("reals"), "doc.reals: expected whole numbers from 0 to 9007199254740991, found [1, 2.5]"),
        (
            lambda f: f.integers("wholes", minimum=2, maximum=9),
            "doc.wholes: expected whole numbers from 2 to 9, found [1, 2]",
        ),
        (lambda f: f.integers("wholes", maximum=1), "doc.wholes: expected whole numbers from 0 to 1, found [1, 2]"),
        (lambda f: f.integers("whole"), "doc.whole: expected a list of at most 4096 items, found 3"),
        (lambda f: f.numbers("texts"), "doc.texts: expected finite numbers, found ['a', 'b']"),
        (lambda f: f.texts("wholes"), "doc.wholes: expected strings of at most 256 characters, found [1, 2]"),
        (lambda f: f.nested("text"), "doc.text: expected an object, found 'abc'"),
        (lambda f: f.sequence("wholes", lambda item: item), "doc.wholes[0]: expected an object, found 1"),
        (lambda f: f.mapping("inner", lambda item: item), "doc.inner[x]: expected an object, found 1"),
        (
            lambda f: f.mapping("text", lambda item: item),
            "doc.text: expected an object of at most 4096 entries, found 'abc'",
        ),
        (lambda f: f.scalars("texts"), "doc.texts: expected an object of at most 256 entries, found ['a', 'b']"),
        (lambda f: f.scalars("odd"), "doc.odd.a: expected a plain value, found [1]"),
        (lambda f: f.nested("inner").finish(), "doc.inner: expected only the fields , found also x"),
    ],
)
def test_a_refusal_says_where_what_was_expected_and_what_was_found(read_field, sentence):
    with pytest.raises(DecodeError) as caught:
        read_field(Fields({**FIELDS, "odd": {"a": [1], "b": 2}}, "doc"))

    assert str(caught.value) == sentence


ITEMS: dict[str, tuple[int, object]] = {"integers": (4096, 1), "numbers": (4096, 1.5), "texts": (4096, "a")}


@pytest.mark.parametrize("reader", sorted(ITEMS))
def test_a_list_that_names_no_bound_has_at_most_4096_items(reader):
    most, item = ITEMS[reader]

    assert len(getattr(Fields({"a": [item] * most}, "doc"), reader)("a")) == most
    with pytest.raises(DecodeError):
        getattr(Fields({"a": [item] * (most + 1)}, "doc"), reader)("a")


def test_objects_that_name_no_bound_are_bounded():
    def inner(count: int) -> Fields:
        names = [str(number) for number in range(count)]
        return Fields({"a": [{}] * count, "b": {key: {} for key in names}, "c": dict.fromkeys(names, 1)}, "doc")

    assert len(inner(4096).sequence("a", lambda item: item)) == 4096
    assert len(inner(4096).mapping("b", lambda item: item)) == 4096
    assert len(inner(256).scalars("c")) == 256
    for refused in (
        lambda: inner(4097).sequence("a", lambda item: item),
        lambda: inner(4097).mapping("b", lambda item: item),
        lambda: inner(257).scalars("c"),
    ):
        with pytest.raises(DecodeError):
            refused()


@pytest.mark.parametrize(
    ("reader", "least", "most"),
    [("integer", 0, 2**53 - 1), ("optional_integer", 0, 2**53 - 1)],
)
def test_a_whole_number_that_names_no_bound_is_one_that_a_float_holds_exactly(reader, least, most):
    for value in (least, most):
        assert getattr(Fields({"a": value}, "doc"), reader)("a") == value
    for value in (least - 1, most + 1):
        with pytest.raises(DecodeError):
            getattr(Fields({"a": value}, "doc"), reader)("a")


def test_whole_numbers_of_a_list_are_ones_that_a_float_holds_exactly():
    assert Fields({"a": [0, 2**53 - 1]}, "doc").integers("a") == (0, 2**53 - 1)
    for wrong in (-1, 2**53):
        with pytest.raises(DecodeError):
            Fields({"a": [wrong]}, "doc").integers("a")


def test_texts_that_name_no_bound_are_bounded():
    for reader in ("text", "optional_text"):
        assert getattr(Fields({"a": "x" * 1024}, "doc"), reader)("a") == "x" * 1024
        with pytest.raises(DecodeError):
            getattr(Fields({"a": "x" * 1025}, "doc"), reader)("a")
    assert Fields({"a": ["x" * 256]}, "doc").texts("a") == ("x" * 256,)
    with pytest.raises(DecodeError):
        Fields({"a": ["x" * 257]}, "doc").texts("a")


def test_an_optional_value_is_held_to_the_bounds_that_are_named():
    record = Fields({"text": "abc", "whole": 3, "real": 1.5}, "doc")

    assert record.optional_text("text", maximum_chars=3, pattern=re.compile("[a-c]+")) == "abc"
    assert record.optional_integer("whole", minimum=3, maximum=3) == 3
    assert record.optional_number("real", minimum=1.5, maximum=1.5) == 1.5
    for refused in (
        lambda: record.optional_text("text", maximum_chars=2),
        lambda: record.optional_text("text", pattern=re.compile("ab")),
        lambda: record.optional_integer("whole", minimum=4),
        lambda: record.optional_integer("whole", maximum=2),
        lambda: record.optional_number("real", minimum=2),
        lambda: record.optional_number("real", maximum=1),
    ):
        with pytest.raises(DecodeError):
            refused()


def test_the_largest_float_is_finite_and_the_next_whole_number_is_not():
    largest = int(sys.float_info.max)

    assert Fields({"a": largest}, "doc").number("a") == sys.float_info.max
    assert Fields({"a": -largest}, "doc").number("a") == -sys.float_info.max
    with pytest.raises(DecodeError):
        Fields({"a": largest + 1}, "doc").number("a")


def test_a_null_that_must_be_a_value_is_refused_as_a_null():
    with pytest.raises(DecodeError) as caught:
        fields().nested("null")

    assert str(caught.value) == "doc.null: expected an object, found None"


def test_finish_names_the_fields_that_nobody_read():
    record = Fields({"a": 1, "b": 2, "c": 3, "d": 4}, "doc")
    record.integer("d")
    record.integer("b")

    with pytest.raises(DecodeError, match=r"^doc: expected only the fields b, d, found also a, c$"):
        record.finish()


@pytest.mark.parametrize(
    ("length", "found"), [(78, repr("x" * 78)), (79, f"'{'x' * 76}..."), (10_000, f"'{'x' * 76}...")]
)
def test_a_value_of_more_than_80_characters_is_cut_in_the_message(length, found):
    with pytest.raises(DecodeError) as caught:
        Fields({"a": "x" * length}, "doc").integer("a")

    assert caught.value.found == found


def test_a_document_that_is_passed_on_is_plain_values():
    fields = decode_json(b'{"a": {"b": [1, null]}}', "message", limit_bytes=100)
    assert fields.plain() == {"a": {"b": [1, None]}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a = ", "doc: expected a TOML document in UTF-8, found Invalid value (at end of document)"),
        (
            b"a = 1\na = 2",
            "doc: expected a TOML document in UTF-8, found Cannot overwrite a value (at end of document)",
        ),
        (b"#" * 65_537, "doc: expected at most 65536 bytes, found more"),
        (
            b"a = " + b"[" * 30_000,
            "doc: expected a TOML document of bounded depth and digits, found RecursionError",
        ),
        (b"a = " + b"9" * 5000, "doc: expected a TOML document of bounded depth and digits, found ValueError"),
        (
            b"a = 2021-02-30",
            "doc: expected a TOML document in UTF-8, found Invalid date or datetime (at line 1, column 5)",
        ),
        (b"a = 0x" + b"f" * 30_000, "doc.a: expected a whole number of 64 bits, found one of 120000 bits"),
        (
            b"a = [{b = [9223372036854775808]}]",
            "doc.a[0].b[0]: expected a whole number of 64 bits, found one of 64 bits",
        ),
        (b"a = -9223372036854775809", "doc.a: expected a whole number of 64 bits, found one of 64 bits"),
        (b"a" + b".a" * 30_000 + b" = 1", "doc: expected at most 32 levels, found more"),
        (b"a = " + b"[" * 40 + b"]" * 40, "doc: expected at most 32 levels, found more"),
    ],
)
def test_toml_that_is_none_or_beyond_its_bounds_is_one_sentence(content, sentence):
    with pytest.raises(DecodeError) as caught:
        decode_toml(content, "doc", limit_bytes=65_536)
    assert str(caught.value) == sentence


def test_a_bad_byte_of_toml_is_named():
    with pytest.raises(DecodeError, match=r"^doc: expected a TOML document in UTF-8, found 'utf-8' codec .*"):
        decode_toml(b"\xff", "doc", limit_bytes=10)


def test_toml_within_its_bounds_is_read_field_by_field():
    found = decode_toml(b"a = 9223372036854775807\nb = -9223372036854775808\n[c]\nd = ['x']\n", "doc", limit_bytes=80)
    assert found.plain() == {"a": 2**63 - 1, "b": -(2**63), "c": {"d": ["x"]}}


@given(st.text() | st.binary())
def test_any_toml_is_fields_or_one_sentence(content):
    content = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    refused = ""
    try:
        found: Fields | None = decode_toml(content, "doc", limit_bytes=1000)
    except DecodeError as exc:
        found, refused = None, str(exc)
    assert (found is None) == refused.startswith("doc")
