"""Processes are started in hedgerow.children and nowhere else, so that none of them outlives who started it."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hedgerow"]["folders"]
HOME = ROOT / "src" / "hedgerow" / "children"
STARTERS = {
    *(f"os.{name}" for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "popen", "system")),
    *(f"subprocess.{name}" for name in ("Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput")),
    "pty.fork",
    "ProcessPoolExecutor",
}

WORDS = ("fork", "spawn", "subprocess", "multiprocessing", "popen", "os.system", "ProcessPool")


def starts(tree: ast.AST) -> list[str]:
    """Return what starts a process in a module; ``subprocess.run`` with a time limit is no child that stays."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in STARTERS:
            found.append(ast.unparse(node))
        runs = isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.run"
        if runs and "timeout" not in {keyword.arg for keyword in node.keywords}:
            found.append("subprocess.run without a time")
        # For what makes the main module of a parent known to its child, not for processes.
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("multiprocessing"):
            found += [alias.name for alias in node.names if alias.name not in {"process", "shared_memory", "spawn"}]
        if isinstance(node, ast.ImportFrom) and node.module in {"subprocess", "os"}:
            found += [alias.name for alias in node.names if f"{node.module}.{alias.name}" in STARTERS]
    return found


def test_what_starts_a_process_is_found():
    code = (
        "import os, subprocess\nfrom multiprocessing import Pool\nos.fork()\nsubprocess.Popen([])\nsubprocess.run([])"
    )
    assert sorted(starts(ast.parse(code))) == ["Pool", "os.fork", "subprocess.Popen", "subprocess.run without a time"]
    assert starts(ast.parse("subprocess.run([], timeout=5)")) == []


def test_processes_are_started_in_their_home_alone():
    found = {
        str(path.relative_to(ROOT)): started
        for folder in ("src", *FOLDERS)
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.is_relative_to(HOME)
        if any(word in (text := path.read_text()) for word in WORDS) and (started := starts(ast.parse(text)))
    }
    assert found == {}
