"""Store the weights of a Core ML mlprogram as positions in a small palette of values for each layer."""

from dataclasses import dataclass
from typing import Any

import coremltools.optimize.coreml as cto
import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.passes.coreml.compress import compress
from hedgerow.compile.passes.settings import between, one_of, read_settings
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["PaletteSettings", "cluster", "palettize_coreml"]

_STEP = "palettize-coreml"
_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteSettings:
    """Settings of :func:`palettize_coreml`.

    Attributes:
        bits: A palette holds ``2 ** bits`` values.
        minimum_elements: Smaller weights stay float.
    """

    bits: int = one_of(2, 4, 6, 8, default=4)
    minimum_elements: int = between(0, 2**31, default=64)


def palettize_coreml(_source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Choose each layer's palette by one-dimensional k-means from the weights' quantiles, always the same way.

    coremltools' own clustering needs scikit-learn and draws its start at random.

    Raises:
        PassError: coremltools fails.
        PassSettingsError: The settings make no sense.
        ValueError: No Core ML stage is given.
    """
    chosen = read_settings(_STEP, PaletteSettings, settings)

    def palette(weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        return cluster(weight, 2**chosen.bits)

    rule = cto.OpPalettizerConfig(mode="custom", lut_function=palette, weight_threshold=chosen.minimum_elements)
    return compress(_STEP, stage, cto.palettize_weights, cto.OptimizationConfig(global_config=rule))


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
