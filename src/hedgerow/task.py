"""A task: what is learned. The one object a user writes.

It names the inputs and the outputs, makes the model, says where data comes from, and leaves everything else to
defaults that suit the outputs. Building one runs no code of yours and checks what can be checked without it;
``hedgerow task check`` (``hedgerow.server.check``) checks the rest before any work starts.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hedgerow.blame import line_of
from hedgerow.errors import ExtraNotInstalledError, HedgerowError, InputError, TaskError
from hedgerow.field_types import number_mistakes
from hedgerow.installation import extra_of, is_installed
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Output, Outputs
from hedgerow.outputs.losses import loss_mistakes
from hedgerow.outputs.outputs import Arrays
from hedgerow.partition import Partition
from hedgerow.schema import TensorSpec
from hedgerow.state import State, next_name
from hedgerow.task_mistakes import outputs_mistakes, task_mistakes
from hedgerow.user_files import import_file

if TYPE_CHECKING:
    import torch

__all__ = [
    "Dataset",
    "LocalTraining",
    "Task",
    "TaskData",
    "load_attribute",
    "load_task",
]

POSTPROCESSES = ("softmax", "none")
_LEAST_SEQUENCES = 8


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples with what a model should give for them; for a task with state a sample is a sequence of steps.

    Attributes:
        inputs: Input name -> array of shape ``(n, *shape)``, as in the task's inputs; with state
            ``(n, steps, *shape)``.
        target_values: What each sample should give, in the form that the task's output has: ``int64[n]`` for classes.
            With several outputs a mapping of their names to such arrays; with state ``(n, steps, ...)``. None where
            nothing is known, which suits an output that learns from inputs alone.
        columns: Further facts of each sample that are not inputs, such as a subgroup; name -> ``array[n]``.
    """

    inputs: Mapping[str, NDArray[Any]]
    target_values: NDArray[Any] | Arrays | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()), ()))

    def take(self, indices: NDArray[np.int64] | Sequence[int]) -> "Dataset":
        """Return the samples at *indices*, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Dataset(
            {name: values[chosen] for name, values in self.inputs.items()},
            _taken(self.target_values, chosen),
            {name: values[chosen] for name, values in self.columns.items()},
        )


def _taken(values: NDArray[Any] | Arrays | None, chosen: NDArray[np.int64]) -> NDArray[Any] | Arrays | None:
    if values is None:
        return None
    return {name: part[chosen] for name, part in values.items()} if isinstance(values, Mapping) else values[chosen]


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's data on the training side.

    Attributes:
        train: Cut into clients' shards for the first training; the reference of drift is built from its inputs.
        held_out: Never trained on; every score is measured here.
        calibration: What quantizers see; None: see :meth:`Task.calibration`.
    """

    train: Dataset
    held_out: Dataset
    calibration: Dataset | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTraining:
    """What a client does in one round: plain SGD, which the train graph holds.

    Attributes:
        learning_rate: Step size.
        batch_size: Samples a step; also the train graph's static batch.
        epochs: Passes over the client's data.
    """

    learning_rate: float = 0.1
    batch_size: int = 16
    epochs: int = 1

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong."""
        return [
            *number_mistakes("local: learning_rate", self.learning_rate, above=0, below=1000),
            *number_mistakes("local: batch_size", self.batch_size, least=1, most=65536, whole=True),
            *number_mistakes("local: epochs", self.epochs, least=1, most=1000, whole=True),
        ]


Loss = Callable[[Any, Any], "torch.Tensor"]
Metric = Callable[[Any, Any], float]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned.

    Attributes:
        name: Lower-case name; the default name of its releases.
        inputs: The tensors a caller gives, in the order in which *preprocess* takes them.
        outputs: What the model gives: one output, such as ``Values("level", tolerance=0.1)``, or several by name.
            Inside it is always the latter.
        labels: Class names; short for ``outputs=Classes(labels)``.
        model: Makes a new ``torch.nn.Module`` that maps pre-processed inputs to what the output asks for, before its
            activation: logits ``(batch, classes)`` for classes. With several outputs it returns a tuple, in their
            order. With *state* it takes the state after them, in its order, and returns ``(given, *new state)``.
        data: Returns the data; called once.
        preprocess: Torch function from the input tensors to the model's argument (or tuple of arguments). It is traced
            into every artifact and train graph. None: the inputs are the arguments.
        postprocess: With *labels*: ``softmax`` or ``none``, what turns logits into probabilities inside the artifact.
        loss: The name of a loss of :mod:`hedgerow.outputs.losses` that fits the output, a torch function
            ``(given, target values) -> scalar`` that can be traced, or with several outputs a mapping of their names to
            either. None: each output's own.
        metrics: Name -> function of (answers, target values), each an array, or with several outputs a mapping; the
            mean score is always there.
        local: What a client does in one round.
        partition: How *data().train* is cut into clients' shards.
        subgroup: Name of a column in the data; metrics are then shown for each of its values too.
        student: Makes a smaller model with the same arguments and outputs, for recipes that distill. None: there is
            none, and such recipes are refused.
        state: Name -> what the model keeps from one prediction to the next, zero at the start of a stream. Data are
            then sequences of one length, each with a target value for each step; the state runs through a sequence and
            begins anew with the next.
    """

    name: str
    inputs: Sequence[TensorSpec]
    model: "Callable[[], torch.nn.Module]"
    data: Callable[[], TaskData]
    outputs: Output | Mapping[str, Output] | None = None
    labels: Sequence[str] = ()
    preprocess: Callable[..., Any] | None = None
    postprocess: str = "softmax"
    loss: str | Loss | Mapping[str, str | Loss] | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    local: LocalTraining = LocalTraining()
    partition: Partition = Partition()
    subgroup: str | None = None
    student: "Callable[[], torch.nn.Module] | None" = None
    state: Mapping[str, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mistakes = self._type_mistakes()
        if not mistakes:
            object.__setattr__(self, "inputs", tuple(self.inputs))
            mistakes = [*self._output_mistakes(), *task_mistakes(self), *self.local.mistakes()]
            mistakes += self.partition.mistakes()
        if mistakes:
            raise TaskError(repr(self.name), mistakes)

    def _output_mistakes(self) -> list[str]:
        """Bring the outputs into one form; return what is wrong with them."""
        if self.outputs is None and not len(self.labels):
            return ['it needs outputs, such as outputs=Values("level", tolerance=0.1), or labels, the names of classes']
        # dataclasses.replace gives the labels and what was made of them.
        is_made = isinstance(self.outputs, Outputs) and isinstance(self.outputs.alone, Classes)
        if self.outputs is not None and len(self.labels) and not is_made:
            return ["it has outputs and labels; labels are short for outputs=Classes(labels), so leave one out"]
        wrong = f"the postprocess {self.postprocess!r} is none of {', '.join(POSTPROCESSES)}"
        before = [wrong] if self.postprocess not in POSTPROCESSES else []
        given = Classes(tuple(self.labels), self.postprocess == "softmax") if len(self.labels) else self.outputs
        outputs = Outputs.of(cast("Output | Mapping[str, Output]", given))
        if not (found := outputs_mistakes(outputs)):
            object.__setattr__(self, "outputs", outputs)
        is_told = all(isinstance(output, Output) for output in outputs.values())
        return [*before, *found, *(loss_mistakes(outputs, self.loss) if is_told else [])]

    def _type_mistakes(self) -> list[str]:
        wanted: dict[str, tuple[Any, str]] = {
            "inputs": (Sequence, "a sequence, such as (TensorSpec(...),)"),
            "outputs": (
                (Output, Mapping, type(None)),
                'one output, such as Values("level", tolerance=0.1), or a mapping of names to outputs',
            ),
            "labels": (Sequence, "a sequence of class names"),
            "metrics": (Mapping, "a mapping of names to functions"),
            "state": (Mapping, 'a mapping of names to State, such as {"h": State((2, 1, 128))}'),
            "local": (LocalTraining, "a LocalTraining"),
            "partition": (Partition, 'a Partition, such as Partition("dirichlet", alpha=0.5)'),
        }
        return [
            f"{name} must be {what}, found {type(getattr(self, name)).__name__}"
            for name, (kind, what) in wanted.items()
            # Text is a sequence, of letters.
            if not isinstance(getattr(self, name), kind) or isinstance(getattr(self, name), str | bytes)
        ]

    @property
    def answers(self) -> Outputs:
        """The outputs by their names."""
        return cast("Outputs", self.outputs)

    @property
    def schema(self) -> ModelSchema:
        """Inputs as given, then the state; the outputs, then the new state."""
        taken = [
            TensorSpec(name, state.shape, unit=f"state: zero at the start, then {next_name(name)} of the call before")
            for name, state in self.state.items()
        ]
        given = [TensorSpec(next_name(name), state.shape, unit="state") for name, state in self.state.items()]
        pairs = {name: next_name(name) for name in self.state}
        return ModelSchema((*self.inputs, *taken), (*self.answers.tensors(), *given), self.answers, pairs)

    def wanted(self, dataset: Dataset) -> dict[str, NDArray[Any]]:
        """Return the target values of a data set by the names of the outputs."""
        rows, values = len(dataset), dataset.target_values
        if not self.state:
            return self.answers.named(values, rows)
        leading = np.shape(next(iter(dataset.inputs.values()), ()))[:2]
        found = self.answers.named(values, math.prod(leading))
        given = values if isinstance(values, Mapping) else {} if values is None else found
        return {
            name: array if name in given else array.reshape(*leading, *array.shape[1:]) for name, array in found.items()
        }

    def strata(self, dataset: Dataset) -> NDArray[np.int64] | None:
        """Return a class of each sample by which data can be cut into unlike shards; of a sequence its last step's."""
        wanted = self.wanted(dataset)
        return self.answers.strata({name: values[:, -1] for name, values in wanted.items()} if self.state else wanted)

    def strata_or_count(self, dataset: Dataset) -> NDArray[np.int64] | int:
        """Return what a partition cuts by: :meth:`strata`, or where there are none the number of samples."""
        strata = self.strata(dataset)
        return len(dataset) if strata is None else strata

    def calibration(self, data: TaskData) -> Dataset:
        """Return what quantizers see: what *data* says, or some of what is trained on.

        That is 256 samples, or as many sequences as hold 256 steps, but at least 8. They are spread evenly: data are
        often in an order, by class or by machine, and the first of them would show quantizers a part of the world.
        """
        if data.calibration is not None:
            return data.calibration
        count = 256
        if self.state:
            steps = next(iter(data.train.inputs.values())).shape[1]
            count = max(_LEAST_SEQUENCES, count // max(1, steps))
        count = min(count, len(data.train))
        return data.train.take(np.linspace(0, len(data.train) - 1, count).astype(np.int64))

    def measure(self, given: Arrays, wanted: Arrays, outputs: Outputs | None = None) -> dict[str, float]:
        """Return the mean score, where target values are known, and each metric of the user's.

        They get copies, so that none changes what is measured or trained on after it.

        Args:
            given: Answers by output, ``(n, *shape)``; with state ``(n, steps, *shape)``, of which each step counts as
                a sample.
            wanted: Target values, likewise.
            outputs: The task's own with what was measured of the float model (:meth:`Outputs.measured`); without it
                an output that needs this gives no score.

        Raises:
            InputError: A metric gives something else than one number.
        """
        given, wanted = self.rows(given), self.rows(wanted)
        outputs = self.answers if outputs is None else outputs
        known = outputs.known(wanted)
        found = {}
        if known.any():
            scores = outputs.scores(_chosen(given, known), _chosen(wanted, known))
            found[outputs.score_key] = float(scores.mean())
        for name, metric in self.metrics.items():
            parts = ({n: np.array(values) for n, values in arrays.items()} for arrays in (given, wanted))
            value = metric(*(part if len(part) > 1 else next(iter(part.values())) for part in parts))
            if np.ndim(value):
                raise InputError(f"expected one number, found an array of the shape {np.shape(value)}; return its mean")
            found[name] = float(value)
        return found

    def rows(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Return arrays of which each row is a sample: with state each step of each sequence."""
        if not self.state:
            return dict(arrays)
        return {name: values.reshape(-1, *values.shape[2:]) for name, values in arrays.items()}

    def data_mistakes(self, data: object) -> list[str]:
        """Return one sentence for everything that is wrong with *data* under this task."""
        from hedgerow.data_mistakes import data_mistakes

        return data_mistakes(self, data)

    def load_data(self) -> TaskData:
        """Call *data* and check what it returns.

        Raises:
            TaskError: The data does not fit the task.
        """
        data = self.data()
        mistakes = self.data_mistakes(data)
        if mistakes:
            raise TaskError(repr(self.name), mistakes)
        return data


def _chosen(arrays: Arrays, chosen: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    return {name: values[chosen] for name, values in arrays.items()}


def load_attribute(reference: str) -> Any:
    """Import what ``module:attribute`` or ``file.py:attribute`` names.

    Raises:
        TaskError: It is not of that form, cannot be imported, or has no such attribute.
    """
    place, separator, attribute = reference.rpartition(":")
    if not separator or not place or not attribute:
        raise TaskError(
            repr(reference), ["expected module:attribute or file.py:attribute, such as examples/digits/task.py:task"]
        )
    try:
        module = import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (TaskError, ExtraNotInstalledError):
        raise
    except ModuleNotFoundError as exc:
        raise _missing(reference, place, exc) from exc
    # Importing runs the user's code, which may raise anything; the report must name it all the same.
    except (Exception, SystemExit) as exc:
        raised = " ".join(f"{type(exc).__name__}: {exc}".split())
        # One of ours says already what to do.
        advice = "" if isinstance(exc, HedgerowError) else f"{line_of(exc)}; correct it or the reference"
        raise TaskError(repr(reference), [f"importing {place} raised {raised}{advice}"]) from exc
    return _attribute(reference, module, place, attribute)


def _attribute(reference: str, module: Any, place: str, attribute: str) -> Any:
    try:
        # Entry points may name what is inside a class.
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        names = sorted(name for name in vars(module) if not name.startswith("_"))
        raise TaskError(repr(reference), [f"{place} has no {attribute!r}; it has {', '.join(names[:20])}"]) from None
    except ModuleNotFoundError as exc:
        raise _missing(reference, place, exc) from exc
    # A module may make its attributes on use, by code that may raise anything.
    except (Exception, SystemExit) as exc:
        raised = " ".join(f"{type(exc).__name__}: {exc}".split())
        said = f"taking {attribute!r} from {place} raised {raised}; correct it or the reference"
        raise TaskError(repr(reference), [said]) from exc


def _missing(reference: str, place: str, exc: ModuleNotFoundError) -> TaskError | ExtraNotInstalledError:
    """Return what to say of a module that is absent; one that an extra of ours brings is no mistake of the user's."""
    if exc.name is not None and exc.name == place.partition(".")[0]:
        return TaskError(repr(reference), [f"{exc}; correct the reference"])
    extra = extra_of(exc.name)
    if extra is not None and not is_installed(str(exc.name)):
        return ExtraNotInstalledError(repr(reference), extra, exc.name)
    return TaskError(
        repr(reference),
        [f"importing {place} asks for a module that is absent ({exc}); install it or correct the import"],
    )


def load_task(reference: str) -> Task:
    """Import a task.

    Args:
        reference: ``module:attribute`` or ``file.py:attribute``.

    Raises:
        TaskError: It cannot be imported, or is no :class:`Task`.
    """
    task = load_attribute(reference)
    if not isinstance(task, Task):
        raise TaskError(repr(reference), [f"expected a hedgerow.Task, found {type(task).__name__}"])
    return task
