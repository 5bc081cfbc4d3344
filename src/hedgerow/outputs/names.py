"""Names of what an output has several of: classes, labels, values, tokens."""

from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["as_names", "names_mistakes"]


_MOST, _LONGEST = 4096, 256
"""As many names, of so many characters, are read from a release."""


def as_names(given: object) -> tuple[str, ...]:
    """Return names as a tuple of text, of a list, a range of numbers, or one name alone."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (str(given),)
    return tuple(str(name) for name in given)


def names_mistakes(noun: str, names: Sequence[str], *, least: int, may_be_blank: bool = False) -> list[str]:
    """Return one sentence for everything that is wrong with the names of an output's parts.

    Args:
        noun: What one of them is.
        names: The names.
        least: How many there must be.
        may_be_blank: Whether a space is a name, as it is of a character.
    """
    found = []
    empty = [name for name in names if not (name if may_be_blank else name.strip())]
    if empty:
        found.append(f"each {noun} needs a name that is not empty, found {empty[0]!r}")
    if len(names) < least:
        told = f" ({names[0]!r}); give a list of them" if len(names) == 1 else ""
        found.append(f"it needs at least {least} {noun} names, found {len(names)}{told}")
    if len(names) > _MOST:
        found.append(f"it may have at most {_MOST:,} {noun} names, found {len(names):,}")
    if longest := [name for name in names if len(name) > _LONGEST]:
        found.append(f"each {noun} name may have at most {_LONGEST} characters, found one of {len(longest[0])}")
    repeated = sorted(str(name) for name, times in Counter(names).items() if times > 1)
    if repeated:
        found.append(f"each {noun} needs a name of its own; found several of {', '.join(map(repr, repeated[:5]))}")
    return found
