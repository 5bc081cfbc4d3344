"""Files of users are modules of their own, and so are the modules beside them."""

import sys

import pytest

from hedgerow.errors import TaskError
from hedgerow.task import load_attribute
from hedgerow.user_files import USER_MODULE, import_file


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(("one", "other"), [("my-r.py", "my_r.py"), ("t-1/m.py", "t_1/m.py"), ("a/b.py", "a_b.py")])
def test_two_files_are_two_modules(tmp_path, one, other):
    first, second = write(tmp_path / one, "X = 1\n"), write(tmp_path / other, "X = 2\n")

    assert (load_attribute(f"{first}:X"), load_attribute(f"{second}:X")) == (1, 2)
    assert import_file(first) is import_file(first)
    assert import_file(first).__name__.startswith(f"{USER_MODULE}{first.stem.replace('-', '_')}_")


def test_one_file_by_two_paths_is_one_module(tmp_path, monkeypatch):
    path = write(tmp_path / "m.py", "X = 1\n")
    monkeypatch.chdir(tmp_path)
    assert import_file(path) is import_file(path.relative_to(tmp_path))


FROM_HELPER = "from mend_helper import X\n"


def test_a_neighbour_of_another_file_is_not_taken_for_ones_own(tmp_path):
    first, second = write(tmp_path / "d3/rec.py", FROM_HELPER), write(tmp_path / "d4/rec.py", FROM_HELPER)
    write(tmp_path / "d3/mend_helper.py", "X = 3\n")
    write(tmp_path / "d4/mend_helper.py", "X = 4\n")

    assert load_attribute(f"{first}:X") == 3
    with pytest.raises(
        TaskError,
        match=r"'mend_helper' from .*d4/mend_helper.py, but a module of that name was already "
        r"imported from .*d3/mend_helper.py; rename one of the two",
    ):
        load_attribute(f"{second}:X")
    assert load_attribute(f"{first}:X") == 3


def test_a_neighbour_that_was_not_imported_yet_hides_none_either(tmp_path):
    first, second = write(tmp_path / "d3/rec.py", "X = 0\n"), write(tmp_path / "d4/rec.py", FROM_HELPER)
    write(tmp_path / "d3/mend_helper.py", "X = 3\n")
    write(tmp_path / "d4/mend_helper.py", "X = 4\n")

    assert load_attribute(f"{first}:X") == 0
    with pytest.raises(TaskError, match=r"a module of that name is found first in .*d3/mend_helper.py"):
        load_attribute(f"{second}:X")


def test_a_neighbour_of_a_neighbour_is_ones_own_too(tmp_path):
    for folder, value in (("d3", 3), ("d4", 4)):
        write(tmp_path / folder / "rec.py", f"from mend_step_{folder} import X\n")
        write(tmp_path / folder / f"mend_step_{folder}.py", "def late():\n    import mend_deep\nX = 1\n")
        write(tmp_path / folder / "mend_deep" / "__init__.py", f"X = {value}\n")

    assert load_attribute(f"{tmp_path}/d3/rec.py:X") == 1
    with pytest.raises(TaskError, match=r"'mend_deep' from .*d4/mend_deep/__init__.py"):
        load_attribute(f"{tmp_path}/d4/rec.py:X")


def test_neighbours_that_are_not_imported_may_share_a_name(tmp_path):
    for folder in ("d3", "d4"):
        write(tmp_path / folder / "rec.py", "import json\nX = json.dumps(1)\n")
        write(tmp_path / folder / "json.py", "1 / 0\n")
        write(tmp_path / folder / "mend_helper.py", "")

    assert load_attribute(f"{tmp_path}/d3/rec.py:X") == load_attribute(f"{tmp_path}/d4/rec.py:X") == "1"


@pytest.mark.parametrize("raised", ["KeyError('lazy')", "SystemExit(3)", "RuntimeError('lazy')"])
def test_an_attribute_that_is_made_on_use_may_raise_anything(tmp_path, raised):
    path = write(tmp_path / "lazy.py", f"def __getattr__(name):\n    raise {raised}\n")
    with pytest.raises(TaskError, match=rf"taking 'X' from .*lazy.py raised {raised.partition('(')[0]}"):
        load_attribute(f"{path}:X")
