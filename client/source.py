"""Where a device's samples come from: a callable that the user brings, and what it yields.

A source is ``callable(SourceContext) -> Iterator[Sample]``, named ``module:attribute`` or ``file.py:attribute``. It
paces itself: the agent takes the next sample as soon as it is done with the last one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from hedgerow.client.errors import SettingsError
from hedgerow.task import load_attribute

__all__ = ["Sample", "Source", "SourceContext", "load_source"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample.

    Attributes:
        inputs: Input name -> array as in the model's schema, without the batch dimension.
        label: Its class, where it is known.
        use: ``serve``: predicted and counted (the label, if any, counts as accuracy) and never stored. ``learn``: kept
            in the labelled buffer for training on this device, not predicted.
    """

    inputs: Mapping[str, NDArray[Any]]
    label: int | None = None
    use: Literal["serve", "learn"] = "serve"


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source is told.

    Attributes:
        device: Name of the device.
        state_folder: The agent's state folder.
        options: From ``--source-option key=value``.
    """

    device: str
    state_folder: Path
    options: Mapping[str, str] = field(default_factory=dict)


Source = Callable[[SourceContext], Iterator[Sample]]


def load_source(reference: str) -> Source:
    """Import a source.

    Raises:
        TaskError: It cannot be imported.
        SettingsError: It is not callable.
    """
    source = load_attribute(reference)
    if not callable(source):
        raise SettingsError(
            f"expected a function of a SourceContext at {reference!r}, found {type(source).__name__}; correct --source"
        )
    found: Source = source
    return found
