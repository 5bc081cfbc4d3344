"""What an artifact may cost: score, distance from the float model, and the time that it takes to make."""

from dataclasses import dataclass, replace

from hedgerow.compile.recipe import Recipe

__all__ = ["Budget"]

_LARGEST_SNR_DB = 200.0
_LONGEST_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an artifact may cost.

    Attributes:
        max_drop: Largest allowed loss of the mean score on held-out data against float, of accuracy where the task has
            classes, as a share (0.015: 1.5 points).
        minimum_snr_db: Least signal to noise against the float model's outputs, in decibel; None: what each recipe
            promises.
        minimum_agreement: Least mean agreement of float and artifact on held-out samples, of each output: for classes
            the share of samples in which both predict the same one; None: what each recipe promises.
        limit_s: Longest time that making one target's artifact may take, all recipes that are tried for it together;
            what is made by then stays. Also that of one train graph.

    Raises:
        ValueError: A number makes no sense.
    """

    max_drop: float = 0.015
    minimum_snr_db: float | None = None
    minimum_agreement: float | None = None
    limit_s: float = 600.0

    def __post_init__(self) -> None:
        """Check every number."""
        if not 0 <= self.max_drop <= 1:
            raise ValueError(f"expected a max_drop between 0 and 1, found {self.max_drop}")
        if self.minimum_snr_db is not None and not 0 <= self.minimum_snr_db <= _LARGEST_SNR_DB:
            raise ValueError(
                f"expected a minimum_snr_db between 0 and {_LARGEST_SNR_DB:g}, found {self.minimum_snr_db}"
            )
        if self.minimum_agreement is not None and not 0 <= self.minimum_agreement <= 1:
            raise ValueError(f"expected a minimum_agreement between 0 and 1, found {self.minimum_agreement}")
        if not 0 < self.limit_s <= _LONGEST_S:
            raise ValueError(f"expected a limit_s above 0, at most a week, found {self.limit_s}")

    def applied_to(self, recipe: Recipe) -> Recipe:
        """Return *recipe* with the floors of this budget, where it has any."""
        snr_db, agreement = self.minimum_snr_db, self.minimum_agreement
        return replace(
            recipe,
            minimum_snr_db=recipe.minimum_snr_db if snr_db is None else snr_db,
            minimum_agreement=recipe.minimum_agreement if agreement is None else agreement,
        )
