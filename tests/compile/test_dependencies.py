import subprocess
import sys

import pytest

from hedgerow.compile.dependencies import task_fingerprint, tool_versions
from hedgerow.errors import TaskError


@pytest.fixture
def task(tmp_path):
    (tmp_path / "task.py").write_text("from layers import x\ntask = 1\n")
    (tmp_path / "layers.py").write_text("x = 1\n")
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.py").write_text("")
    return tmp_path


def found(folder, attribute: str = "task") -> str:
    return task_fingerprint(f"{folder / 'task.py'}:{attribute}", [])


def test_every_source_beside_the_task_counts_and_nothing_else(task):
    before = found(task)
    (task / "out" / "other.py").write_text("changed")
    (task / "notes.txt").write_text("new")
    assert found(task) == before
    assert found(task, "other") != before
    for changed in (task / "layers.py", task / "nets" / "block.py"):
        changed.write_text("y = 2\n")
        assert found(task) != before
        before = found(task)


def test_named_data_files_count_without_running_the_task(task, monkeypatch):
    (task / "data").mkdir()
    (task / "data" / "a.bin").write_bytes(b"1")
    monkeypatch.setenv("SOME_DATA", str(task / "data"))
    (task / "task.py").write_text('DATA_FILES = ("$SOME_DATA", "b.bin")\nraise RuntimeError\n')
    before = found(task)
    (task / "data" / "a.bin").write_bytes(b"2")
    after = found(task)
    (task / "b.bin").write_bytes(b"3")
    assert len({before, after, found(task)}) == 3


def test_data_files_that_are_not_written_out_are_refused(task):
    (task / "task.py").write_text("DATA_FILES = [name for name in ()]\n")
    with pytest.raises(TaskError, match="DATA_FILES must be a written-out tuple of strings"):
        found(task)


def test_a_module_is_found_on_the_search_path_without_being_imported(task):
    (task / "pack").mkdir()
    (task / "pack" / "__init__.py").write_text("raise RuntimeError\n")
    (task / "pack" / "inner.py").write_text("")
    before = task_fingerprint("pack.inner:task", [str(task)])
    (task / "pack" / "inner.py").write_text("x = 1\n")
    assert task_fingerprint("pack.inner:task", [str(task)]) != before
    assert task_fingerprint("layers:x", [str(task)]) != task_fingerprint("layers:y", [str(task)])


def test_our_own_examples_are_found():
    assert task_fingerprint("hedgerow.examples.digits.task:task", sys.path) != ""


@pytest.mark.parametrize("reference", ["no_such_module_anywhere:task", "/nowhere/task.py:task"])
def test_a_task_that_is_not_there_is_one_sentence(reference):
    with pytest.raises(TaskError, match="there is no"):
        task_fingerprint(reference, [])


def test_versions_name_the_tools_and_the_hash_of_our_sources():
    versions = tool_versions()
    assert {"torch", "onnxruntime", "litert-torch", "coremltools", "hedgerow", "machine"} <= set(versions)
    assert len(versions["sources"]) == 64


def test_the_way_to_the_cache_imports_no_heavy_library():
    code = (
        "import sys; from hedgerow.compile.cli import compile_command; from hedgerow.compile.dependencies import *; "
        "tool_versions(); "
        "print(sorted({'torch', 'onnx', 'coremltools', 'fairlearn', 'litert_torch'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
