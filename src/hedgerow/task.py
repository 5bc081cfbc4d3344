"""A task: what is learned. The one object a user writes.

It names the inputs and the classes, makes the model, says where data comes from, and leaves everything else to
defaults that suit a classifier. Building one runs no code of yours and checks what can be checked without it;
``hedgerow task check`` (``hedgerow.server.check``) checks the rest before any work starts.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import ExtraNotInstalledError, HedgerowError, TaskError
from hedgerow.features import predicted_classes
from hedgerow.installation import extra_of, is_installed
from hedgerow.manifest.release import MODEL_NAME
from hedgerow.partition import Partition
from hedgerow.schema import ModelSchema, TensorSpec
from hedgerow.state import State, next_name, state_mistakes
from hedgerow.user_files import import_file

if TYPE_CHECKING:
    import torch

__all__ = [
    "Dataset",
    "LocalTraining",
    "Task",
    "TaskData",
    "accuracy",
    "load_attribute",
    "load_task",
]

LOSSES = ("bce", "cross_entropy", "mse")
POSTPROCESSES = ("softmax", "none")
_LEAST_SEQUENCES = 8
_PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled samples; for a task with state a sample is a sequence of steps.

    Attributes:
        inputs: Input name -> array of shape ``(n, *shape)``, as in the task's inputs; with state
            ``(n, steps, *shape)``.
        labels: Class of each sample, ``int64[n]``; with state of each step, ``int64[n, steps]``.
        columns: Further facts of each sample that are not inputs, such as a subgroup; name -> ``array[n]``.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def last_labels(self) -> NDArray[np.int64]:
        """One class for each sample: that of a sequence is its last step's."""
        return self.labels if self.labels.ndim < 2 else self.labels[:, -1]

    def take(self, indices: NDArray[np.int64] | Sequence[int]) -> "Dataset":
        """Return the samples at *indices*, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Dataset(
            {name: values[chosen] for name, values in self.inputs.items()},
            self.labels[chosen],
            {name: values[chosen] for name, values in self.columns.items()},
        )


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's data on the training side.

    Attributes:
        train: Cut into clients' shards for the first training; the reference of drift is built from its inputs.
        held_out: Never trained on; every accuracy is measured here.
        calibration: What quantizers see; None: the first 256 samples of *train*, or as many sequences as hold 256
            steps, but at least 8.
    """

    train: Dataset
    held_out: Dataset
    calibration: Dataset | None = None

    def calibration_or_default(self) -> Dataset:
        """Return the calibration data."""
        if self.calibration is not None:
            return self.calibration
        count = 256
        if self.train.labels.ndim == 2:
            count = max(_LEAST_SEQUENCES, count // max(1, self.train.labels.shape[1]))
        return self.train.take(np.arange(min(count, len(self.train))))


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
        found = []
        if not 0 < self.learning_rate < 1000:
            found.append(f"local: learning_rate must lie between 0 and 1000, not {self.learning_rate}")
        if not 1 <= self.batch_size <= 65536:
            found.append(f"local: batch_size must lie between 1 and 65536, not {self.batch_size}")
        if not 1 <= self.epochs <= 1000:
            found.append(f"local: epochs must lie between 1 and 1000, not {self.epochs}")
        return found


def accuracy(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Return the share of samples whose most probable class is the label; what is not finite is right nowhere.

    Args:
        probabilities: ``(n, classes)``.
        labels: ``int64[n]``.
    """
    return float((predicted_classes(probabilities) == labels).mean())


Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
Metric = Callable[[NDArray[Any], NDArray[np.int64]], float]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned.

    Attributes:
        name: Lower-case name; the default name of its releases.
        inputs: The tensors a caller gives, in the order in which *preprocess* takes them.
        labels: Class names; the position is the class index.
        model: Makes a new ``torch.nn.Module`` that maps pre-processed inputs to logits ``(batch, classes)``. With
            *state* it takes the state after them, in its order, and returns ``(logits, *new state)``.
        data: Returns the data; called once.
        preprocess: Torch function from the input tensors to the model's argument (or tuple of arguments). It is traced
            into every artifact and train graph. None: the inputs are the arguments.
        postprocess: ``softmax`` or ``none``: what turns logits into the output ``probabilities``, inside the artifact.
        loss: ``cross_entropy``; ``bce`` or ``mse``, binary cross-entropy or squared error of each logit against one for
            its class and zero else, the mean over all; or a torch function ``(logits, labels) -> scalar`` that can be
            traced.
        metrics: Name -> function of (probabilities, labels); ``accuracy`` is always there.
        local: What a client does in one round.
        partition: How *data().train* is cut into clients' shards.
        subgroup: Name of a column in the data; metrics are then shown for each of its values too.
        student: Makes a smaller model with the same arguments and outputs, for recipes that distill. None: there is
            none, and such recipes are refused.
        state: Name -> what the model keeps from one prediction to the next, zero at the start of a stream. Data are
            then sequences of one length, each with a class for each step; the state runs through a sequence and begins
            anew with the next.
    """

    name: str
    inputs: Sequence[TensorSpec]
    labels: Sequence[str]
    model: "Callable[[], torch.nn.Module]"
    data: Callable[[], TaskData]
    preprocess: Callable[..., Any] | None = None
    postprocess: str = "softmax"
    loss: str | Loss = "cross_entropy"
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
            object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
            object.__setattr__(self, "metrics", {"accuracy": accuracy, **self.metrics})
            mistakes = self._mistakes()
        if mistakes:
            raise TaskError(repr(self.name), mistakes)

    def _type_mistakes(self) -> list[str]:
        wanted: dict[str, tuple[type, str]] = {
            "inputs": (Sequence, "a sequence, such as (TensorSpec(...),)"),
            "labels": (Sequence, "a sequence of class names"),
            "metrics": (Mapping, "a mapping of names to functions"),
            "state": (Mapping, 'a mapping of names to State, such as {"h": State((2, 1, 128))}'),
            "local": (LocalTraining, "a LocalTraining"),
            "partition": (Partition, 'a Partition, such as Partition("dirichlet", alpha=0.5)'),
        }
        return [
            f"{name} must be {what}, found {type(getattr(self, name)).__name__}"
            for name, (kind, what) in wanted.items()
            if not isinstance(getattr(self, name), kind)
        ]

    def _mistakes(self) -> list[str]:
        found = []
        if not isinstance(self.name, str) or not MODEL_NAME.fullmatch(self.name):
            found.append(f"the name {self.name!r} is not like {MODEL_NAME.pattern}")
        if not self.inputs:
            found.append("it has no inputs")
        for spec in self.inputs:
            found.extend(spec.mistakes() if isinstance(spec, TensorSpec) else [f"the input {spec!r} is no TensorSpec"])
        if self.preprocess is None:
            found.extend(
                f"{spec.name} may be missing: write a preprocess that says what the model gets instead of NaN, such as "
                "torch.where(torch.isnan(x), 0.0, x)"
                for spec in self.inputs
                if isinstance(spec, TensorSpec) and spec.missing
            )
        names = [spec.name for spec in self.inputs if isinstance(spec, TensorSpec)]
        found.extend(f"the input {name!r} occurs twice" for name in sorted({n for n in names if names.count(n) > 1}))
        found.extend(self._state_mistakes(names))
        if len(self.labels) < 2:
            found.append(f"it needs at least two labels, found {len(self.labels)}")
        if len(set(self.labels)) != len(self.labels):
            found.append("its labels repeat")
        for attribute in ("model", "data", "preprocess", "student"):
            value = getattr(self, attribute)
            if not callable(value) and not (attribute in {"preprocess", "student"} and value is None):
                found.append(f"{attribute} must be callable, found {type(value).__name__}")
        if not callable(self.loss) and self.loss not in LOSSES:
            found.append(f"the loss {self.loss!r} is none of {', '.join(LOSSES)} and not a function")
        if self.postprocess not in POSTPROCESSES:
            found.append(f"the postprocess {self.postprocess!r} is none of {', '.join(POSTPROCESSES)}")
        found.extend(f"the metric {name!r} is not callable" for name, m in self.metrics.items() if not callable(m))
        return found + self.local.mistakes() + self.partition.mistakes()

    def _state_mistakes(self, inputs: Sequence[str]) -> list[str]:
        if found := state_mistakes(self.state):
            return found
        for name, state in self.state.items():
            for end in (TensorSpec(name, state.shape), TensorSpec(next_name(name), state.shape)):
                found.extend(f"the state {name!r}: {mistake}" for mistake in end.mistakes())
        taken = [*inputs, _PROBABILITIES]
        for name in (*self.state, *map(next_name, self.state)):
            if name in taken:
                found.append(f"the name {name!r} of a state is taken already; name it otherwise")
            taken.append(name)
        return found

    @property
    def schema(self) -> ModelSchema:
        """Inputs as given, then the state; ``probabilities``, of one value for each label, then the new state."""
        top = 1.0 if self.postprocess == "softmax" else None
        bottom = 0.0 if self.postprocess == "softmax" else None
        output = TensorSpec(_PROBABILITIES, (len(self.labels),), "float32", minimum=bottom, maximum=top)
        taken = [
            TensorSpec(name, state.shape, unit=f"state: zero at the start, then {next_name(name)} of the call before")
            for name, state in self.state.items()
        ]
        given = [TensorSpec(next_name(name), state.shape, unit="state") for name, state in self.state.items()]
        pairs = {name: next_name(name) for name in self.state}
        return ModelSchema((*self.inputs, *taken), (output, *given), tuple(self.labels), pairs)

    def measure(self, probabilities: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, float]:
        """Return each metric; they get copies, so that none changes what is measured or trained on after it.

        Args:
            probabilities: ``(n, classes)``, or ``(n, steps, classes)``, of which each step counts as a sample.
            labels: ``int64[n]``, or ``int64[n, steps]``.
        """
        rows, classes = np.reshape(probabilities, (-1, np.shape(probabilities)[-1])), np.reshape(labels, -1)
        return {name: float(metric(np.array(rows), np.array(classes))) for name, metric in self.metrics.items()}

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
        advice = "" if isinstance(exc, HedgerowError) else "; correct it or the reference"
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
