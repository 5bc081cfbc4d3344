"""What is wrong with a task, as far as it can be told without running a line of it. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hedgerow.manifest.release import MODEL_NAME
from hedgerow.outputs import Output, Outputs
from hedgerow.outputs.outputs import MOST_OUTPUTS, OUTPUT_FEATURES
from hedgerow.outputs.records import weight_mistakes
from hedgerow.outputs.wanted import LABELS, TARGET_VALUES
from hedgerow.schema import TENSOR_NAME, TensorSpec
from hedgerow.state import next_name, state_mistakes

if TYPE_CHECKING:
    from hedgerow.task import Task

__all__ = ["outputs_mistakes", "task_mistakes"]

_TAKEN = {
    OUTPUT_FEATURES: "features of outputs are",
    LABELS: "target values are in files of samples",
    TARGET_VALUES: "target values are in files of samples",
}
"""Names that no input may have, and what is called so."""
_CALLED = {
    "model": "a function that makes a module, such as lambda: nn.Linear(4, 2)",
    "data": "a function that returns a TaskData, such as lambda: TaskData(train, held_out)",
    "preprocess": "a torch function of the inputs",
    "student": "a function that makes a module",
}
"""Fields that are called -> what they must be."""


def outputs_mistakes(outputs: Outputs) -> list[str]:
    """Return one sentence for everything that is wrong with the outputs of a task."""
    if not outputs or len(outputs) > MOST_OUTPUTS:
        return [f"it needs one to {MOST_OUTPUTS} outputs, found {len(outputs)}"]
    found = [
        f"the output {name!r} must be an output, such as Classes([...]), found {type(output).__name__}"
        for name, output in outputs.items()
        if not isinstance(output, Output)
    ]
    if found:
        return found
    for name, output in outputs.items():
        told = f"the output {name!r}: " if len(outputs) > 1 else "its output: "
        found.extend(told + mistake for mistake in [*output.mistakes(), *weight_mistakes(output)])
        if not isinstance(name, str) or not TENSOR_NAME.fullmatch(name):
            found.append(f"the name {name!r} of an output is not like {TENSOR_NAME.pattern}")
    return found


def task_mistakes(task: "Task") -> list[str]:
    """Return one sentence for everything that is wrong with a task beside its outputs, which may be wrong too."""
    found = []
    if not isinstance(task.name, str) or not MODEL_NAME.fullmatch(task.name):
        found.append(f"the name {task.name!r} is not like {MODEL_NAME.pattern}")
    outputs = tuple(task.outputs) if isinstance(task.outputs, Outputs) else ()
    found += _input_mistakes(task, outputs)
    for attribute in ("model", "data", "preprocess", "student"):
        value = getattr(task, attribute)
        if attribute in {"preprocess", "student"} and value is None:
            continue
        # A module can be called, too; torch is not imported here.
        is_module = attribute in {"model", "student"} and hasattr(type(value), "state_dict")
        if not callable(value) or is_module:
            told = f"a {type(value).__name__} that is made already" if is_module else type(value).__name__
            found.append(f"{attribute} must be {_CALLED[attribute]}, found {told}")
    subgroup: object = task.subgroup
    if subgroup is not None and not isinstance(subgroup, str):
        found.append(f"subgroup must be the name of a column of the data, found {subgroup!r}")
    return found + _metric_mistakes(task)


def _metric_mistakes(task: "Task") -> list[str]:
    found = [f"the metric {name!r} is not callable" for name, metric in task.metrics.items() if not callable(metric)]
    kept = {"loss", *(outputs.score_key for outputs in [task.outputs] if isinstance(outputs, Outputs))}
    found.extend(
        f"a metric must not be called {name!r}, which is measured of every task; call it otherwise"
        for name in task.metrics
        if not isinstance(name, str) or name in kept or name.startswith("baseline_")
    )
    return found


def _input_mistakes(task: "Task", outputs: Sequence[str]) -> list[str]:
    found = [] if task.inputs else ["it has no inputs"]
    specs = [spec for spec in task.inputs if isinstance(spec, TensorSpec)]
    for spec in task.inputs:
        found.extend(spec.mistakes() if isinstance(spec, TensorSpec) else [f"the input {spec!r} is no TensorSpec"])
    if task.preprocess is None:
        found.extend(
            f"{spec.name} may be missing: write a preprocess that says what the model gets instead of NaN, such as "
            "torch.where(torch.isnan(x), 0.0, x)"
            for spec in specs
            if spec.missing is True
        )
    names = [spec.name for spec in specs]
    found.extend(f"the input {name!r} occurs twice" for name in sorted({n for n in names if names.count(n) > 1}))
    found.extend(_state_mistakes(task, [*names, *outputs]))
    found.extend(
        f"the name {name!r} of an output is an input's already; name one of them otherwise"
        for name in outputs
        if name in names
    )
    found.extend(f"an input must not be called {name!r}, as {what}" for name, what in _TAKEN.items() if name in names)
    return found


def _state_mistakes(task: "Task", names: Sequence[str]) -> list[str]:
    if found := state_mistakes(task.state):
        return found
    for name, state in task.state.items():
        for end in (TensorSpec(name, state.shape), TensorSpec(next_name(name), state.shape)):
            found.extend(f"the state {name!r}: {mistake}" for mistake in end.mistakes())
    taken = list(names)
    for name in (*task.state, *map(next_name, task.state)):
        if name in taken:
            found.append(f"the name {name!r} of a state is taken already; name it otherwise")
        taken.append(name)
    return found
