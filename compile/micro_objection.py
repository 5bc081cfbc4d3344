"""Why TensorFlow Lite Micro refuses a file, read from what its interpreter prints. Pure.

Its Python interface raises one error for everything; operator and reason are on the standard error output alone. The
lines are those of tflite-micro's ``micro_allocator.cc``, ``micro_op_resolver.cc`` and ``micro_interpreter_graph.cc``.
"""

import re
from dataclasses import dataclass

__all__ = ["MicroObjection", "read_objection"]

_CUSTOM = "CUSTOM"
_ABSENT = re.compile(r"(?:Didn't find op for builtin opcode '|Failed to get registration from op code )(\w+)")
_FAILED = re.compile(r"Node (\S+) \(number (\d+)u?\) failed to (?:prepare|invoke) with status")
_TOO_SMALL = re.compile(r"Failed to (?:resize|allocate).*[Rr]equested: (\d+)")
_PLACE = re.compile(r"^\S+\.(?:cc|h)(?::\d+)?\s+")
_MAXIMUM_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroObjection:
    """What it has against a file.

    Attributes:
        operator: Name of the operator; ``CUSTOM`` for one that is not TFLite's own; empty: it is about the whole file.
        number: Place of the operator in its graph, from 0; None: not told.
        is_absent: Whether the interpreter has no such operator at all.
        said: What the interpreter said of it, in one line, without places in its sources; it may be empty.
    """

    operator: str = ""
    number: int | None = None
    is_absent: bool = False
    said: str = ""

    def sentence(self, custom: tuple[str, ...] = (), layer: str = "") -> str:
        """Return what was found, in words.

        Args:
            custom: Names of the file's operators that are not TFLite's own.
            layer: Name of what the operator gives, where it is known.
        """
        name = " or ".join(custom) if self.operator == _CUSTOM and custom else self.operator
        if self.is_absent:
            return f"{name}, which it does not have"
        if not self.operator:
            return self.said or "an objection without a word"
        place = f" (operator {self.number}" + (f", which gives {layer!r})" if layer else ")")
        return f"{name}{place if self.number is not None else ''}: " + (self.said or "it fails without a word")


def read_objection(printed: str) -> MicroObjection:
    """Return the last objection in what the interpreter printed.

    Args:
        printed: Its standard error output, or the end of it.
    """
    lines = [line for raw in printed.splitlines() if (line := " ".join(raw.split()))]
    for place in range(len(lines) - 1, -1, -1):
        if found := _FAILED.search(lines[place]):
            before = lines[place - 1] if place else ""
            said = "" if _FAILED.search(before) else _plain(before)
            return MicroObjection(operator=found[1], number=int(found[2]), said=said)
        if found := _ABSENT.search(lines[place]):
            return MicroObjection(operator=found[1], is_absent=True)
        if found := _TOO_SMALL.search(lines[place]):
            asked = f"it asks for {int(found[1]):,} bytes at once"
            return MicroObjection(said=f"{asked}, more than the largest tensor arena that is tried has left")
    return MicroObjection(said="; ".join(map(_plain, lines[-2:]))[:_MAXIMUM_CHARS])


def _plain(line: str) -> str:
    return _PLACE.sub("", line)[:_MAXIMUM_CHARS]
