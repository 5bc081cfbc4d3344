"""Check every import between folders and rooms against the tables in docs/architecture.md.

The first table there says what each folder may import, the others what each room of a folder may. Every arrow is held
against them, direct imports of any module, so what is not allowed cannot be reached through others either. A string
that names a module of Hedgerow, as plug-ins and ``-m`` have it, counts as an import. The module of a folder with rooms
itself, its ``__init__.py``, is no room: it imports none, and none imports it. Libraries are judged for the root only;
what keeps single folders light stands in pyproject.toml, for import-linter.

    python tools/import_contracts.py [VIEW]      # VIEW: folder that holds the package, build/view when left out
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "docs" / "architecture.md"
PACKAGE = "hedgerow"
ALL_OTHERS = "all others"
ALL_ABOVE = "all above"
NOTHING = "nothing"
STANDARD_LIBRARY = "standard library"

_ROW = re.compile(r"^\| `(?P<path>[^`]+)`(?: \| [^|]*)+ \| (?P<allowed>[^|]*) \|$")
_MODULE_STRING = re.compile(rf"({PACKAGE}(?:\.\w+)+)(?::\w+(?:\.\w+)*)?")


@dataclass(frozen=True, slots=True)
class Table:
    """What the entries below one package may import.

    Attributes:
        package: Such as ``hedgerow.fleet``; the first table's is ``hedgerow``.
        allowed: Entry -> entries of the same table that it may import, by their import names.
        libraries: Entry -> distributions that it may import; an entry that is absent may import any.
    """

    package: str
    allowed: Mapping[str, AbstractSet[str]]
    libraries: Mapping[str, AbstractSet[str]]

    def entry_of(self, module: str) -> str | None:
        """Return the entry that *module* belongs to: the longest that its name begins with."""
        found = [entry for entry in self.allowed if module == entry or module.startswith(f"{entry}.")]
        return max(found, key=len, default=None)


def read_tables(text: str) -> list[Table]:
    """Return the tables of *text*: the first of all folders, then one for each folder that has rooms.

    Raises:
        ValueError: A cell names what is neither a row of its table nor one of the words for many.
    """
    blocks: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        row = _ROW.match(line)
        if row:
            blocks[-1][row["path"]] = row["allowed"]
        elif not line.startswith("|"):
            blocks.append({})
    return [_table(block) for block in blocks if block]


def module_of(path: str) -> str:
    """Return the import name of a folder or file: ``hedgerow.fleet`` for ``fleet/``."""
    inner = path.removeprefix(f"src/{PACKAGE}/").removesuffix("/").removesuffix(".py")
    return f"{PACKAGE}.{inner.replace('/', '.')}" if inner else PACKAGE


def _table(rows: Mapping[str, str]) -> Table:
    paths = list(rows)
    package = PACKAGE if f"src/{PACKAGE}/" in rows else module_of(paths[0]).rpartition(".")[0]
    short = {path.removeprefix(f"src/{PACKAGE}/").split("/")[0 if package == PACKAGE else 1]: path for path in paths}
    short = {name.removesuffix(".py") or "root": path for name, path in short.items()}
    allowed: dict[str, AbstractSet[str]] = {}
    libraries: dict[str, AbstractSet[str]] = {}
    for index, (path, cell) in enumerate(rows.items()):
        words = [word.strip() for word in cell.split(",")]
        named: set[str] = set()
        for word in words:
            if word == ALL_OTHERS:
                named |= set(paths)
            elif word == ALL_ABOVE:
                named |= set(paths[:index])
            elif word in short:
                named.add(short[word])
            elif STANDARD_LIBRARY not in words and word != NOTHING:
                raise ValueError(
                    f"{path}: expected one of {', '.join(short)}, {ALL_ABOVE} or {NOTHING}, found {word!r}"
                )
        allowed[module_of(path)] = {module_of(other) for other in named}
        if STANDARD_LIBRARY in words:
            libraries[module_of(path)] = {word for word in words if word not in short and word != STANDARD_LIBRARY}
    return Table(package, allowed, libraries)


def plug_ins(path: Path, modules: AbstractSet[str]) -> Iterator[str]:
    """Yield the modules of Hedgerow that strings in a file name; prose does not count, only whole strings do."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _MODULE_STRING.fullmatch(node.value)
            if match and match[1] in modules:
                yield match[1]


def imports_of(view: Path) -> dict[str, set[str]]:
    """Return module -> what it imports, libraries by their top name; imports for type checkers alone are none."""
    import grimp

    sys.path.insert(0, str(view))
    graph = grimp.build_graph(
        PACKAGE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    ours = {module for module in graph.modules if _is_ours(module)}
    found = {module: set(graph.find_modules_directly_imported_by(module)) for module in ours}
    for module in ours:
        path = view / module.replace(".", "/")
        found[module] |= set(plug_ins(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"), ours))
    return found


def _is_ours(module: str) -> bool:
    """Say whether a module is of Hedgerow: a library's name may begin with the same letters."""
    return module.partition(".")[0] == PACKAGE


def broken(table: Table, imports: Mapping[str, AbstractSet[str]]) -> Iterator[str]:
    """Yield a line for each import that a table does not allow."""
    distributions = packages_distributions()
    for module in sorted(imports):
        entry = table.entry_of(module)
        if module == table.package and entry is None:
            rooms = {other: table.entry_of(other) for other in sorted(imports[module])}
            for other, room in rooms.items():
                if room is not None:
                    yield f"{module} imports {other}: {module} may not import {room}"
            continue
        if entry is None:
            if module.startswith(f"{table.package}."):
                yield f"{module}: expected a row in the table of {table.package}, found none"
            continue
        for other in sorted(imports[module]):
            imported = table.entry_of(other)
            if other == table.package and imported is None:
                yield f"{module} imports {other}: {entry} may not import {other}"
            elif imported is not None:
                if imported != entry and imported not in table.allowed[entry]:
                    yield f"{module} imports {other}: {entry} may not import {imported}"
            elif entry in table.libraries and other not in sys.stdlib_module_names and not _is_ours(other):
                names = {name.lower() for name in distributions.get(other, [other])}
                if not names & table.libraries[entry]:
                    yield f"{module} imports {other}: {entry} may not"


def main(view: str | None = None) -> int:
    """Print what is broken; return the exit status."""
    tables = read_tables(TABLES.read_text())
    imports = imports_of(Path(view) if view else ROOT / "build" / "view")
    arrows = sum(map(len, imports.values()))
    lines = [line for table in tables for line in broken(table, imports)]
    print("\n".join(lines) or f"{len(tables)} tables, {arrows} imports of {len(imports)} modules, none broken")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
