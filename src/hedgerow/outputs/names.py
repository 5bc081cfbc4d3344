"""Names of what an output has several of: classes, labels, values, tokens."""

from collections import Counter
from collections.abc import Sequence

__all__ = ["names_mistakes"]


def names_mistakes(noun: str, names: Sequence[str], *, least: int) -> list[str]:
    """Return one sentence for everything that is wrong with the names of an output's parts.

    Args:
        noun: What one of them is.
        names: The names.
        least: How many there must be.
    """
    found = []
    if not all(isinstance(name, str) and name.strip() for name in names):
        found.append(f"each {noun} needs a name that is text and not empty")
    if len(names) < least:
        found.append(f"it needs at least {least} {noun} names, found {len(names)}")
    repeated = sorted(str(name) for name, times in Counter(names).items() if times > 1)
    if repeated:
        found.append(f"each {noun} needs a name of its own; {', '.join(map(repr, repeated[:5]))} repeat")
    return found
