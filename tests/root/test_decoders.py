"""Every decoder refuses what it does not know, and every bound stands where the table says.

decoder_table.py names the decoders; decoder_bounds.json says what each reads and within which bounds. Both are held
against the code in both directions.
"""

import json
import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hedgerow.errors import DecodeError
from tests.root.decoder_table import DECODERS, NO_DECODERS, padded_to
from tests.root.decoders import (
    BOUNDS,
    UNKNOWN,
    Decoder,
    Document,
    Watched,
    bounds_of,
    changed,
    code_of,
    in_source,
    kind_of_object,
    objects_in,
    paths_to,
    refusal,
    table_text,
    watch_examples,
    without,
)

TABLE: dict[str, Any] = json.loads(BOUNDS.read_text())
LONGEST_LIST = 5000
LONGEST_PADDING_BYTES = 2**22

PASSED_ON = {
    "hedgerow.checkpoint:read_checkpoint privacy": "a statement for people, which accounting.py wrote",
    "hedgerow.compile.cache:_decode answer": "session.py hands its parts to decoders",
    "hedgerow.compile.foreign:_Answer.take answer": "foreign.py decodes and finishes what it asked for",
    "hedgerow.compile.messages:decode_message job": "decode_job and the others finish it",
}
"""Objects whose keys their decoder does not look at, with the reason."""


def parameters() -> list[Any]:
    marks = [pytest.mark.heavy, pytest.mark.skipif(find_spec("flwr") is None, reason="needs the extra train")]
    return [pytest.param(decoder, id=decoder.name, marks=marks if decoder.is_heavy else []) for decoder in DECODERS]


each_decoder = pytest.mark.parametrize("decoder", parameters())


def owners() -> dict[Any, str]:
    return {code_of(decoder.name): decoder.name for decoder in DECODERS if not decoder.is_heavy}


def watched_by(decoder: Decoder, folder: Path) -> Watched:
    return watch_examples(decoder, {**owners(), code_of(decoder.name): decoder.name}, folder)


def places_of(decoder: Decoder) -> Iterator[tuple[Document, str, list[Any], Document]]:
    """Yield (example, place, path, readers and whether it is required) of every field, in each example that has it."""
    for place, entry in TABLE[decoder.name]["fields"].items():
        examples = [
            (document, paths_to(document)[place]) for document in decoder.examples if place in paths_to(document)
        ]
        assert examples, f"no example of {decoder.name} holds {place}"
        for document, path in examples:
            yield document, place, path, entry


def readers_of(entry: Mapping[str, Any]) -> list[tuple[str, Document]]:
    return [(reader, bounds) for reader, bounds in entry.items() if reader != "required"]


class LongList(list[Any]):
    """A list that says that it is longer than what is in it."""

    length = 0

    def __len__(self) -> int:
        return self.length


class LongDict(dict[str, Any]):
    """The same for an object."""

    length = 0

    def __len__(self) -> int:
        return self.length


