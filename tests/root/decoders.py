"""What a decoder reads, watched: which field by which reader, within which bounds. The bounds are decoder_bounds.json.

``python -m tests.root.decoders`` writes that file from the code. It is kept in git and reviewed like code: a bound that
changes shows there, and the tests hold code and file against each other.
"""

import ast
import functools
import importlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from hedgerow import decode
from hedgerow.decode import Fields
from hedgerow.errors import DecodeError

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = Path(__file__).with_name("decoder_bounds.json")
FOLDERS = {
    "src/hedgerow": "hedgerow",
    **{name: f"hedgerow.{name}" for name in ("client", "compile", "fleet", "hardware", "server")},
}
UNKNOWN = "zz_unknown"
READERS = (
    "text", "optional_text", "choice", "integer", "optional_integer", "number", "optional_number", "boolean",
    "integers", "numbers", "texts", "nested", "optional", "sequence", "mapping", "scalars",
)  # fmt: skip

Document = dict[str, Any]
Read = Callable[[Document, Path], object]


class AcceptedError(Exception):
    """A decoder has read everything; what it does with it afterwards is not the question."""


@dataclass(frozen=True)
class Decoder:
    """One decoder with documents that it takes.

    Attributes:
        name: ``module:qualified name``.
        examples: Documents that it takes; together they hold every field.
        read: Decodes one; None: it takes :class:`Fields` alone.
        form: ``fields``: it is given the document's values as they are; ``json`` or ``toml``: as bytes or text.
        parts: Functions that read a part of its document for it alone.
        is_heavy: Importing it takes Flower.
    """

    name: str
    examples: Sequence[Document]
    read: Read | None = None
    form: str = "fields"
    parts: Sequence[str] = ()
    is_heavy: bool = False

    def decode(self, document: Document, folder: Path) -> None:
        """Decode *document*.

        Raises:
            DecodeError: It is refused.
        """
        with suppress(AcceptedError):
            if self.read is not None:
                self.read(document, folder)
            else:
                found(self.name)(Fields(document, "document"))


def found(name: str) -> Any:
    """Return the function that *name*, ``module:qualified name``, says."""
    module, _, inside = name.partition(":")
    return functools.reduce(getattr, inside.split("."), importlib.import_module(module))


def code_of(name: str) -> CodeType:
    """Return its code."""
    function = found(name)
    code: CodeType = getattr(function, "__func__", function).__code__
    return code


def in_source() -> set[str]:
    """Return every function that takes fields or makes them, as ``module:qualified name``."""
    names = set()
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            source = path.read_text()
            if not any(name in source for name in ("Fields", "decode_json", "decode_toml")):
                continue
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join((package, *(part for part in inner if part != "__init__")))
            names |= {f"{module}:{name}" for name in _readers_in(ast.parse(source), "")}
    return names


def _readers_in(node: ast.AST, outer: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        name = f"{outer}.{child.name}".lstrip(".") if isinstance(child, ast.FunctionDef | ast.ClassDef) else outer
        if isinstance(child, ast.FunctionDef):
            annotations = [
                ast.unparse(a.annotation) for a in (*child.args.args, *child.args.kwonlyargs) if a.annotation
            ]
            makes = any(_makes_fields(inside) for inside in ast.walk(child))
            if makes or any("Fields" in annotation for annotation in annotations):
                yield name
        yield from _readers_in(child, name)


def _makes_fields(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="Fields" | "decode_json" | "decode_toml")):
            return True
    return False


@dataclass
class Watched:
    """What was read.

    Attributes:
        owners: Code -> the decoder whose code it is.
        reads: Decoder -> place -> reader -> its bounds.
        limits_bytes: The bounds of whole documents.
        entered: Codes of all functions that were on the way to a read.
        where: Decoder -> what it calls its document.
    """

    owners: Mapping[CodeType, str]
    reads: dict[str, dict[str, dict[str, Document]]] = field(default_factory=dict)
    limits_bytes: list[int] = field(default_factory=list)
    entered: set[CodeType] = field(default_factory=set)
    where: dict[str, str] = field(default_factory=dict)
    _bases: dict[int, tuple[FrameType, str]] = field(default_factory=dict)

    def note(self, fields: Fields, reader: str, key: str, bounds: Document, frame: FrameType | None) -> None:
        """Take one read in."""
        owner = None
        while frame is not None:
            self.entered.add(frame.f_code)
            if owner is None and frame.f_code in self.owners:
                owner = frame
            frame = frame.f_back
        if owner is None:
            return
        _frame, base = self._bases.setdefault(id(owner), (owner, fields.where))
        self.where.setdefault(self.owners[owner.f_code], base)
        place = f"{fields.where.removeprefix(base)}.{key}".lstrip(".")
        self.reads.setdefault(self.owners[owner.f_code], {}).setdefault(place, {})[reader] = bounds


