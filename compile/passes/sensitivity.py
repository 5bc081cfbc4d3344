"""Mixed precision by sensitivity: which layers stay wide so that the output stays near the float model's. Pure."""

from collections.abc import Callable, Mapping, Sequence

__all__ = ["widen", "worst_first"]


def worst_first(layers: Sequence[str], quality_db: Callable[[str], float]) -> tuple[str, ...]:
    """Return *layers* from the most to the least harmful.

    Args:
        layers: Names.
        quality_db: Signal to noise of the output when this layer alone is narrow; measured once for each.
    """
    found: Mapping[str, float] = {layer: quality_db(layer) for layer in layers}
    return tuple(sorted(layers, key=lambda layer: (found[layer], layers.index(layer))))


def widen(ranked: Sequence[str], quality_db: Callable[[Sequence[str]], float], minimum_db: float) -> tuple[str, ...]:
    """Return the fewest of the worst layers that must stay wide.

    Quality is taken to grow with every layer that stays wide, so bisection finds the number in ``log2`` measurements;
    the number returned was measured itself.

    Args:
        ranked: Layers, the most harmful first.
        quality_db: Signal to noise of the output when these layers are wide and all others narrow.
        minimum_db: What must be reached.

    Returns:
        The layers; all of them when not even that is enough.
    """
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high) // 2
        if quality_db(ranked[:middle]) >= minimum_db:
            high = middle
        else:
            low = middle + 1
    return tuple(ranked[:high])
