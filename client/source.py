"""The source of a device's samples: a callable that the user brings, what it yields and what it gets back.

A source is ``callable(SourceContext) -> Iterator[Sample]``, named ``module:attribute`` or ``file.py:attribute``. It
paces itself: the agent takes the next sample as soon as it is done with the last one. A generator gets the answer as
the value of its ``yield``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from hedgerow.client.answer import Answer
from hedgerow.client.errors import AgentSettingsError
from hedgerow.errors import TaskError
from hedgerow.task import load_attribute

__all__ = ["Sample", "Sink", "Source", "SourceContext", "load_sink", "load_source"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample.

    Attributes:
        inputs: Input name -> array as in the model's schema, without the batch dimension.
        label: Its class, where it is known; short for a target value that is one whole number.
        use: ``serve``: predicted and counted (a target value, if any, gives a score) and never stored. ``learn``: kept
            in the labelled buffer for training on this device, not predicted.
        stream: Whose next step it is, for a model with state: each stream goes on where it was. At most 64 characters.
        begins: Whether its stream begins anew here, with a state of zeros.
        target_value: What the model should have given, where it is known, in the form that its output declares: a
            number or an array; with several outputs a mapping of their names to such, of which some may be absent.
    """

    inputs: Mapping[str, NDArray[Any]]
    label: int | None = None
    use: Literal["serve", "learn"] = "serve"
    stream: str = ""
    begins: bool = False
    target_value: Any = None


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source is told.

    Attributes:
        device: Name of the device.
        state_folder: The agent's state folder.
        options: What ``--source-option key=value`` gave.
    """

    device: str
    state_folder: Path
    options: Mapping[str, str] = field(default_factory=dict)


Source = Callable[[SourceContext], Iterable[Sample]]
"""Gives samples; an iterator that is a generator is sent the :class:`hedgerow.client.Answer` to each, or None."""

Sink = Callable[[Answer], object]
"""Takes each answer; what it returns is ignored."""


def load_source(reference: str) -> Source:
    """Import a source.

    Raises:
        AgentSettingsError: It cannot be imported, or is not callable.
        ExtraNotInstalledError: It imports a package that an extra of ours brings.
    """
    source: Source = _function(reference, "a function of a SourceContext", "--source")
    return source


def load_sink(reference: str) -> Sink:
    """Import a sink.

    Raises:
        AgentSettingsError: It cannot be imported, or is not callable.
        ExtraNotInstalledError: It imports a package that an extra of ours brings.
    """
    sink: Sink = _function(reference, "a function of an Answer", "--sink")
    return sink


def _function(reference: str, expected: str, option: str) -> Any:
    try:
        found = load_attribute(reference)
    except TaskError as exc:
        # It is found as a task is, and is none.
        raise AgentSettingsError(f"{option} {reference!r} cannot be used: {'; '.join(exc.mistakes)}") from exc
    if not callable(found):
        raise AgentSettingsError(
            f"expected {expected} at {reference!r}, found {type(found).__name__}; correct {option}"
        )
    return found