@contextmanager
def watching(owners: Mapping[CodeType, str]) -> Iterator[Watched]:
    """Watch what decoders read."""
    watched = Watched(owners)
    kept = {name: getattr(Fields, name) for name in (*READERS, "__init__")}

    def watch(name: str) -> Callable[..., Any]:
        signature = inspect.signature(kept[name])

        @functools.wraps(kept[name])
        def reader(fields: Fields, *args: Any, **options: Any) -> Any:
            frame = sys._getframe(1)
            # Readers call each other; what the decoder asked for counts.
            if frame.f_code.co_filename != decode.__file__ or name == "__init__":
                bound = signature.bind(fields, *args, **options)
                bound.apply_defaults()
                watched.note(fields, name, bound.arguments["key"], _bounds(bound.arguments), frame)
            return kept[name](fields, *args, **options)

        return reader

    def made(fields: Fields, record: Mapping[str, Any], where: str) -> None:
        frame = sys._getframe(1)
        if frame.f_code is decode.decode_json.__code__:
            watched.limits_bytes.append(frame.f_locals["limit_bytes"])
        kept["__init__"](fields, record, where)

    try:
        for name in READERS:
            setattr(Fields, name, watch(name))
        Fields.__init__ = made  # type: ignore[method-assign]
        yield watched
    finally:
        for name, method in kept.items():
            setattr(Fields, name, method)


def _bounds(arguments: Mapping[str, Any]) -> Document:
    bounds: Document = {}
    for name, value in arguments.items():
        if name == "options":
            bounds[name] = sorted(value)
        elif name == "pattern":
            bounds |= {} if value is None else {name: value.pattern}
        elif name.startswith(("minimum", "maximum")) and not math.isinf(value):
            bounds[name] = value
    return bounds


def objects_in(document: Document) -> Iterator[tuple[str, list[Any]]]:
    """Yield (place, path) of every object of a document."""
    yield from _walk(document, "", [])


def _walk(node: Any, place: str, path: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(node, dict):
        yield place, path
        for key, child in node.items():
            yield from _walk(child, f"{place}.{key}".lstrip("."), [*path, key])
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _walk(child, f"{place}[{index}]", [*path, index])


def paths_to(document: Any) -> dict[str, list[Any]]:
    """Return place -> path of every value: both forms of a place inside an object whose keys are data."""
    paths: dict[str, list[Any]] = {}

    def visit(node: Any, places: list[str], path: list[Any]) -> None:
        for place in places:
            paths[place] = path
        if isinstance(node, dict):
            for key, child in node.items():
                under = [f"{place}.{key}".lstrip(".") for place in places]
                visit(child, [*under, *(f"{place}[{key}]" for place in places)], [*path, key])
        elif isinstance(node, list):
            for index, child in enumerate(node):
                items = [f"{place}{form}" for place in places for form in (f"[{index}]", f".{index}")]
                visit(child, items, [*path, index])

    visit(document, [""], [])
    return paths


def changed(document: Document, path: Sequence[Any], value: Any) -> Document:
    """Return a copy with another value at *path*."""
    return _at(document, path, lambda parent, key: parent.__setitem__(key, value))


def without(document: Document, path: Sequence[Any]) -> Document:
    """Return a copy without what is at *path*."""
    return _at(document, path, lambda parent, key: parent.__delitem__(key))


def _copy(node: Any) -> Any:
    """Return a copy in which no part stands twice, as deepcopy would leave it."""
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(item) for item in node] if isinstance(node, list) else node


def _at(document: Document, path: Sequence[Any], change: Callable[[Any, Any], None]) -> Document:
    document = _copy(document)
    parent: Any = document
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return document


def refusal(decoder: Decoder, document: Document, folder: Path) -> DecodeError | None:
    """Return how a decoder refuses a document; None: it takes it."""
    try:
        decoder.decode(document, folder)
    except DecodeError as exc:
        return exc
    return None


