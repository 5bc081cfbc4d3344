"""Within the server's folder arrows go down: simulation, then grids and the cohort's engines, then a round's rules."""

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parents[2] / "server"


def imports(place: str) -> set[str]:
    """Return the modules that the files of *place*, a folder or one file, import."""
    path = SERVER / place
    found = set()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            # Plug-in tables name modules in strings.
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
                found.add(node.value.partition(":")[0])
    return found


@pytest.mark.parametrize(
    ("place", "forbidden"),
    [
        ("cohort", ("hedgerow.server.simulation", "hedgerow.server.grids", "hedgerow.server.client_app", "flwr")),
        ("grids", ("hedgerow.server.simulation", "hedgerow.server.training", "hedgerow.server.rounds")),
        ("client_app.py", ("hedgerow.server.simulation", "hedgerow.server.cohort", "hedgerow.server.grids")),
        ("rounds.py", ("hedgerow.server.simulation", "hedgerow.server.cohort")),
        ("training.py", ("hedgerow.server.simulation", "hedgerow.server.cohort")),
        ("local_steps.py", ("hedgerow.server.cohort", "hedgerow.server.grids", "hedgerow.server.simulation", "flwr")),
    ],
)
def test_nothing_below_knows_what_is_built_on_it(place, forbidden):
    wrong = {name for name in imports(place) if name.startswith(forbidden)}
    assert not wrong


def test_the_simulation_is_built_on_the_cohort():
    # What the test above looks for is there to be found.
    assert any(name.startswith("hedgerow.server.cohort") for name in imports("simulation"))
    assert any(name.startswith("hedgerow.server.grids") for name in imports("simulation"))
