"""What the one place where passes run lets through, and what it does not."""

import errno
import logging
import traceback
import warnings
import weakref
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError, UnsuitableError  # noqa: E402 - needs torch
from hedgerow.compile.pass_models import CompiledModel, FloatModel  # noqa: E402
from hedgerow.compile.passes.kinds import ExportPass, ModelPass  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass, tool_errors  # noqa: E402
from hedgerow.compile.passes.settings import check_names  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.task import Dataset, Task  # noqa: E402
from hedgerow.task_losses import loss_function  # noqa: E402

pytestmark = pytest.mark.heavy


@dataclass(frozen=True)
class Give(ExportPass):
    """Gives whatever it holds."""

    name, gives = "give", "onnx"
    made = None

    def apply(self, source):
        return self.made if source is None else None


class Learn(ModelPass):
    """Computes a loss as passes that train do."""

    name = "learn"

    def apply(self, source):
        loss_function(source.task)(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
        return source.model


def broken_loss(_logits, _labels):
    raise RuntimeError("a mistake in the task")


def source(**changes) -> FloatModel:
    task = Task(
        name="t",
        inputs=[TensorSpec("x", (2,), "float32")],
        labels=["a", "b"],
        model=torch.nn.Flatten,
        data=dict,
        **changes,
    )
    nothing = Dataset({}, torch.zeros(0, dtype=torch.int64).numpy())
    return FloatModel(task=task, model=torch.nn.Flatten(), calibration=nothing)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "give: .* it gave a NoneType and no file"),
        (b"bytes", "it gave a bytes and no file"),
        (
            CompiledModel(format="tflite", content=b"", inputs=(), outputs=()),
            "gives onnx files, and gave .* the format tflite",
        ),
    ],
)
def test_a_pass_that_gives_something_else_is_named(made, message, monkeypatch):
    monkeypatch.setattr(Give, "made", made)
    with pytest.raises(PassError, match=message):
        run_file_pass(Give(), None, None)


def test_a_model_pass_that_gives_no_model_is_named(monkeypatch):
    monkeypatch.setattr(Learn, "apply", lambda _self, _source: None)
    with pytest.raises(PassError, match=r"learn: .* it gave a NoneType and no torch model"):
        run_model_pass(Learn(), source())


def test_what_the_tasks_own_function_raises_stays_what_it_is():
    with pytest.raises(RuntimeError, match=r"a mistake in the task"):
        run_model_pass(Learn(), source(loss=broken_loss))


def test_what_a_library_makes_of_the_tasks_function_is_the_steps_error():
    with pytest.raises(PassError, match=r"step: .* RuntimeError: a mistake in the task"), tool_errors("step"):
        broken_loss(None, None)


def test_tools_are_silent_and_everything_is_as_before_afterwards(capfd, caplog):
    before = logging.root.manager.disable
    with tool_errors("step"):
        print("progress")  # noqa: T201
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        logging.getLogger("absl").warning("noise")
        logging.getLogger("absl").error("trouble")
    assert capfd.readouterr().out == ""
    assert [record.message for record in caplog.records] == ["trouble"]
    assert logging.root.manager.disable == before
    with pytest.warns(DeprecationWarning, match="deprecated"):
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_what_the_system_says_of_its_disk_stays_what_it_is(number):
    with pytest.raises(OSError, match=r"it says so") as caught, tool_errors("step"):
        raise OSError(number, "it says so")
    assert caught.value.errno == number


def test_a_file_that_a_library_misses_is_the_steps_error():
    with pytest.raises(PassError, match=r"step: .* FileNotFoundError"), tool_errors("step"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "Manifest.json")


def test_errors_of_our_own_tree_that_say_more_pass_and_unreadable_bytes_do_not():
    with pytest.raises(UnsuitableError), tool_errors("step"):
        raise UnsuitableError("inner", "a student", "none", "give one")
    with pytest.raises(PassError, match=r"^inner: "), tool_errors("step"):
        raise PassError("inner", "its own words")
    with pytest.raises(PassError, match=r"^step: .* onnx: expected a model, found noise"), tool_errors("step"):
        raise DecodeError("onnx", "a model", "noise")


def test_the_first_cause_is_told():
    failed = RuntimeError("export failed; see the report")
    failed.__cause__ = ValueError("the operator has no form here\nfurther lines")
    with pytest.raises(PassError, match=r"ValueError: the operator has no form here$"), tool_errors("step"):
        raise failed


def test_what_a_library_holds_when_it_fails_goes_before_its_error_does():
    gone = []

    def fail_inside():
        try:
            fail_with("held below")
        except ValueError as exc:
            raise RuntimeError("no form here") from exc

    def fail_with(name):
        held = Held(name)
        raise ValueError(f"no {held}")

    class Held:
        def __init__(self, name):
            weakref.finalize(self, gone.append, name)

    def fail_and_be_looked_at():
        try:
            fail_inside()
        except RuntimeError as exc:
            for one in (exc, exc.__cause__):
                assert [frame.f_locals for frame, _line in traceback.walk_tb(one.__traceback__)]
            raise

    for place, fail in enumerate((fail_inside, fail_and_be_looked_at), start=1):
        with pytest.raises(PassError) as caught, tool_errors("step"):
            fail()
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert gone == ["held below"] * place


def test_an_error_that_is_among_its_own_causes_ends():
    raised = RuntimeError("no")
    raised.__context__ = ValueError("first")
    raised.__context__.__context__ = raised
    with pytest.raises(PassError, match="RuntimeError: no"), tool_errors("step"):
        raise raised


def test_an_interrupt_is_no_error_of_a_step():
    with pytest.raises(KeyboardInterrupt), tool_errors("step"):
        raise KeyboardInterrupt


def test_a_package_that_is_absent_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("hedgerow.compile.passes.runner.is_installed", lambda _name: False)
    wanted = r"step: .* 'torch_pruning' is not installed; run: .*\[compile\]"
    with pytest.raises(PassError, match=wanted), tool_errors("step"):
        raise ModuleNotFoundError("No module named 'torch_pruning'", name="torch_pruning")
    with pytest.raises(PassError, match=r"step: .* No module named 'someones_package'$"), tool_errors("step"):
        raise ModuleNotFoundError("No module named 'someones_package'", name="someones_package")


def test_a_module_of_ours_that_is_absent_is_a_bug_of_ours():
    with pytest.raises(ModuleNotFoundError), tool_errors("step"):
        raise ModuleNotFoundError("No module named 'hedgerow.nothing'", name="hedgerow.nothing")


def test_a_mistake_in_a_line_of_ours_is_a_bug_of_ours():
    with pytest.raises(TypeError, match="not iterable"), tool_errors("step"):
        check_names("step", Give, 3)
