"""What one runtime executes, read strictly from its TOML file, ``operators/<name>.toml``.

``docs/targets.md`` says what stands in one. Those of the runtimes that exist on a build machine are generated, by
``python -m tools.operator_tables``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hedgerow.decode import Fields, decode_toml
from hedgerow.errors import DecodeError

__all__ = ["FILE_LIMIT_BYTES", "OperatorTable", "decode_operators", "document", "read_table"]

FILE_LIMIT_BYTES = 2**16
"""No file of a target, of operators or of recipes may be longer."""

_SCHEMA_VERSION = 1
_OPERATOR = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}")
_MAX_OPERATOR_VERSION = 1000
_TYPES = re.compile(r"[a-z][a-z0-9]{0,15}([/>][a-z][a-z0-9]{0,15})?")
_MAX_RANK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTable:
    """What one runtime executes.

    Attributes:
        versions: Operator in the format's own name -> highest supported version; 0: any.
        source: Where the table comes from.
        types: Operator -> element types that it runs on, see :class:`hedgerow.hardware.fit.OperatorUse`; an operator
            that is absent: not known, so that every type is taken.
        ranks: Operator, or operator and types as ``MEAN int32``, which goes first -> dimensions of its data that it
            runs on; absent: not known, or all.
    """

    versions: Mapping[str, int]
    source: str
    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    ranks: Mapping[str, frozenset[int]] = field(default_factory=dict)


def decode_operators(name: str, text: str) -> OperatorTable:
    """Read the text of an operator table, ``operators/<name>.toml``.

    Raises:
        DecodeError: The text is no TOML, a key is absent, unknown or of the wrong type, or a version is out of bounds.
    """
    where = f"operator table {name}"
    fields = document(where, text)
    types, ranks = fields.optional("types"), fields.optional("ranks")
    table = OperatorTable(
        source=fields.text("source", maximum_chars=2000),
        versions=_versions(fields.nested("versions")),
        types=_types(types) if types is not None else {},
        ranks=_ranks(ranks) if ranks is not None else {},
    )
    fields.finish()
    for key, named in (("types", table.types), ("ranks", {name.partition(" ")[0] for name in table.ranks})):
        if unknown := sorted(set(named) - table.versions.keys()):
            raise DecodeError(f"{where}.{key}", "operators among its versions", ", ".join(unknown)[:80])
    return table


def read_table(fields: Fields) -> OperatorTable:
    """Read a table inside the record of a target: its keys that begin with ``operator``.

    Raises:
        DecodeError: A key is absent or of the wrong type, or a value is out of bounds.
    """
    return OperatorTable(
        versions=_versions(fields.nested("operators")),
        source=fields.text("operators_source", maximum_chars=2000),
        types=_types(fields.nested("operator_types")),
        ranks=_ranks(fields.nested("operator_ranks")),
    )


def _types(listed: Fields) -> dict[str, frozenset[str]]:
    types = {
        operator: frozenset(listed.texts(operator, maximum_items=1024, maximum_chars=64)) for operator in listed.names()
    }
    for operator, found in types.items():
        wrong = sorted(name for name in found if not _TYPES.fullmatch(name))
        if wrong or not found:
            where = f"{listed.where}.{operator}"
            raise DecodeError(
                where, "types such as int8, float32/int8 or float32>int8", ", ".join(wrong)[:80] or "none"
            )
    return types


def _ranks(listed: Fields) -> dict[str, frozenset[int]]:
    ranks = {
        operator: frozenset(listed.integers(operator, minimum=1, maximum_items=_MAX_RANK))
        for operator in listed.names()
    }
    for operator, found in ranks.items():
        if not found or max(found) > _MAX_RANK:
            raise DecodeError(
                f"{listed.where}.{operator}", f"numbers of dimensions from 1 to {_MAX_RANK}", str(sorted(found))
            )
    return ranks


def _versions(listed: Fields) -> dict[str, int]:
    versions = {
        operator: listed.integer(operator, minimum=0, maximum=_MAX_OPERATOR_VERSION) for operator in listed.names()
    }
    wrong = [operator for operator in versions if not _OPERATOR.fullmatch(operator)]
    if wrong or not versions:
        raise DecodeError(listed.where, "names of operators", ", ".join(wrong)[:80] or "none")
    return versions


def document(where: str, text: str) -> Fields:
    """Return the fields of a file of this folder, of the one version that there is.

    Raises:
        DecodeError: The text is no TOML, too long, or of another version.
    """
    fields = decode_toml(text.encode(), where, limit_bytes=FILE_LIMIT_BYTES)
    fields.integer("schema_version", minimum=_SCHEMA_VERSION, maximum=_SCHEMA_VERSION)
    return fields
