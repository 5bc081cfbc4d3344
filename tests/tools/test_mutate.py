"""Mutants are what they say, drawn by the seed, and the tests of the pure core notice them."""

import ast
import json
import subprocess
import sys
import tomllib

import pytest

from hedgerow.task import load_attribute
from tests.test_layout import ROOT

TOOL = ROOT / "tools" / "mutate.py"
NAMES = ("CORE", "EQUIVALENT", "drawn", "mutants_of", "source_of", "tests_of")
MUTATE = {name: load_attribute(f"{TOOL}:{name}") for name in NAMES}

SOURCE = '''"""Prose."""
__all__ = ["least"]


def least(values: list[int], limit: float = 0.5) -> int | None:
    """Return it."""
    if not values or len(values) > 3:
        raise ValueError(f"expected few, found {len(values)}")
    return min(values, key=lambda value: value % 7)
'''


EQUAL = "def a():\n    return 1\ndef b():\n    return 1\n"


def changes(source: str = SOURCE) -> set[str]:
    return {mutant.change for mutant in MUTATE["mutants_of"]("m", source)}


def test_every_kind_of_place_that_runs_is_changed_and_prose_is_not():
    assert changes() == {
        "0.5 => 1.0",
        "if not values or len(values) > 3: ... => if not (not values or len(values) > 3): ...",
        "not values or len(values) > 3 => not values and len(values) > 3",
        "not values => values",
        "len(values) > 3 => len(values) >= 3",
        "3 => 4",
        "'expected few, found ' => 'expected few, found XX'",
        "raise ValueError(f'expected few, found {len(values)}') => pass",
        "return min(values, key=lambda value: value % 7) => return None",
        "min => max",
        "min(values, key=lambda value: value % 7) => min(values)",
        "value % 7 => value * 7",
        "7 => 8",
    }


def test_each_operator_of_a_chain_is_changed():
    assert changes("def f(x, y):\n    return 0 < x <= y != x\n") == {
        "0 < x <= y != x => 0 <= x <= y != x",
        "0 < x <= y != x => 0 < x < y != x",
        "0 < x <= y != x => 0 < x <= y == x",
        "0 => 1",
        "return 0 < x <= y != x => return None",
    }


def test_the_text_of_a_sentence_and_what_is_computed_in_it_are_changed():
    assert changes('said = f"{x + 1:.{y}f} of {min(z)} left"\n') == {
        "x + 1 => x - 1",
        "1 => 2",
        "'.' => '.XX'",
        "'f' => 'fXX'",
        "' of ' => ' of XX'",
        "min => max",
        "' left' => ' leftXX'",
    }


def test_a_mutant_knows_the_function_or_class_that_it_stands_in():
    source = "a = 1\nclass B:\n    c = 2\n    def d(self):\n        def e():\n            return 3\n        return e\n"
    found = {mutant.change: mutant.inside for mutant in MUTATE["mutants_of"]("m", source)}

    assert [found[change] for change in ("1 => 2", "2 => 3", "3 => 4")] == ["", "B", "B.d.e"]


def test_a_change_is_equivalent_only_where_it_is_listed(monkeypatch):
    first, second = (mutant for mutant in MUTATE["mutants_of"]("m", EQUAL) if mutant.change == "1 => 2")
    row = load_attribute(f"{TOOL}:judge")
    monkeypatch.setitem(row.__globals__, "outcome_of", lambda *_: "passed")
    monkeypatch.setitem(row.__globals__, "tests_of", lambda _: [])

    judged = row("m", [first, second], {"a": {"1 => 2": "why"}})

    assert (judged["equivalent"], judged["killed"]) == (1, 0)
    assert judged["survivors"] == [{"line": 4, "inside": "b", "before": "1", "after": "2"}]


