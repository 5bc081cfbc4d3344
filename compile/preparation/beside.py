"""What prepares samples for a file of integers, made and checked: a float file, and C99 source for firmware."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.preparation.c_interface import Interface
from hedgerow.compile.preparation.halves import Halves
from hedgerow.compile.preparation.host_check import PrepareCheck, check_prepare

__all__ = ["Beside", "make_beside"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What goes beside a file that takes prepared samples.

    Attributes:
        file: From the task's inputs to what the model takes, in float.
        source: The same as C99, see :class:`hedgerow.compile.preparation.c_interface.Interface`.
        check: What came of running the C on held-out samples.
    """

    file: CompiledModel
    source: str
    check: PrepareCheck


def make_beside(name: str, halves: Halves, stage: CompiledModel, inputs: Mapping[str, NDArray[Any]]) -> Beside:
    """Write and check what prepares samples for *stage*.

    Args:
        name: Of the task.
        halves: Of the task.
        stage: A file of the second half.
        inputs: The task's inputs of samples that the C is checked on.

    Raises:
        UnsuitableError: An operator has no C; it is named.
    """
    from hedgerow.compile.preparation.c_file import prepare_source
    from hedgerow.compile.preparation.c_program import translate

    interface = Interface(name, halves.schema, stage.inputs)
    source = prepare_source(interface, translate(halves))
    check = check_prepare(interface, source, inputs, halves.prepared(inputs))
    return Beside(file=halves.first(stage.format), source=source, check=check)
