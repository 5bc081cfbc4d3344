"""Numbers: what a regression gives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.outputs.bounds import as_number, positive_mistakes
from hedgerow.outputs.names import as_names, names_mistakes
from hedgerow.outputs.output import LONGEST_PART, Output, finite_rows, told_number
from hedgerow.schema import TensorSpec

__all__ = ["Values"]

_MOST_NAMES = 4096


@dataclass(frozen=True, slots=True)
class Values(Output):
    """One number or several, each within a tolerance that its user can live with.

    The score of a number is ``1 - min(1, |error| / tolerance)``, that of a sample the mean over its known numbers: 1 is
    exact, 0 is off by the tolerance or more. Errors are told in tolerances too, so that unlike units compare.

    Attributes:
        names: Of the numbers.
        tolerance: The error that is worth nothing, in the number's own unit; one for each name, or one for all.
        unit: Of each number, for people; as many as names, one for all, or none.
    """

    kind: ClassVar[str] = "values"
    tensor_name: ClassVar[str] = "values"
    score_name: ClassVar[str] = "worth of the values"
    agreement_name: ClassVar[str] = "agreement in tolerances"
    losses: ClassVar[tuple[str, ...]] = ("huber", "mse", "mae")
    target_dtype: ClassVar[str] = "float32"

    names: Sequence[str]
    tolerance: Sequence[float] | float
    unit: Sequence[str] | str = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", as_names(self.names))
        tolerance: Any = self.tolerance
        unit = self.unit
        given: tuple[Any, ...] = (tolerance,) * len(self.names)
        if isinstance(tolerance, Iterable) and not isinstance(tolerance, str):
            given = tuple(tolerance)
        object.__setattr__(self, "tolerance", tuple(map(as_number, given)))
        object.__setattr__(self, "unit", as_names(unit) * len(self.names) if isinstance(unit, str) else as_names(unit))

    @property
    def tolerances(self) -> tuple[float, ...]:
        """The tolerance of each value."""
        return cast("tuple[float, ...]", self.tolerance)

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong with it."""
        found = names_mistakes("value", self.names, least=1, most=_MOST_NAMES, most_chars=LONGEST_PART)
        if len(self.tolerances) != len(self.names):
            found.append(f"it needs a tolerance for each of {len(self.names)} values, found {len(self.tolerances)}")
        wrong = [mistake for tolerance in self.tolerances for mistake in positive_mistakes("each tolerance", tolerance)]
        found.extend(wrong[:1])
        if self.unit and len(self.unit) != len(self.names):
            found.append(f"it needs a unit for each of {len(self.names)} values or none, found {len(self.unit)}")
        return found

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor that artifacts give, called *name*."""
        return TensorSpec(name, (len(self.names),), "float32", unit=", ".join(self.unit))

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the numbers along the last dimension of the tensor."""
        return tuple(self.names)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one sample's target value."""
        return (len(self.names),)

    def target_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return one sentence for everything that is wrong with target values."""
        return [] if np.isfinite(wanted).all() else ["they hold NaN or infinity"]

    def value_mistakes(self, wanted: NDArray[Any]) -> list[str]:
        """Return what is wrong with one sample's target value, of which each number may be unknown: NaN."""
        return self.target_mistakes(np.where(np.isnan(wanted), 0, wanted))

    def unknown(self, samples: int) -> NDArray[Any]:
        """Return NaN for each value of each sample."""
        return np.full((samples, len(self.names)), np.nan, dtype=np.float32)

    def is_known(self, wanted: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which samples have a target value for at least one value."""
        return np.asarray(~np.isnan(wanted).all(axis=1), dtype=np.bool_)

    def errors(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return the absolute errors in tolerances, ``float64[n, values]``; NaN where the target value is not known."""
        difference = np.abs(np.asarray(given, dtype=np.float64) - np.asarray(wanted, dtype=np.float64))
        difference = np.where(np.isfinite(given), difference, np.inf)
        return np.where(np.isnan(wanted), np.nan, difference / np.asarray(self.tolerances))

    def scores(self, given: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
        """Return the mean worth of the known values of each sample."""
        worth = 1 - np.minimum(1, self.errors(given, wanted))
        known = ~np.isnan(worth)
        total = np.where(known, worth, 0).sum(axis=1)
        return np.asarray(
            np.divide(total, known.sum(axis=1), out=np.zeros(len(worth)), where=known.any(axis=1)), dtype=np.float64
        )

    def agreement(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        """Return what the second answer would be worth if the first were what was wanted."""
        both_none = ~np.isfinite(first) & ~np.isfinite(second)
        with np.errstate(invalid="ignore"):
            differences = np.abs(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))
        alike = 1 - np.minimum(1, np.where(np.isfinite(differences), differences, np.inf) / np.asarray(self.tolerances))
        found: NDArray[np.float64] = np.where(both_none, 1.0, alike).mean(axis=1)
        return found

    def features(self, name: str, given: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return each value."""
        values = np.where(finite_rows(given)[:, None], np.asarray(given, dtype=np.float64), np.nan)
        return {f"{name}.{part}": values[:, place] for place, part in enumerate(self.names)}

    def metrics(self, given: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
        """Return the mean score, MAE and RMSE in tolerances, the share within tolerance, and R2 as a mean over values.

        The R2 of a value that never changes is left out of the mean; NaN where all are so.
        """
        wanted = np.asarray(wanted, dtype=np.float64)
        errors = self.errors(given, wanted)
        residual = np.nansum((errors * np.asarray(self.tolerances)) ** 2, axis=0)
        total = np.nansum((wanted - np.nanmean(wanted, axis=0)) ** 2, axis=0)
        moves = total > 0
        return {
            "score": float(self.scores(given, wanted).mean()),
            "mae_tolerances": float(np.nanmean(errors)),
            "rmse_tolerances": float(np.sqrt(np.nanmean(errors**2))),
            "within_tolerance": float((errors[~np.isnan(errors)] <= 1).mean()),
            "r2": float((1 - residual[moves] / total[moves]).mean()) if moves.any() else float("nan"),
        }

    def baseline(self, wanted: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
        """Return the median of each value in the training data, the constant with the least absolute error."""
        return "always the median", np.nanmedian(wanted, axis=0).astype(np.float32)

    def last_values(self, wanted: NDArray[Any]) -> NDArray[Any]:
        """Return the values of one step earlier: the naive forecast."""
        return wanted[:, :-1]

    def told(self, given: NDArray[Any]) -> dict[str, Any]:
        """Return each value by its name."""
        return {name: told_number(value) for name, value in zip(self.names, given, strict=True)}

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values, without its kind and weight."""
        return {"names": list(self.names), "tolerance": list(self.tolerances), "unit": list(self.unit)}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode it; the caller finishes *fields*."""
        return cls(
            fields.texts("names", maximum_items=_MOST_NAMES),
            fields.numbers("tolerance", maximum_items=_MOST_NAMES),
            fields.texts("unit", maximum_items=_MOST_NAMES),
        )