def kind_of_object(decoder: Decoder, document: Document, path: Sequence[Any], folder: Path) -> str:
    """Return what an object does with a key that nobody knows.

    ``closed``: refuses it by name. ``open``: its keys are data, and a value that is none is refused where it stands.
    ``free``: it is passed on as it is.
    """
    refused = refusal(decoder, changed(document, [*path, UNKNOWN], []), folder)
    if refused is None:
        return "free"
    if UNKNOWN in refused.found.removeprefix("also ").split(", "):
        return "closed"
    return "open" if refused.where.endswith((f".{UNKNOWN}", f"[{UNKNOWN}]")) else f"refused: {refused}"


def bounds_of(decoder: Decoder, watched: Watched, folder: Path, known: Mapping[str, Any]) -> Document:
    """Return a decoder's entry of the table."""
    fields: Document = {}
    for place, readers in sorted(watched.reads.get(decoder.name, {}).items()):
        fields[place] = {**readers, "required": _is_required(decoder, place, folder)}
    objects = {}
    for document in decoder.examples:
        for place, path in objects_in(document):
            kind = kind_of_object(decoder, document, path, folder)
            if kind != "closed":
                objects[place] = kind
    entry: Document = {"fields": fields}
    if objects:
        entry["objects"] = dict(sorted(objects.items()))
    within = {
        f"{owner} {place}": readers
        for owner, places in watched.reads.items()
        if owner != decoder.name
        for place, readers in places.items()
        if not is_as_known(known.get(owner, {}).get("fields", {}).get(place), readers)
    }
    if within:
        entry["within"] = within
    if watched.limits_bytes:
        entry["limit_bytes"] = max(watched.limits_bytes)
    return entry


def is_as_known(known: Mapping[str, Any] | None, readers: Mapping[str, Any]) -> bool:
    """Return whether a nested decoder reads a field as the table says of that decoder."""
    return known is not None and {name: what for name, what in known.items() if name != "required"} == dict(readers)


def _is_required(decoder: Decoder, place: str, folder: Path) -> bool:
    """Return whether each example that has the field is refused without it, because of it."""
    holders = [(document, paths_to(document)[place]) for document in decoder.examples if place in paths_to(document)]
    refusals = [refusal(decoder, without(document, path), folder) for document, path in holders]
    return all(
        refused is not None
        and refused.where.endswith(f".{place}")
        and (refused.expected, refused.found) == ("a value", "nothing")
        for refused in refusals
    )


def watch_examples(decoder: Decoder, owners: Mapping[CodeType, str], folder: Path) -> Watched:
    """Decode all examples of a decoder and return what was read."""
    with watching(owners) as watched:
        for document in decoder.examples:
            decoder.decode(_copy(document), folder)
    return watched


def table_text(table: Mapping[str, Any]) -> str:
    """Return the table as JSON with one line for each field."""
    lines = ["{"]
    for number, (name, entry) in enumerate(sorted(table.items())):
        lines.append(f"  {json.dumps(name)}: {{")
        parts = []
        for key, value in entry.items():
            if isinstance(value, dict):
                inside = ",\n".join(f"      {json.dumps(place)}: {json.dumps(what)}" for place, what in value.items())
                parts.append(
                    f"    {json.dumps(key)}: {{\n{inside}\n    }}" if value else f"    {json.dumps(key)}: {{}}"
                )
            else:
                parts.append(f"    {json.dumps(key)}: {json.dumps(value)}")
        lines.append(",\n".join(parts))
        lines.append("  }" + ("," if number < len(table) - 1 else ""))
    return "\n".join([*lines, "}", ""])


def _main() -> None:
    import tempfile

    from tests.root.decoder_table import DECODERS

    owners = {code_of(decoder.name): decoder.name for decoder in DECODERS}
    table: Document = {}
    with tempfile.TemporaryDirectory() as scratch:
        watched = {decoder.name: watch_examples(decoder, owners, Path(scratch)) for decoder in DECODERS}
        known = {name: {"fields": seen.reads.get(name, {})} for name, seen in watched.items()}
        for decoder in DECODERS:
            table[decoder.name] = bounds_of(decoder, watched[decoder.name], Path(scratch), known)
    BOUNDS.write_text(table_text(table))


if __name__ == "__main__":
    _main()
