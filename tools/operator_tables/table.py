"""What came of one-operator files, as an operator table, and the table as TOML."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hedgerow.hardware.fit import OperatorUse

__all__ = ["Table", "collect", "render"]

_WIDTH = 118


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An operator table.

    Attributes:
        source: Where it comes from.
        versions: Operator -> highest version; 0: any.
        types: Operator -> element types that it ran on.
        ranks: Operator, or operator and types -> dimensions that it ran on; absent: all that were tried.
    """

    source: str
    versions: Mapping[str, int]
    types: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranks: Mapping[str, Sequence[int]] = field(default_factory=dict)


def collect(
    ran: Iterable[tuple[OperatorUse, bool]],
) -> tuple[dict[str, list[str]], dict[str, list[int]]]:
    """Return the types and the ranks of operators.

    Args:
        ran: How each file uses its operator, and whether it ran. One of several files of a use is enough.

    Returns:
        Types, and ranks where an operator did not run on all that were tried: by its name what most types run on, by
        its name and a type what that one does.
    """
    types: dict[str, set[str]] = defaultdict(set)
    ranks: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    tried: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for use, is_running in ran:
        tried[use.name][use.types].add(use.rank)
        if is_running:
            types[use.name].add(use.types)
            ranks[use.name][use.types].add(use.rank)
    found: dict[str, list[int]] = {}
    for name, by_types in ranks.items():
        # Types that were tried on few ranks say nothing of the others.
        most = max(len(each) for each in tried[name].values())
        swept = {kind: frozenset(each) for kind, each in by_types.items() if len(tried[name][kind]) == most}
        wanted = {rank for kind in swept for rank in tried[name][kind]}
        if not swept:
            continue
        usual = min(Counter(swept.values()).items(), key=lambda entry: (-entry[1], sorted(entry[0])))[0]
        if usual != wanted:
            found[name] = sorted(usual - {0})
        found |= {f"{name} {kind}": sorted(each - {0}) for kind, each in swept.items() if each != usual}
    return (
        {name: sorted(each - {""}) for name, each in types.items() if each - {""}},
        {key: each for key, each in found.items() if each},
    )


def render(table: Table) -> str:
    """Return a table as the text of its file."""
    source = "\n".join(
        textwrap.fill(part, _WIDTH, break_long_words=False, break_on_hyphens=False) for part in table.source.split("\n")
    )
    lines = ["schema_version = 1", 'source = """\\', *(f"{line} \\" for line in source.splitlines())]
    lines[-1] = lines[-1].removesuffix(" \\") + '"""'
    lines += ["", "[versions]", *(f"{_key(name)} = {table.versions[name]}" for name in sorted(table.versions))]
    if table.types:
        lines += ["", "[types]"]
        for name in sorted(table.types):
            lines += _listed(name, [f'"{kind}"' for kind in table.types[name]])
    if table.ranks:
        lines += ["", "[ranks]"]
        for name in sorted(table.ranks):
            lines += _listed(name, [str(rank) for rank in table.ranks[name]])
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else f'"{name}"'


def _listed(name: str, values: Sequence[str]) -> list[str]:
    line = f"{_key(name)} = [{', '.join(values)}]"
    if len(line) <= _WIDTH:
        return [line]
    filled = textwrap.wrap(", ".join(values), _WIDTH - 4, break_long_words=False)
    return [f"{_key(name)} = [", *(f"    {part}" for part in filled[:-1]), f"    {filled[-1]},", "]"]
