"""Settings come from a file, the environment and options, in this order, and errors name where a value stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import HedgerowError
from hedgerow.settings import HOST, HTTP_ADDRESS, Bound, Given, Settings, at_least, between, has_default, matching, told

FEW = Bound("few", lambda value: value < 5)


class RefusedError(HedgerowError):
    def __init__(self, place: str, value: str, expected: str) -> None:
        super().__init__(f"{place}: expected {expected}, found {value!r}")
        self.place, self.value, self.expected = place, value, expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Garden(Settings):
    PREFIX: ClassVar[str] = "GARDEN_"
    name: str = field(metadata=told("Its name.", matching(re.compile("[a-z]+")), flag="--name"))
    beds: int = field(default=1, metadata=told("Its beds.", between(1, 9, "1 to 9"), flag="--beds"))
    water_l: float = field(default=2.5, metadata=told("Water."))
    is_open: bool = field(default=False, metadata=told("Whether it is open."))
    map: Path | None = field(default=None, metadata=told("A map."))
    tags: Mapping[str, str] = field(default_factory=dict, metadata=told("Tags."))

    @classmethod
    def refused(cls, place: str, value: str, expected: str) -> RefusedError:
        return RefusedError(place, value, expected)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "garden.toml"


def refusal(**sources) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        Garden.read(**sources)
    return caught.value


def test_the_later_source_wins_setting_by_setting(file):
    file.write_text('name = "file"\nbeds = 2\nwater_l = 1\nis_open = true\nmap = "m.png"\n[tags]\na = "1"\n')
    env = {"GARDEN_BEDS": "3", "GARDEN_WATER_L": "4.5", "OTHER_BEDS": "7", "PATH": "/bin"}
    assert Garden.read(file=file, env=env, options={"beds": 4, "is_open": None}) == Garden(
        name="file", beds=4, water_l=4.5, is_open=True, map=Path("m.png"), tags={"a": "1"}
    )
    assert Garden.read(file=file, env=env).beds == 3
    assert Garden.read(file=file).beds == 2
    assert Garden.read(options={"name": "a"}) == Garden(name="a")


def test_a_value_knows_where_it_stands(file):
    file.write_text("beds = 2\nwater_l = 3")
    found = Garden.collect(file=file, env={"GARDEN_IS_OPEN": "yes"}, options={"beds": 4, "name": "a"})
    assert found == {
        "beds": Given(4, "--beds"),
        "name": Given("a", "--name"),
        "water_l": Given(3.0, f"{file}, water_l"),
        "is_open": Given(True, "GARDEN_IS_OPEN"),
    }
    assert type(found["water_l"].value) is float


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("beds = 0", "beds", "1 to 9"),
        ("beds = 10", "beds", "1 to 9"),
        ('beds = "2"', "beds", "a whole number"),
        ("beds = true", "beds", "a whole number"),
        ("beds = 2.0", "beds", "a whole number"),
        ("water_l = true", "water_l", "a number"),
        ("water_l = inf", "water_l", "a finite number"),
        (f"water_l = 1{400 * '0'}", "water_l", "settings, a whole number of 64 bits"),
        (f"beds = 0x{30_000 * 'f'}", "beds", "settings, a whole number of 64 bits"),
        ("is_open = 1", "is_open", "true or false"),
        ("name = 1", "name", "text"),
        ('name = "A"', "name", "a name like [a-z]+"),
        ("map = 1", "map", "a path"),
        ('map = ""', "map", "a path"),
        ('map = "a\\u0000b"', "map", "text without control characters"),
        ('name = "a\\u001bb"', "name", "text without control characters"),
        ("tags = 1", "tags", "KEY=VALUE pairs"),
        ("[tags]\na = 1", "tags", "KEY=VALUE pairs"),
        ("seed = 1", "seed", "a setting out of beds, is_open, map, name, tags, water_l"),
    ],
)
def test_a_wrong_key_of_a_file_is_refused_with_file_and_key(file, text, key, expected):
    file.write_text(text)
    error = refusal(file=file)
    assert error.place == f"{file}, {key}"
    assert error.expected.startswith(expected)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("BEDS", "two", "a whole number"),
        ("BEDS", "0", "1 to 9"),
        ("WATER_L", "much", "a number"),
        ("IS_OPEN", "maybe", "true or false"),
        ("WATER_L", "inf", "a finite number"),
        ("WATER_L", "nan", "a finite number"),
        ("NAME", "two words", "a name like"),
        ("MAP", "", "a path"),
        ("MAP", "\udcff", "text without control characters"),
        ("NAME", "\udcff", "text without control characters"),
        ("BEDS", "9" * 20, "a whole number of 64 bits"),
        ("TAGS", "a", "KEY=VALUE pairs"),
        ("TAGS", "a=1,a=2", "KEY=VALUE pairs"),
        ("TAGS", "=1", "KEY=VALUE pairs"),
        ("SEED", "1", "a setting out of"),
        ("", "1", "a setting out of"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_name(variable, text, expected):
    error = refusal(env={f"GARDEN_{variable}": text})
    assert (error.place, error.value) == (f"GARDEN_{variable}", text)
    assert error.expected.startswith(expected)


def test_hosts_are_names_that_can_be_looked_up_and_addresses():
    good = ["localhost", "127.0.0.1", "::1", "fe80::1%eth0", "bücher.example", "a" * 63, "a.example."]
    assert [HOST.holds(host) for host in good] == [True] * len(good)
    bad = ["", "a" * 64, "a..b", ".", "a b", "\udcff", "x" * 300]
    assert [HOST.holds(host) for host in bad] == [False] * len(bad)


def test_addresses_of_a_service_are_http_with_a_host_and_perhaps_a_port():
    good = ["http://h", "https://h.example:8443/x", "http://[::1]:8080", "HTTP://127.0.0.1:65535"]
    assert [HTTP_ADDRESS.holds(address) for address in good] == [True] * len(good)
    bad = ["", "h:80", "ftp://h", "http://", "http://[", "http://h:65536", "http://h:0", "http://h:x", "http://a..b"]
    bad.append(f"http://{'h' * 300}:1")
    assert [HTTP_ADDRESS.holds(address) for address in bad] == [False] * len(bad)


def test_text_of_an_option_or_a_direct_value_is_held_to_the_same_rule():
    error = refusal(options={"name": "a", "map": Path("a\x00b")})
    assert (error.place, error.expected) == ("map", "text without control characters, in UTF-8")
    with pytest.raises(RefusedError, match="name: expected text without control characters"):
        Garden(name="a\n")


def test_a_wrong_option_is_refused_with_its_flag():
    error = refusal(options={"name": "a", "beds": 10})
    assert (error.place, error.value, error.expected) == ("--beds", "10", "1 to 9")


@pytest.mark.parametrize("written", ["1.0", '"1"', "1e+16", "true", "[1]"])
def test_a_value_of_another_type_is_shown_as_it_is_written(file, written):
    file.write_text(f"beds = {written}")
    assert refusal(file=file).value == written


def test_a_value_of_an_earlier_source_is_not_judged_when_a_later_one_wins(file):
    file.write_text("beds = 0")
    assert Garden.read(file=file, options={"name": "a", "beds": 2}).beds == 2


def test_what_is_required_and_stands_nowhere_is_refused_with_every_place():
    error = refusal()
    assert (error.place, error.value) == ("name", "none")
    assert error.expected == "a value, by --name, GARDEN_NAME, the key name of a settings file"
    assert Garden.required() == {"name"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"beds = ", "settings, a TOML document in UTF-8"),
        (b"\xff", "settings, a TOML document in UTF-8"),
        (b"beds = 1\nbeds = 2", "settings, a TOML document in UTF-8"),
        (b"#" * (2**16 + 1), "settings, at most 65536 bytes"),
        (b"beds = " + b"[" * 30_000, "settings, a TOML document of bounded depth and digits"),
        (b"beds = " + b"9" * 5000, "settings, a TOML document of bounded depth and digits"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_by_its_name(file, content, expected):
    file.write_bytes(content)
    error = refusal(file=file)
    assert (error.place, error.expected) == (str(file), expected)


def test_a_file_that_cannot_be_read_is_refused_by_its_name(file, tmp_path):
    for path, found in ((file, "No such file or directory"), (tmp_path, "Is a directory")):
        error = refusal(file=path)
        assert (error.place, error.value) == (str(path), found)


def test_direct_values_are_held_against_their_bounds_by_their_names():
    with pytest.raises(RefusedError) as caught:
        Garden(name="a", beds=0)
    assert (caught.value.place, caught.value.expected) == ("beds", "1 to 9")


def test_a_variable_gives_pairs_booleans_and_paths_by_the_declared_type():
    env = {"GARDEN_TAGS": "a=1,b=x=y,c=", "GARDEN_IS_OPEN": " Off ", "GARDEN_MAP": "m", "GARDEN_NAME": "a"}
    assert Garden.from_env(env) == Garden(name="a", tags={"a": "1", "b": "x=y", "c": ""}, map=Path("m"))
    assert Garden.from_env({"GARDEN_TAGS": ""}, name="a").tags == {}
    assert Garden.from_env({"PLOT_BEDS": "3", "GARDEN_BEDS": "4"}, prefix="PLOT_", name="a").beds == 3


def test_bounds_hold_at_their_edges_and_a_nan_is_in_none():
    nan = float("nan")
    assert [at_least(1).holds(value) for value in (0, 1, 2, nan)] == [False, True, True, False]
    closed, opened = between(0, 2, "x"), between(0, 2, "x", is_open=True)
    assert [closed.holds(value) for value in (-1, 0, 2, 3, nan)] == [False, True, True, False, False]
    assert [opened.holds(value) for value in (-1, 0, 1e-300, 2, 3, nan)] == [False, False, True, True, False, False]
    assert at_least(0.5).expected == "at least 0.5"


def test_a_default_may_be_a_factory():
    declared = Garden.declared()
    assert {name for name, each in declared.items() if has_default(each)} == set(declared) - {"name"}


def test_a_long_value_is_cut_in_the_message(file):
    file.write_text(f'beds = "{"x" * 1000}"')
    assert len(refusal(file=file).value) == 200
    assert len(refusal(env={"GARDEN_BEDS": "9" * 5000}).value) == 200


@given(st.dictionaries(st.sampled_from(["GARDEN_BEDS", "GARDEN_WATER_L", "GARDEN_IS_OPEN", "GARDEN_TAGS"]), st.text()))
def test_any_environment_gives_settings_or_a_refusal(env):
    refused, found = "", None
    try:
        found = Garden.from_env(env, name="a")
    except RefusedError as exc:
        refused = exc.place
    assert (found is None) == (refused in env)
    if found is not None:
        assert 1 <= found.beds <= 9
        assert isinstance(found.water_l, float)
        assert isinstance(found.is_open, bool)
