"""Names of what an output has several of: classes, labels, values, tokens."""

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import cast

__all__ = ["MOST_NAMES", "as_names", "names_mistakes", "some_of"]

MOST_NAMES, MOST_CHARS = 100_000, 256
"""So many names may there be, each of so many characters: what a record holds."""
_SHOWN = 8


def as_names(given: object) -> tuple[str, ...]:
    """Return names as a tuple of text, of a list, a range of numbers, or one name alone; a set as it is."""
    if isinstance(given, AbstractSet):
        return cast("tuple[str, ...]", given)  # in no order, which names_mistakes tells
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (str(given),)
    return tuple(str(name) for name in given)


def names_mistakes(
    noun: str,
    names: Sequence[str],
    *,
    least: int,
    most: int = MOST_NAMES,
    most_chars: int = MOST_CHARS,
    may_be_blank: bool = False,
) -> list[str]:
    """Return one sentence for everything that is wrong with the names of an output's parts.

    Args:
        noun: What one of them is.
        names: The names.
        least: How many there must be.
        most: How many there may be.
        most_chars: How long one may be.
        may_be_blank: Whether a space is a name, as it is of a character.
    """
    found = []
    if isinstance(names, AbstractSet):
        found.append(f"the {noun} names must be a sequence, whose order says which is which, found a set")
    empty = [name for name in names if not isinstance(name, str) or not (name if may_be_blank else name.strip())]
    if empty:
        found.append(f"each {noun} needs a name that is text and not empty, found {empty[0]!r}")
    if len(names) < least:
        told = f" ({next(iter(names))!r}); give a list of them" if len(names) == 1 else ""
        found.append(f"it needs at least {least} {noun} names, found {len(names)}{told}")
    if len(names) > most:
        found.append(f"it can have at most {most:,} {noun} names, found {len(names):,}")
    longest = max((len(str(name)) for name in names), default=0)
    if longest > most_chars:
        found.append(f"each {noun} needs a name of at most {most_chars} characters, found one of {longest}")
    if any(not _is_unicode(str(name)) for name in names):
        found.append(f"each {noun} needs a name in Unicode, found half of a surrogate pair")
    repeated = sorted(str(name) for name, times in Counter(names).items() if times > 1)
    if repeated:
        found.append(f"each {noun} needs a name of its own; found several of {', '.join(map(repr, repeated[:5]))}")
    return found


def some_of(names: Sequence[str]) -> str:
    """Return the first of names as one text, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in name)
