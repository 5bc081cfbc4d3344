"""Store the weights of a Core ML mlprogram as positions in a small palette of values for each layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.settings import between, one_of

__all__ = ["PalettizeCoreml", "cluster"]

_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PalettizeCoreml(FilePass):
    """Chooses each layer's palette by one-dimensional k-means from the weights' quantiles, always the same way.

    coremltools' own clustering needs scikit-learn and draws its start at random.

    Attributes:
        bits: A palette holds ``2 ** bits`` values.
        minimum_elements: Smaller weights stay float.
    """

    name: ClassVar[str] = "palettize-coreml"
    takes: ClassVar[str] = "mlpackage"
    gives: ClassVar[str] = "mlpackage"
    bits: int = one_of(2, 4, 6, 8, default=4)
    minimum_elements: int = between(0, 2**31, default=64)

    @property
    def weight_bits(self) -> int:
        """As many as are set."""
        return self.bits

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the package with palettes."""
        import coremltools.optimize.coreml as cto

        from hedgerow.compile.passes.coreml.package import compressed

        del source

        def palette(weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
            return cluster(weight, 2**self.bits)

        rule = cto.OpPalettizerConfig(mode="custom", lut_function=palette, weight_threshold=self.minimum_elements)
        return compressed(stage, cto.palettize_weights, cto.OptimizationConfig(global_config=rule))


def cluster(weight: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return *count* values that stand for all of *weight* with a small squared error, and each number's position.

    Args:
        weight: Any shape; ``n`` numbers.
        count: How many values.

    Returns:
        Values, ascending, ``[count]``, and positions ``int64[n]``.
    """
    values = weight.flatten().astype(np.float64)
    found = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _round in range(_ROUNDS):
        positions = np.searchsorted((found[1:] + found[:-1]) / 2, values)
        sizes = np.bincount(positions, minlength=count)
        sums = np.bincount(positions, weights=values, minlength=count)
        moved = np.where(sizes > 0, sums / np.maximum(sizes, 1), found)
        if np.array_equal(moved, found):
            break
        found = np.sort(moved)
    return found.astype(weight.dtype), np.searchsorted((found[1:] + found[:-1]) / 2, values)
