"""Change the pure core at random places, one change at a time, and count which changes the tests notice.

    python tools/mutate.py [MODULE...] [--count 30] [--seed 0] [--json] [--share 20]

For each module (the pure core when none is named) *count* mutants are drawn by the seed from all that there are. A
mutant is killed when a fast test fails or takes far longer than without it: first the test file that mirrors the
module, then the suite over all decoders where the module decodes, then the folder's others. Survivors are printed with
their place, and so are those killed by time alone, in each of two tries. Those in ``tools/equivalent_mutants.toml``
change nothing that could be seen, with the reason beside each, below the module and the function or class that they
stand in; they count as killed. Exits with 1 when fewer than 90 % of a module's mutants are. ``--share N`` draws a N-th
of each module's mutants, for continuous integration.

Each mutant runs in a process forked from one that has imported the libraries and none of Hedgerow.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tools" / "equivalent_mutants.toml"
DECODERS_SUITE = ROOT / "tests" / "root" / "test_decoders.py"
MINIMUM_SHARE = 0.9
_LONGEST_S = 900.0
FAST = "not heavy and not broker and not e2e"
PRELOADED = ("numpy", "hypothesis", "pytest", "click", "safetensors.numpy", "scipy.stats", "sqlite3", "fastapi")

CORE = (
    "hedgerow.fleet.rollout.rules",
    "hedgerow.fleet.rollout.executions",
    "hedgerow.fleet.rollout.gates",
    "hedgerow.fleet.rollout.confidence",
    "hedgerow.fleet.drift.findings",
    "hedgerow.fleet.drift.alerts",
    "hedgerow.client.slots",
    "hedgerow.client.agent_state",
    "hedgerow.client.agent_rules",
    "hedgerow.client.install_rules",
    "hedgerow.window",
    "hedgerow.wire.device",
    "hedgerow.wire.execution",
    "hedgerow.wire.message",
    "hedgerow.wire.telemetry",
    "hedgerow.wire.topics",
    "hedgerow.wire.training",
    "hedgerow.decode",
    "hedgerow.partition",
)

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_UNCHANGED = {"annotation", "returns", "decorator_list", "type_params", "bases"}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: Its import name.
        line: Where, from 1.
        inside: The function or class that it stands in, such as ``Slots.install``; empty: none.
        before: The changed expression or statement, as source.
        after: What stands there instead; empty: it is gone.
        source: The module's whole source with the change.
    """

    module: str
    line: int
    inside: str
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        """How it is named in the list of equivalent ones: what stands there, and what instead."""
        return f"{self.before} => {self.after}"


def _changes(node: ast.AST) -> Iterator[ast.AST | None]:
    """Yield what could stand instead of *node*; None: nothing."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for index, op in enumerate(ops):
                other = _COMPARISONS[type(op)]()
                yield ast.Compare(left, [*ops[:index], other, *ops[index + 1 :]], comparators)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            yield ast.BinOp(left, _ARITHMETIC[type(op)](), right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float() as value):
            yield ast.Constant(value * 2 if value else 1.0)
        case ast.Constant(value=str() as value):
            yield ast.Constant(f"{value}XX")
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test=test):
            yield ast.If(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.Name(id=name, ctx=ast.Load()) if name in _NAMES:
            yield ast.Name(_NAMES[name], ast.Load())
        case ast.Call(func=func, args=args, keywords=keywords):
            for index in range(len(keywords)):
                yield ast.Call(func, args, keywords[:index] + keywords[index + 1 :])
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete() | ast.Continue() | ast.Break():
            yield ast.Pass()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
    """Yield (parent, field, index in it, node, inside) of all that runs: no annotations, docstrings, exports."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        parent, inside = waiting.pop(0)
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{inside}.{parent.name}".lstrip(".")
        for name, value in ast.iter_fields(parent):
            if name in _UNCHANGED:
                continue
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(node, ast.AST) or _is_prose(node):
                    continue
                yield parent, name, index, node, inside
                waiting.append((node, inside))


def _is_prose(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.Assign(targets=[ast.Name()], value=ast.Call(func=ast.Name(id="TypeVar" | "NewType"))):
            return True
    return False


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a module's source, in the order of the text."""
    found = []
    tree = ast.parse(source)
    for parent, name, index, node, inside in _places(tree):
        for other in _changes(node):
            put = ast.copy_location(other, node) if isinstance(other, ast.AST) else ast.Pass()
            before, line = ast.unparse(node), getattr(node, "lineno", 0)
            _set(parent, name, index, put)
            try:
                changed = ast.unparse(ast.fix_missing_locations(tree))
            finally:
                _set(parent, name, index, node)
            after = ast.unparse(ast.fix_missing_locations(copy.deepcopy(put)))
            found.append(Mutant(module, line, inside, _short(before), _short(after), changed))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.change))


def _set(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def _short(text: str) -> str:
    lines = text.splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]} ..."


