"""Each task that docs/task.md shows is a whole file, without a mistake, and learns."""

import ast
import re
import runpy

import pytest

from hedgerow.outputs.records import KINDS
from tests.test_layout import ROOT

PAGE = (ROOT / "docs" / "task.md").read_text()
WORKED = re.search(r"^## A task of each kind\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = dict(re.findall(r"^### (.+?)\n.*?```python\n(.*?)```", WORKED[1] if WORKED else "", re.MULTILINE | re.DOTALL))
"""Heading -> the file below it."""


def test_every_kind_of_output_several_of_them_and_every_kind_of_input_has_a_worked_task():
    called = {
        heading: {
            node.func.id
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Call) and hasattr(node.func, "id")
        }
        for heading, code in SHOWN.items()
    }

    assert {kind.__name__ for kind in KINDS.values()} <= set.union(*called.values())
    assert {"Several outputs", "Categories, flags, counts and missing values"} <= set(SHOWN)
    assert len(SHOWN) == 8


def test_a_worked_task_takes_at_most_50_lines():
    assert [heading for heading, code in SHOWN.items() if len(code.splitlines()) > 50] == []


@pytest.mark.heavy
@pytest.mark.parametrize("heading", SHOWN)
def test_a_worked_task_has_no_mistake_and_nothing_that_surprises_and_learns(heading, tmp_path):
    from hedgerow.server.check import check_task
    from hedgerow.server.training import train_task

    (tmp_path / "task.py").write_text(SHOWN[heading])
    task = runpy.run_path(str(tmp_path / "task.py"))["task"]

    assert check_task(task, clients=4).warnings == ()

    metrics = train_task(task, tmp_path / "run", rounds=8, clients=4).checkpoint.metrics
    score, baseline = (metrics[f"{before}{task.answers.score_key}"] for before in ("", "baseline_"))
    assert score > baseline + 0.5 * (1 - baseline), metrics
