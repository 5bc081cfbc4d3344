"""State of a streaming model: tensors that each prediction takes and gives anew, zero before the first. Pure.

A state has two ends: an input of the model, and the output that the next prediction takes there. Both have one shape
and one type, so whoever runs the model copies the one to the other and converts nothing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["MOST_STATES", "MOST_VALUES", "State", "next_name", "state_mistakes"]

MOST_STATES = 8
"""So many state tensors may a model have."""
MOST_VALUES = 2**22
"""So many numbers may the state of one stream hold in all its tensors."""


def next_name(name: str) -> str:
    """Return the name of the output that the state *name* takes from the prediction before."""
    return f"{name}_next"


@dataclass(frozen=True, slots=True)
class State:
    """A state tensor of a task's model, float32, as the model takes and gives it for one stream.

    Attributes:
        shape: Its whole shape, with the dimension that counts streams, of size 1: ``(2, 1, 128)`` for two layers.
        batch_axis: Which dimension counts streams, so that training runs several at once. None: the only one of size 1.
    """

    shape: tuple[int, ...]
    batch_axis: int | None = None

    def __post_init__(self) -> None:
        # A user may write a list, or forget that one number is no shape: mistakes() tells them, not a traceback.
        if isinstance(self.shape, Iterable):
            object.__setattr__(self, "shape", tuple(self.shape))

    def mistakes(self, name: str) -> list[str]:
        """Return one sentence for everything that is wrong with the state called *name*."""
        sizes = self.shape if isinstance(self.shape, tuple) else (None,)
        if not all(type(size) is int and size > 0 for size in sizes) or not 1 <= len(sizes) <= 8:
            return [f"the state {name!r}: the shape {self.shape!r} must hold one to eight positive whole numbers"]
        ones = [place for place, size in enumerate(self.shape) if size == 1]
        if self.batch_axis is None and len(ones) != 1:
            found = f"{len(ones)} dimensions of size 1 in {list(self.shape)}"
            return [
                (
                    f"the state {name!r}: expected one dimension of size 1, which counts streams, found {found}; "
                    "say which it is with batch_axis="
                )
            ]
        if self.batch_axis is not None and (type(self.batch_axis) is not int or self.batch_axis not in ones):
            return [
                (
                    f"the state {name!r}: expected the place of a dimension of size 1 in {list(self.shape)} as "
                    f"batch_axis, found {self.batch_axis!r}"
                )
            ]
        return []

    @property
    def axis(self) -> int:
        """The dimension that counts streams."""
        return self.shape.index(1) if self.batch_axis is None else self.batch_axis

    def of_streams(self, count: int) -> tuple[int, ...]:
        """Return the shape for so many streams at once."""
        return (*self.shape[: self.axis], count, *self.shape[self.axis + 1 :])


def state_mistakes(states: Mapping[str, object]) -> list[str]:
    """Return one sentence for everything that is wrong with the states of a task."""
    found = []
    if len(states) > MOST_STATES:
        found.append(f"it has {len(states)} state tensors, at most {MOST_STATES} are allowed")
    for name, state in states.items():
        if not isinstance(state, State):
            found.append(
                f"the state {name!r} must be a State, such as State((2, 1, 128)), found {type(state).__name__}"
            )
        else:
            found.extend(state.mistakes(str(name)))
    total = sum(math.prod(state.shape) for state in states.values() if isinstance(state, State) and not found)
    if total > MOST_VALUES:
        found.append(f"its state holds {total} numbers, at most {MOST_VALUES} are allowed")
    return found
