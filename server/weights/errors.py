"""What can be wrong with weights from elsewhere.

- ServerError: the root of this folder's errors.
  - WeightsFileError: a file holds no weights that can be taken.
  - WeightsMisfitError: the weights of a file are not those of a task's model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hedgerow.server.errors import ServerError

__all__ = ["WeightsFileError", "WeightsMisfitError"]


class WeightsFileError(ServerError):
    """A file holds no weights that can be taken.

    Attributes:
        path: The file.
        found: What it holds.
    """

    def __init__(self, path: Path, found: str, advice: str, *, expected: str = "a state dict") -> None:
        super().__init__(f"expected {expected} in {path}, found {found}; {advice}")
        self.path, self.found = path, found


class WeightsMisfitError(ServerError):
    """The weights of a file are not those of a task's model.

    Attributes:
        missing: Names that the model has and the file does not.
        unexpected: Names that the file has and the model does not.
        shapes: Name -> shape in the model, shape in the file.
    """

    def __init__(
        self,
        place: str,
        task: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        self.missing, self.unexpected, self.shapes = tuple(missing), tuple(unexpected), dict(shapes or {})
        parts = [
            f"{len(names)} {word} ({_some(names)})"
            for word, names in (("missing", self.missing), ("unexpected", self.unexpected))
            if names
        ]
        if self.shapes:
            listed = _some([f"{name} is {list(own)}, here {list(here)}" for name, (own, here) in self.shapes.items()])
            parts.append(f"{len(self.shapes)} of another shape ({listed})")
        super().__init__(
            f"expected the weights of the model of task {task!r} in {place}, found others: {', '.join(parts)}; give "
            "the weights that this model was trained to, or let model() of the task make the one that they are of"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
