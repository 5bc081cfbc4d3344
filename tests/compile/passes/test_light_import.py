"""The compiling parent stays light: making passes and recipes imports no converter, and a check would see it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = Path(__file__).parents[3] / "compile"
HEAVY = (
    *("ai_edge_litert", "ai_edge_quantizer", "coremltools", "flatbuffers", "jax", "litert_torch", "ml_dtypes"),
    *(
        "neural_compressor",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "scipy",
        "sklearn",
        "torch",
        "torch_pruning",
        "torchao",
    ),
)
LOADS = """
import importlib.util, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "hedgerow.compile", folder + "/__init__.py", submodule_search_locations=[folder]
)
module = importlib.util.module_from_spec(spec)
sys.modules["hedgerow.compile"] = module
spec.loader.exec_module(module)
from hedgerow.compile import cli, messages, recipe, recipes, session
from hedgerow.compile.passes import builtin
assert builtin.__file__.startswith(folder), builtin.__file__
for found in recipes.RECIPES.values():
    recipe.Recipe.to_record(found)
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


def loaded(folder: Path) -> str:
    """Return the heavy libraries that the parent's modules load from a copy of compile/."""
    command = [sys.executable, "-B", "-c", LOADS, str(folder), *HEAVY]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_passes_and_recipes_are_made_without_a_converter():
    assert loaded(COMPILE) == ""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("file", "library"),
    [("passes/onnx/trim.py", "onnx"), ("passes/model/fine_tune.py", "torch"), ("recipe.py", "flatbuffers")],
)
def test_one_import_at_the_top_of_a_pass_is_seen(file, library, tmp_path):
    pytest.importorskip(library)
    copy = tmp_path / "compile"
    shutil.copytree(COMPILE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / file
    path.write_text(
        path.read_text().replace("from dataclasses import", f"import {library}\nfrom dataclasses import", 1)
    )
    assert library in loaded(copy).split()
