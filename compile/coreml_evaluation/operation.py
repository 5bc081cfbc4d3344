"""One operator of a program, with its arguments at hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["NotEvaluatedError", "Operation", "Operator", "Values"]

Values = Mapping[str, Any]
"""Name -> tensor (or text), of everything that is known so far."""


class NotEvaluatedError(Exception):
    """An operator is used in a form that this package does not evaluate; the caller says so, and nobody else sees it.

    Attributes:
        kind: The operator.
    """

    def __init__(self, kind: str, form: str) -> None:
        super().__init__(f"the reference evaluation does not know {kind} {form}")
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operator.

    Attributes:
        kind: Its name in Core ML's intermediate language.
        arguments: Argument -> name of its value, or names where it takes several.
        outputs: Names of its results.
        shape: Of the first result.
        constants: Values of the program's constants.
    """

    kind: str
    arguments: Mapping[str, str | tuple[str, ...]]
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    constants: Values

    def tensor(self, values: Values, argument: str) -> torch.Tensor:
        """Return an argument that must be there."""
        found: torch.Tensor = values[str(self.arguments[argument])]
        return found

    def optional(self, values: Values, argument: str) -> torch.Tensor | None:
        """Return an argument, or None."""
        return self.tensor(values, argument) if argument in self.arguments else None

    def tensors(self, values: Values, argument: str) -> list[torch.Tensor]:
        """Return an argument that takes several tensors."""
        names = self.arguments[argument]
        return [values[name] for name in ((names,) if isinstance(names, str) else names)]

    def constant(self, argument: str, default: Any = None) -> Any:
        """Return a constant argument as a Python number, text or list; *default* when it is absent.

        Raises:
            NotEvaluatedError: The program computes it.
        """
        if argument not in self.arguments:
            return default
        if self.arguments[argument] not in self.constants:
            raise NotEvaluatedError(self.kind, f"whose {argument} is computed")
        value = self.constants[str(self.arguments[argument])]
        return value if isinstance(value, str) else value.tolist()


Operator = Callable[[Operation, Values], "torch.Tensor | tuple[torch.Tensor, ...]"]
"""Computes the results of a call; they are rounded afterwards."""