class Again(str):
    """A key that no other equals, though it is written like it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def long_list(items: list[Any], length: int) -> list[Any]:
    if length <= LONGEST_LIST:
        return (items or [None])[:1] * length
    pretended = LongList(items)
    pretended.length = length
    return pretended


def long_dict(items: Mapping[str, Any], length: int) -> dict[str, Any]:
    if length <= LONGEST_LIST:
        return {f"name-{index}": next(iter(items.values()), 1) for index in range(length)}
    pretended = LongDict(items)
    pretended.length = length
    return pretended


def edges(reader: str, bounds: Document, value: Any) -> Iterator[tuple[Any, bool, str]]:
    """Yield (value, whether it lies within the bound, what is expected where it does not)."""
    lowest, highest = bounds.get("minimum"), bounds.get("maximum")
    match reader.removeprefix("optional_"):
        case "integer":
            expected = f"a whole number from {lowest} to {highest}"
            yield from ((edge, True, expected) for edge in (lowest, highest))
            yield from ((edge, False, expected) for edge in (lowest - 1, highest + 1))
        case "number":
            lowest = -math.inf if lowest is None else lowest
            highest = math.inf if highest is None else highest
            expected = f"a finite number from {lowest} to {highest}"
            for bound, beyond in ((lowest, -math.inf), (highest, math.inf)):
                if not math.isinf(bound):
                    yield bound, True, expected
                    yield math.nextafter(bound, beyond), False, expected
        case "text" if "pattern" in bounds:
            expected = f"a string like {bounds['pattern']}"
            yield from ((wrong, False, expected) for wrong in (f"{value}\n", f" {value}", "\x00"))
        case "text":
            expected = f"a string of at most {bounds['maximum_chars']} characters"
            yield "x" * bounds["maximum_chars"], True, expected
            yield "x" * (bounds["maximum_chars"] + 1), False, expected
        case "choice":
            expected = f"one of {', '.join(bounds['options'])}"
            yield from ((option, True, expected) for option in bounds["options"])
            yield UNKNOWN, False, expected
        case "integers" | "numbers" | "texts" | "sequence":
            length = bounds["maximum_items"]
            expected = f"a list of at most {length} items"
            yield long_list(value, length), True, expected
            yield long_list(value, length + 1), False, expected
            yield from _item_edges(reader, bounds)
        case "mapping" | "scalars":
            length = bounds["maximum_items"]
            expected = f"an object of at most {length} entries"
            yield long_dict(value, length), True, expected
            yield long_dict(value, length + 1), False, expected


def _item_edges(reader: str, bounds: Document) -> Iterator[tuple[Any, bool, str]]:
    if reader == "integers":
        expected = f"whole numbers from {bounds['minimum']} to {bounds['maximum']}"
        yield from (([edge], True, expected) for edge in (bounds["minimum"], bounds["maximum"]))
        yield from (([edge], False, expected) for edge in (bounds["minimum"] - 1, bounds["maximum"] + 1))
    elif reader == "texts":
        expected = f"strings of at most {bounds['maximum_chars']} characters"
        yield ["x" * bounds["maximum_chars"]], True, expected
        yield ["x" * (bounds["maximum_chars"] + 1)], False, expected


NOT_FINITE = (math.nan, math.inf, -math.inf)
HUGE = 10**400
WRONG: dict[str, tuple[Any, ...]] = {
    "text": (None, 7, True, ["x"], {}),
    "choice": (None, 7, True, ["x"], {}),
    "integer": (None, "1", 1.5, True, [1], HUGE, *NOT_FINITE),
    "number": (None, "1", True, [1], HUGE, *NOT_FINITE),
    "boolean": (None, 1, "true", []),
    "integers": (None, {}, "x", 3, [1.5], [True], ["1"], [HUGE], [None]),
    "numbers": (None, {}, "x", 3, ["1"], [True], [HUGE], [None], *([number] for number in NOT_FINITE)),
    "texts": (None, {}, "x", 3, [1], [None], [["x"]]),
    "nested": (None, [], "x", 3),
    "optional": ([], "x", 3),
    "sequence": (None, {}, "x", 3, [1], [None]),
    "mapping": (None, [], "x", 3, {"k": 1}, {"k": None}),
    "scalars": (None, [], "x", 3, {"k": None}, {"k": []}),
}


def is_finite(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return not any(isinstance(item, float) and not math.isfinite(item) for item in values)


def test_the_table_names_every_decoder_and_nothing_else():
    parts = {part for decoder in DECODERS for part in decoder.parts}
    named = {decoder.name for decoder in DECODERS}

    source = in_source()

    assert source - named - parts == set(NO_DECODERS)
    assert all(decoder.parts for decoder in DECODERS if decoder.name not in source)
    assert parts <= source
    assert set(TABLE) == named


@each_decoder
def test_a_decoder_reads_the_fields_of_the_table_within_its_bounds(decoder, tmp_path):
    watched = watched_by(decoder, tmp_path)

    assert json.loads(table_text({"it": bounds_of(decoder, watched, tmp_path, TABLE)}))["it"] == TABLE[decoder.name]


@each_decoder
def test_a_decoder_uses_the_parts_that_it_is_said_to_have(decoder, tmp_path):
    entered = {code.co_qualname.replace(".<locals>", "") for code in watched_by(decoder, tmp_path).entered}

    assert {part.partition(":")[2] for part in decoder.parts} <= entered


@each_decoder
def test_an_unknown_key_is_refused_at_every_level(decoder, tmp_path):
    base = watched_by(decoder, tmp_path).where[decoder.name]
    expected = TABLE[decoder.name].get("objects", {})
    for document in decoder.examples:
        for place, path in objects_in(document):
            kind = kind_of_object(decoder, document, path, tmp_path)
            assert kind == expected.get(place, "closed"), place
            if kind == "free":
                assert any(f"{decoder.name} {place}".startswith(known) for known in PASSED_ON), place
            else:
                refused = refusal(decoder, changed(document, [*path, UNKNOWN], []), tmp_path)
                assert type(refused) is DecodeError
                assert refused.where.startswith(base)


@each_decoder
def test_a_value_at_a_bound_is_within_it_and_the_next_one_is_refused_by_name(decoder, tmp_path):
    base = watched_by(decoder, tmp_path).where[decoder.name]
    for document, place, path, entry in places_of(decoder):
        value = document
        for key in path:
            value = value[key]
        for reader, bounds in readers_of(entry):
            if value is None:
                continue
            for edge, is_within, expected in edges(reader, bounds, value):
                refused = refusal(decoder, changed(document, path, edge), tmp_path)
                said = None if refused is None else (refused.where, refused.expected)
                if is_within:
                    assert said != (f"{base}.{place}", expected), (place, reader)
                else:
                    assert said == (f"{base}.{place}", expected), (place, reader)
                    assert type(refused) is DecodeError


@each_decoder
def test_a_required_key_must_be_there_and_another_may_be_absent(decoder, tmp_path):
    base = watched_by(decoder, tmp_path).where[decoder.name]
    for document, place, path, entry in places_of(decoder):
        refused = refusal(decoder, without(document, path), tmp_path)
        said = None if refused is None else (refused.where, refused.expected, refused.found)

        if entry["required"]:
            assert said == (f"{base}.{place}", "a value", "nothing"), place
        else:
            assert said != (f"{base}.{place}", "a value", "nothing"), place


@each_decoder
def test_a_value_of_another_type_is_refused_by_name(decoder, tmp_path):
    base = watched_by(decoder, tmp_path).where[decoder.name]
    for document, place, path, entry in places_of(decoder):
        for reader, _bounds in readers_of(entry):
            for value in WRONG[reader if reader in WRONG else reader.removeprefix("optional_")]:
                if value is None and (decoder.form == "toml" or not entry["required"]):
                    continue
                refused = refusal(decoder, changed(document, path, value), tmp_path)
                where = f"{base}.{place}"
                places = {where, f"{where}[0]", f"{where}[k]", f"{where}.k"}
                if place.endswith(".0"):  # its list is read first, as a list of texts
                    places.add(where.removesuffix(".0"))
                if decoder.form == "json" and not is_finite(value):
                    places = {base}
                assert type(refused) is DecodeError, (place, value)
                assert refused.where in places, (place, value)


@pytest.mark.parametrize("decoder", [p for p in parameters() if p.values[0].form == "json"])
def test_a_key_that_stands_twice_is_refused(decoder, tmp_path):
    for document in decoder.examples:
        key = next(iter(document))
        refused = refusal(decoder, {**document, Again(key): document[key]}, tmp_path)

        assert refused is not None
        assert (refused.expected, refused.found) == ("each key once", "a repeated key")


@pytest.mark.parametrize("decoder", [p for p in parameters() if p.values[0].form == "json"])
def test_a_document_of_its_longest_size_is_read_and_one_byte_more_is_refused(decoder, tmp_path):
    limit_bytes = TABLE[decoder.name]["limit_bytes"]
    document = decoder.examples[0]
    if limit_bytes <= LONGEST_PADDING_BYTES:
        with padded_to(limit_bytes):
            assert refusal(decoder, document, tmp_path) is None
    with padded_to(limit_bytes + 1):
        refused = refusal(decoder, document, tmp_path)

    assert refused is not None
    assert refused.expected == f"at most {limit_bytes} bytes"
