"""What a train graph holds beyond plain SGD, chosen when it is compiled. Needs no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from hedgerow.compile.errors import StepOptionError
from hedgerow.errors import UnknownNameError

__all__ = ["BATCH_NORMS", "OPTIMIZERS", "TARGETS", "StepOptions", "parse_step_options"]

OPTIMIZERS = ("sgd", "momentum", "adam")
BATCH_NORMS = ("frozen", "train")
TARGETS = ("classes", "values")
_YES_OR_NO = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How a train graph steps. The defaults are plain SGD on everything, with the checkpoint's statistics.

    Attributes:
        optimizer: ``sgd``, ``momentum`` or ``adam``, each as ``torch.optim`` has it.
        momentum: Of ``momentum``; 0.9 is usual.
        betas, epsilon: Of ``adam`` (Kingma and Ba 2015, arXiv 1412.6980).
        proximal: Add ``mu (w - anchor)`` to each gradient (FedProx: Li et al. 2020, arXiv 1812.06127); *mu* and the
            anchors are inputs.
        control_variates: Add an input of the parameter's shape to each gradient: the server's control variate minus
            the device's (SCAFFOLD: Karimireddy et al. 2020, arXiv 1910.06378).
        trainable: Patterns (as of ``fnmatch``) of the names of the parameters that train, such as ``head.*`` or
            ``*.lora_*``; None: all that require a gradient. With a choice, the graph gives back only what changes.
        batch_norm: ``frozen`` uses the running statistics and leaves them; ``train`` normalises with the batch's and
            moves the running ones.
        dropout: Drop; each mask is an input. Otherwise nothing is dropped.
        targets: What the target values are: ``classes``, the form that each output declares (an index for each sample,
            where it is classes), or ``values``, a float for each number that the model gives.
    """

    optimizer: str = "sgd"
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    proximal: bool = False
    control_variates: bool = False
    trainable: tuple[str, ...] | None = None
    batch_norm: str = "frozen"
    dropout: bool = False
    targets: str = "classes"

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("batch norm mode", self.batch_norm, BATCH_NORMS),
            ("kind of targets", self.targets, TARGETS),
        ):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        if not 0 <= self.momentum < 1:
            raise StepOptionError("momentum", "a number from 0 to below 1", str(self.momentum))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise StepOptionError("betas", "two numbers from 0 to below 1", str(self.betas))
        if not 0 < self.epsilon < 1:
            raise StepOptionError("epsilon", "a number between 0 and 1", str(self.epsilon))
        if self.trainable is not None and not all(
            pattern and "," not in pattern for pattern in self.trainable or ("",)
        ):
            raise StepOptionError("trainable", "patterns of names without commas, at least one", repr(self.trainable))

    def pairs(self) -> tuple[str, ...]:
        """Return what differs from the defaults, as :func:`parse_step_options` reads it."""
        plain = StepOptions()
        return tuple(
            f"{entry.name}={_written(value)}"
            for entry in fields(self)
            if (value := getattr(self, entry.name)) != getattr(plain, entry.name)
        )

    def trained(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return which of the parameters *names* train, in their order.

        Raises:
            UnknownNameError: A pattern matches none.
        """
        known = tuple(names)
        if self.trainable is None:
            return known
        for pattern in self.trainable:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise UnknownNameError("trainable parameter", pattern, known)
        return tuple(name for name in known if any(fnmatchcase(name, pattern) for pattern in self.trainable))


def parse_step_options(pairs: Sequence[str]) -> StepOptions:
    """Return the options that ``NAME=VALUE`` pairs say, such as ``optimizer=adam`` and ``trainable=head.*,*.lora_*``.

    Raises:
        StepOptionError: A pair has no such form, its name is unknown or repeated, or its value cannot be.
        UnknownNameError: There is no such optimizer, mode or kind.
    """
    known = {entry.name: getattr(StepOptions(), entry.name) for entry in fields(StepOptions)}
    found: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not text:
            raise StepOptionError("options", "NAME=VALUE, such as optimizer=adam", repr(pair))
        if name not in known:
            raise UnknownNameError("option of a train graph", name, known)
        if name in found:
            raise StepOptionError(name, "it once", "it twice")
        found[name] = _parsed(name, text, known[name])
    return StepOptions(**found)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parsed(name: str, text: str, default: Any) -> Any:
    """Return a value of the kind that *default* is."""
    if isinstance(default, bool):
        if text not in _YES_OR_NO:
            raise StepOptionError(name, "yes or no", repr(text))
        return _YES_OR_NO[text]
    if isinstance(default, str):
        return text
    parts = tuple(part.strip() for part in text.split(","))
    if default is None:
        return parts
    try:
        numbers = tuple(map(float, parts))
    except ValueError:
        raise StepOptionError(name, "numbers", repr(text)) from None
    if isinstance(default, tuple):
        return numbers
    if len(numbers) != 1:
        raise StepOptionError(name, "one number", repr(text))
    return numbers[0]