def test_a_mutant_is_killed_by_time_alone_when_it_takes_too_long_twice_and_is_reported_as_such(monkeypatch, capsys):
    mutants = MUTATE["mutants_of"]("m", EQUAL)
    outcomes = iter(["failed", "timed out", "timed out", "timed out", "passed", "timed out", "failed"])
    tries_s = []

    def run(mutant, _tests, timeout_s):
        if mutant is None:
            return "passed"
        tries_s.append(round(timeout_s))
        return next(outcomes)

    row = load_attribute(f"{TOOL}:judge")
    monkeypatch.setitem(row.__globals__, "run_forked", run)
    monkeypatch.setitem(row.__globals__, "tests_of", lambda _: [["a test"]])

    judged = row("m", mutants, {})
    load_attribute(f"{TOOL}:_show")(judged)

    assert tries_s == [10, 10, 20, 10, 20, 10, 20]
    assert (judged["mutants"], judged["killed"], judged["equivalent"]) == (4, 3, 0)
    assert judged["timed_out"] == [{"line": 2, "inside": "a", "before": "return 1", "after": "return None"}]
    assert capsys.readouterr().out.splitlines() == [
        "m: 3 of 4 killed (1 by time alone), 0 equivalent",
        "  line 4: 1  =>  2",
        "  line 2 took too long: return 1  =>  return None",
    ]


PROPERTY = """
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.lists(st.integers()))
@settings(max_examples=60)
def test_sums_are_small(numbers):
    if sum(numbers) > 10_000:
        with Path(__file__).with_name("failures").open("a") as failures:
            failures.write("x")
    assert sum(numbers) <= 10_000
"""


def test_a_property_that_fails_is_not_shrunk(tmp_path):
    file = tmp_path / "test_sums.py"
    file.write_text(PROPERTY)

    assert load_attribute(f"{TOOL}:run_forked")(None, [str(file)], 60.0) == "failed"
    assert len((tmp_path / "failures").read_text()) <= 3, "found, and shown again"


def test_every_equivalent_mutant_is_one_that_is_made_in_its_place():
    for module, places in tomllib.loads(MUTATE["EQUIVALENT"].read_text()).items():
        made = {(m.inside, m.change) for m in MUTATE["mutants_of"](module, MUTATE["source_of"](module).read_text())}
        listed = {(inside, change) for inside, reasons in places.items() for change in reasons}
        assert listed <= made
        assert all(reason for reasons in places.values() for reason in reasons.values())


def test_each_mutant_is_the_source_with_one_change_and_the_source_is_left_as_it_was():
    before = ast.unparse(ast.parse(SOURCE))
    for mutant in MUTATE["mutants_of"]("m", SOURCE):
        assert mutant.source != before
        ast.parse(mutant.source)
        different = [a for a, b in zip(mutant.source.splitlines(), before.splitlines(), strict=False) if a != b]
        assert len(different) == 1, mutant.change


def test_the_same_seed_draws_the_same_mutants_in_the_order_of_the_text():
    mutants = MUTATE["mutants_of"]("m", SOURCE)
    drawn = MUTATE["drawn"]

    assert drawn(mutants, 5, 0) == drawn(mutants, 5, 0)
    assert drawn(mutants, 5, 0) != drawn(mutants, 5, 1)
    assert [m.line for m in drawn(mutants, 5, 0)] == sorted(m.line for m in drawn(mutants, 5, 0))
    assert len(drawn(mutants, 500, 0)) == len(mutants)


@pytest.mark.parametrize("module", MUTATE["CORE"])
def test_every_module_of_the_core_is_there_and_has_tests_that_mirror_it(module):
    assert MUTATE["source_of"](module).exists()
    assert MUTATE["tests_of"](module)


def test_a_module_that_decodes_is_held_to_the_suite_over_all_decoders_after_its_own_tests():
    mirror, decoders, others = MUTATE["tests_of"]("hedgerow.client.slots")

    assert mirror == [str(ROOT / "tests" / "client" / "test_slots.py")]
    assert decoders == [str(ROOT / "tests" / "root" / "test_decoders.py")]
    assert mirror[0] not in others
    assert str(ROOT / "tests" / "client" / "test_install.py") in others
    assert len(MUTATE["tests_of"]("hedgerow.partition")) == 2


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", ["hedgerow.partition", "hedgerow.fleet.rollout.gates", "hedgerow.client.slots"])
def test_a_twentieth_of_the_mutants_is_noticed(module):
    command = [sys.executable, TOOL, module, "--share", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)["modules"]
    assert (row["mutants"], row["survivors"]) == (1, [])
