"""An output of the user's own: its loss and its score are torch functions, which stay where the model is trained."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import HedgerowError, InputError
from hedgerow.outputs.bounds import as_number, positive_mistakes, size_mistakes
from hedgerow.outputs.output import Output, finite_rows, told_number
from hedgerow.schema import TensorSpec

if TYPE_CHECKING:
    import torch

__all__ = ["Custom"]

TorchFunction = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Custom(Output):
    """One tensor with a loss and a score of the user's own.

    Both are torch functions of what the model gives and the target values. They are not part of a release: a device
    cannot score such an output, so that gates on it use how alike two models' answers are.

    Attributes:
        shape: Of what the model gives for a sample.
        wanted_shape: Of a sample's target value, which is float32.
        tolerance: How far two answers may be apart, as the mean absolute difference, until nothing is alike in them.
        loss: ``(given, wanted) -> mean loss``, which can be traced into a train graph.
        score: ``(given, wanted) -> float[n]`` in [0, 1], 1 best.
    """

    kind: ClassVar[str] = "custom"
    tensor_name: ClassVar[str] = "output"
    losses: ClassVar[tuple[str, ...]] = ()
    target_dtype: ClassVar[str] = "float32"
    is_scored_on_devices: ClassVar[bool] = False

    shape: tuple[int, ...]
    wanted_shape: tuple[int, ...] = ()
    tolerance: float = 1.0
    loss: TorchFunction | None = field(default=None, compare=False)
    score: TorchFunction | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("shape", "wanted_shape"):
            sizes = getattr(self, name)
            object.__setattr__(self, name, tuple(map(as_number, sizes if isinstance(sizes, Iterable) else (sizes,))))
        object.__setattr__(self, "tolerance", as_number(self.tolerance))

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with it."""
        functions: tuple[tuple[str, object], ...] = (("loss", self.loss), ("score", self.score))
        return [
            *size_mistakes("the shape", self.shape),
            *size_mistakes("the wanted_shape", self.wanted_shape),
            *(
                f"its {what} must be a torch function (given, target values), found {function!r}"
                for what, function in functions
                if function is not None and not callable(function)
            ),
            *positive_mistakes("the tolerance", self.tolerance),
        ]

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor that artifacts give, called *name*."""
        return TensorSpec(name, self.shape, "float32")

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target value."""
        return self.wanted_shape

    def target_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with target values."""
        return [] if np.isfinite(wanted).all() else ["they hold NaN or infinity"]

    def value_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return what is wrong with one sample's target value, which may be unknown: NaN everywhere."""
        return [] if np.isnan(wanted).all() else self.target_mistakes(wanted)

    def unknown(self, samples: int) -> NDArray[Any]:
        """Return NaN everywhere."""
        return np.full((samples, *self.wanted_shape), np.nan, dtype=np.float32)

    def is_known(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return of which samples the target value is known."""
        known: NDArray[np.bool_] = ~np.isnan(wanted).any(axis=tuple(range(1, wanted.ndim)))
        return known

    @property
    def can_score(self) -> bool:
        """Whether its score function is here: where the model is trained, and nowhere else."""
        return self.score is not None

    def scores(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return what the user's function says of each answer.

        Raises:
            ValueError: There is no such function here.
            InputError: It raises something, or gives anything but a number in [0, 1] for each sample.
        """
        if self.score is None:
            raise ValueError("expected a score function, found none; only the training side has it")
        found = _on_tensors(self.score, given, wanted)
        if found.shape != (len(given),):
            raise InputError(f"expected one score for each of {len(given)} samples, found the shape {found.shape}")
        found = np.where(finite_rows(given), found, 0.0).astype(np.float64)
        if not ((found >= 0) & (found <= 1)).all():
            raise InputError(f"expected scores in [0, 1], found {found.min():g} to {found.max():g}")
        return found

    def agreement(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1 less the mean absolute difference in tolerances, at least 0."""
        one, other = (
            np.asarray(a, dtype=np.float64).reshape(len(a), int(np.prod(self.shape))) for a in (first, second)
        )
        both_none = ~np.isfinite(one) & ~np.isfinite(other)
        with np.errstate(invalid="ignore"):
            apart = np.where(both_none, 0.0, np.abs(one - other))
        apart = np.where(np.isfinite(apart), apart, np.inf)
        found: NDArray[np.float64] = 1 - np.minimum(1, apart.mean(axis=1) / self.tolerance)
        return found

    def features(self, name: str, given: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return the mean, the standard deviation, the least and the greatest of its numbers."""
        flat = np.asarray(given, dtype=np.float64).reshape(len(given), int(np.prod(self.shape)))
        values = np.where(finite_rows(given)[:, None], flat, np.nan)
        columns = {"mean": values.mean(axis=1), "std": values.std(axis=1), "min": values.min(axis=1)}
        columns["max"] = values.max(axis=1)
        return {f"{name}.{what}": column for what, column in columns.items()}

    def metrics(self, given: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
        """Return the mean score."""
        return {"score": float(self.scores(given, wanted).mean())}

    def baseline(self, wanted: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        """Return zeros: of an output of which nothing is known, no better answer is."""
        del wanted
        return "always zeros", np.zeros(self.shape, dtype=np.float32)

    def told(self, given: NDArray[Any]) -> dict[str, Any]:
        """Return its ``values``, row by row."""
        values = [told_number(value) for value in np.asarray(given).reshape(-1)]
        return {"values": values, "shape": list(self.shape)}

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, without its kind and weight, and without its functions."""
        return {
            "shape": list(self.shape),
            "wanted_shape": list(self.wanted_shape),
            "tolerance": self.tolerance,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode it, without functions; the caller finishes *fields*."""
        return cls(
            fields.integers("shape", minimum=1, maximum_items=8),
            fields.integers("wanted_shape", minimum=1, maximum_items=8),
            fields.number("tolerance", minimum=0),
        )


def _on_tensors(function: TorchFunction, *arrays: NDArray[Any]) -> NDArray[Any]:
    """Call a torch function of the user's on arrays, without gradients."""
    # Not imported: whoever has such a function and answers of a model has torch, and a device has neither.
    torch: Any = sys.modules["torch"]
    try:
        with torch.no_grad():
            found = function(*(torch.from_numpy(np.array(values)) for values in arrays))
    except HedgerowError:
        raise
    # The user's code may raise anything; the report must name it all the same.
    except Exception as exc:
        raise InputError(f"it raised {' '.join(f'{type(exc).__name__}: {exc}'.split())}") from exc
    if not isinstance(found, torch.Tensor):
        raise InputError(f"expected one score for each of {len(arrays[0])} samples, found {type(found).__name__}")
    # Half-precision types are none of numpy's.
    return np.asarray(found.detach().cpu().double().numpy())
