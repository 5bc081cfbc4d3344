"""Names of what an output has several of: classes, labels, values, tokens."""

from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["as_names", "names_mistakes"]


def as_names(given: object) -> tuple[str, ...]:
    """Return names as a tuple of text, of a list, a range of numbers, or one name alone."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (str(given),)
    return tuple(str(name) for name in given)


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
