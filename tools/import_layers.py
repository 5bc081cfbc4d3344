"""Print the entries of a package, the arrows between them, and the layers that they make.

An entry is a module or folder directly below the package, or the package's own module; an arrow says that something in
one imports something in another. The lowest layer imports no other entry; each entry stands one layer above the highest
that it imports. Exits with 1 when entries import each other in a circle.

    python tools/import_layers.py hedgerow.fleet [--arrows]
"""

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

Arrows = Mapping[str, AbstractSet[str]]
"""Entry -> the entries that it imports."""


def arrows_of(package: str) -> Arrows:
    """Return the arrows between the entries of *package*; imports for type checkers alone are none."""
    import grimp

    graph = grimp.build_graph(package.partition(".")[0], exclude_type_checking_imports=True, cache_dir=None)
    entries = sorted(graph.find_children(package))
    entry_of = {module: entry for entry in entries for module in (entry, *graph.find_descendants(entry))}
    entry_of[package] = package
    entries.append(package)
    arrows: dict[str, set[str]] = {entry: set() for entry in entries}
    for module, entry in entry_of.items():
        imported = {entry_of[other] for other in graph.find_modules_directly_imported_by(module) if other in entry_of}
        arrows[entry] |= imported - {entry}
    return arrows


def layers_of(arrows: Arrows) -> list[list[str]]:
    """Return the layers, the lowest first, each sorted.

    Raises:
        CycleError: Entries import each other in a circle; the second argument names them.
    """
    heights: dict[str, int] = {}
    for entry in TopologicalSorter(arrows).static_order():
        heights[entry] = 1 + max((heights[other] for other in arrows[entry]), default=-1)
    return [
        sorted(e for e in heights if heights[e] == height) for height in range(max(heights.values(), default=-1) + 1)
    ]


def main(package: str, *options: str) -> int:
    """Print them; return the exit status."""
    arrows = arrows_of(package)
    short = {entry: entry.removeprefix(f"{package}.") for entry in arrows}
    try:
        layers = layers_of(arrows)
    except CycleError as exc:
        print(f"{package}: a circle: {' -> '.join(short[entry] for entry in exc.args[1])}")
        return 1
    print(f"{package}: {len(arrows)} entries, {len(layers)} layers, {sum(map(len, arrows.values()))} arrows, no circle")
    for height, entries in reversed(list(enumerate(layers))):
        print(f"{height}: {' '.join(short[entry] for entry in entries)}")
    if "--arrows" in options:
        for entry in sorted(arrows):
            print(f"{short[entry]} -> {' '.join(sorted(short[other] for other in arrows[entry])) or '(nothing)'}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "build" / "view"))
    sys.exit(main(*sys.argv[1:]))
