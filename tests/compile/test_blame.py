import pytest

from hedgerow.compile.blame import blamed
from hedgerow.compile.errors import InternalError
from hedgerow.compile.profile.memory import peak_bytes
from hedgerow.errors import TaskError

TASK = "task.py:task"
USER = """
import json

def metric(*arguments):
    return [][0]

def careless(call):
    return call(None)

def parse():
    return json.loads("{")
"""


@pytest.fixture
def user(tmp_path):
    """A module of a user, compiled under a path of its own."""
    names = {"__name__": "users_task"}
    exec(compile(USER, str(tmp_path / "task.py"), "exec"), names)  # noqa: S102 - what a task's module is
    return names


def caught(call) -> Exception:
    try:
        call()
    except Exception as exc:  # noqa: BLE001 - whatever it is
        return exc
    raise AssertionError("nothing was raised")


def test_what_a_users_function_raises_is_the_tasks_with_its_place(user, tmp_path):
    error = blamed("compiling the reference", caught(user["metric"]), TASK)
    assert type(error) is TaskError
    assert f"metric() in {tmp_path / 'task.py'}, line 5, raised IndexError in compiling the reference" in str(error)


def test_what_a_library_raises_for_the_users_call_is_the_tasks(user):
    assert type(blamed("compiling", caught(user["parse"]), TASK)) is TaskError


def test_what_our_code_raises_is_ours_even_where_the_user_called_it(user):
    raised = caught(lambda: user["careless"](peak_bytes))
    error = blamed("compiling x86-gateway by onnx-float", raised, TASK)
    assert type(error) is InternalError
    assert error.step == "compiling x86-gateway by onnx-float"
    assert error.cause.startswith("TypeError: ")
    assert error.details.startswith("Traceback")
    assert "peak_bytes" in error.details