def drawn(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return *count* of a module's mutants, the same ones for the same seed, in the order of the text."""
    rng = random.Random(f"{seed}:{mutants[0].module}" if mutants else seed)
    chosen = rng.sample(range(len(mutants)), min(count, len(mutants)))
    return [mutants[index] for index in sorted(chosen)]


def source_of(module: str) -> Path:
    """Return the file of a module."""
    inner = module.removeprefix("hedgerow.").replace(".", "/") + ".py"
    place = ROOT / "src" / "hedgerow" / inner
    return place if place.exists() else ROOT / inner


def tests_of(module: str) -> list[list[str]]:
    """Return the tests that must notice a change: of its mirror, over all decoders, of the rest of its folder."""
    path = source_of(module)
    inside = path.relative_to(ROOT).parent
    if inside.parts[0] == "src":
        inside = Path("root", *inside.parts[2:])
    folder = ROOT / "tests" / inside
    mirror = folder / f"test_{path.stem}.py"
    decodes = DECODERS_SUITE.exists() and "Fields" in path.read_text()
    first = [mirror] * mirror.exists() + [DECODERS_SUITE] * decodes
    others = [str(other) for other in sorted(folder.rglob("test_*.py")) if other not in first]
    return [[str(file)] for file in first] + ([others] if others else [])


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module the mutant's source, under the file's own name."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant, self._path = mutant, source_of(mutant.module)

    def find_spec(self, name: str, _path: object, _target: object = None) -> Any:
        if name != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def create_module(self, _spec: object) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self._mutant.source, str(self._path), "exec"), module.__dict__)  # noqa: S102 - that is the job


class _Unshrunk:
    """Has Hypothesis shrink no example: that a test fails is enough, and a state machine shrinks for minutes."""

    def pytest_configure(self) -> None:
        """Keep what the tests' own settings say but the phases; it is called after those are loaded."""
        from hypothesis import Phase, settings

        settings.register_profile("mutants", phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target])
        settings.load_profile("mutants")


def _run_tests(mutant: Mutant | None, tests: Sequence[str]) -> int:
    """Run tests in this process; return pytest's status."""
    import pytest

    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    # Hypothesis was imported before pytest could rewrite its assertions, of which pytest warns.
    ignored = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    # Else pytest's own hook, which comes before ours, loads a module that is named like a test: two_sample_test.
    ignored += ["-o", "python_files=test_*.py"]
    options = ["-x", "-q", *ignored, "-p", "no:cacheprovider", "-p", "no:xdist", "-m", FAST, "--hypothesis-seed=0"]
    return int(pytest.main([*options, *tests], plugins=[_Unshrunk()]))


def run_forked(mutant: Mutant | None, tests: Sequence[str], timeout_s: float) -> str:
    """Run tests in a fork of this process; return ``passed``, ``failed`` or ``timed out``."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        # Tests of interrupts need what nohup takes away.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        status = 3
        with suppress(BaseException):
            status = _run_tests(mutant, tests)
        os._exit(status)
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "passed" if status == 0 else "failed"
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timed out"


def outcome_of(mutant: Mutant, groups: Sequence[Sequence[str]], limits_s: dict[int, float]) -> str:
    """Return ``passed`` when no group of tests notices a mutant, else how the first that does ended.

    How long each group takes without a mutant is measured when it is needed. What took too long is tried once more,
    for twice as long: a busy machine can do that to any mutant, an endless loop does it again.

    Raises:
        SystemExit: The tests fail without it.
    """
    for number, tests in enumerate(groups):
        if number not in limits_s:
            began = time.monotonic()
            if run_forked(None, tests, _LONGEST_S) != "passed":
                raise SystemExit(f"{mutant.module}: expected tests that pass without a mutant, found {' '.join(tests)}")
            limits_s[number] = 10.0 + 5 * (time.monotonic() - began)
        outcome = run_forked(mutant, tests, limits_s[number])
        if outcome == "timed out":
            outcome = run_forked(mutant, tests, 2 * limits_s[number])
        if outcome != "passed":
            return outcome
    return "passed"


def judge(module: str, mutants: Sequence[Mutant], equivalent: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Run each mutant; return the module's row of the report."""
    groups, limits_s = tests_of(module), dict[int, float]()
    survivors, slow, named = list[dict[str, Any]](), list[dict[str, Any]](), 0
    for number, mutant in enumerate(mutants, 1):
        if sys.stderr.isatty():
            print(f"\r{module}: {number} of {len(mutants)} ", end="", file=sys.stderr, flush=True)
        if mutant.change in equivalent.get(mutant.inside, {}):
            named += 1
            continue
        outcome = outcome_of(mutant, groups, limits_s)
        place = {"line": mutant.line, "inside": mutant.inside, "before": mutant.before, "after": mutant.after}
        if outcome == "passed":
            survivors.append(place)
        elif outcome == "timed out":
            slow.append(place)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    killed = len(mutants) - len(survivors) - named
    share = (killed + named) / max(1, len(mutants))
    return {
        "module": module,
        "mutants": len(mutants),
        "killed": killed,
        "equivalent": named,
        "share": round(share, 3),
        "survivors": survivors,
        "timed_out": slow,
    }


def main(arguments: Sequence[str]) -> int:
    """Print the report; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", default=CORE)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    for name in PRELOADED:
        importlib.import_module(name)
    equivalent = tomllib.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else {}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch
        sys.path.insert(0, str(ROOT))
        os.chdir(ROOT)
        for module in options.modules:
            mutants = mutants_of(module, source_of(module).read_text())
            chosen = drawn(mutants, max(1, options.count // options.share), options.seed)
            rows.append(judge(module, chosen, equivalent.get(module, {})))
            if not options.json:
                _show(rows[-1])
    if options.json:
        print(json.dumps({"seed": options.seed, "modules": rows}, indent=1))
    return 0 if all(row["share"] >= MINIMUM_SHARE for row in rows) else 1


def _show(row: dict[str, Any]) -> None:
    by_time = f" ({len(row['timed_out'])} by time alone)" if row["timed_out"] else ""
    print(f"{row['module']}: {row['killed']} of {row['mutants']} killed{by_time}, {row['equivalent']} equivalent")
    for said, places in (("", row["survivors"]), (" took too long", row["timed_out"])):
        for place in places:
            print(f"  line {place['line']}{said}: {place['before']}  =>  {place['after']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
