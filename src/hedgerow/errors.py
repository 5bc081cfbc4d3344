"""What can go wrong in Hedgerow, as one tree.

Every error a user can meet derives from :class:`HedgerowError`, and its message is one sentence in three parts: what
was expected, what was found, what to do. Facts are attributes as well, so that programs need not read the sentence.

- HedgerowError: the root; each folder's errors.py adds a branch of its own, and draws it.
  - CheckpointError: a checkpoint cannot be read.
  - CheckpointMismatchError: a checkpoint belongs to another model.
  - DecodeError: bytes from outside are not what they should be.
  - ExtraNotInstalledError: a feature whose optional packages are absent.
  - InputError: an input does not match the schema.
  - LinkError: the message link failed.
    - BrokerUnreachableError: no MQTT broker answered.
  - PartitionError: the data cannot be cut as asked.
  - PluginError: a user's own strategy, partition or the like cannot be used.
  - PortInUseError: a port that we want to serve on is taken.
  - TaskError: a user's task is wrong.
  - UnknownNameError: a name (target, strategy, runtime, ...) that is in no table.
  - UnsupportedSystemError: an operating system that Hedgerow does not run on.

Wrong calls inside a program (a bug, not the world) raise ``ValueError`` or ``RuntimeError`` instead.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = [
    "BrokerUnreachableError",
    "CheckpointError",
    "CheckpointMismatchError",
    "DecodeError",
    "ExtraNotInstalledError",
    "HedgerowError",
    "InputError",
    "LinkError",
    "PartitionError",
    "PluginError",
    "PortInUseError",
    "TaskError",
    "UnknownNameError",
    "UnsupportedSystemError",
]


def _restored(kind: "type[HedgerowError]", args: tuple[Any, ...], facts: dict[str, Any]) -> "HedgerowError":
    error = kind.__new__(kind, *args)
    vars(error).update(facts)
    return error


def _advice_once(message: str) -> str:
    """Return *message* without earlier parts that equal its last one, what to do."""
    *parts, advice = message.split("; ")
    return "; ".join([*(part for part in parts if part != advice), advice])


class HedgerowError(Exception):
    """The root of all errors that the world, not a bug, causes.

    Attributes:
        exit_code: What the command exits with when this ends it.
        details: More lines for whoever reports the error, such as a traceback; empty for an error of the world.
    """

    exit_code = 1
    details = ""

    def __init__(self, *args: object) -> None:
        # An error that tells of another one quotes its advice; where it gives the same, once is enough.
        super().__init__(*(_advice_once(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with the finished message, which no constructor of ours takes: an error from a
        # worker process would break the pool instead of being shown.
        return _restored, (type(self), self.args, vars(self))


class CheckpointError(HedgerowError):
    """A checkpoint cannot be read."""


class CheckpointMismatchError(HedgerowError):
    """A checkpoint belongs to another model."""


class InputError(HedgerowError):
    """An input does not match the schema."""


class PartitionError(HedgerowError):
    """The data cannot be cut as asked."""


class DecodeError(HedgerowError):
    """Bytes from outside were refused.

    Attributes:
        where: The path inside the document, such as ``manifest.artifacts[2].sha256``.
    """

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found


class UnknownNameError(HedgerowError):
    """A name is in no table.

    Attributes:
        kind: What was looked up, such as ``target``.
        name: The unknown name.
        known: All names that would have been accepted.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        near = get_close_matches(name, self.known, n=1)
        among = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(self.known)}"
        super().__init__(f"no {kind} is called {name!r}; {hint or among}")


class ExtraNotInstalledError(HedgerowError):
    """A feature needs optional packages that are absent.

    Attributes:
        feature: What needs them.
        extra: The extra that installs them; empty: they belong to the base install.
        missing: The module that was not found, if one is known.
    """

    def __init__(self, feature: str, extra: str, missing: str | None = None) -> None:
        # It asks for this error in turn.
        from hedgerow.installation import install_command

        of = f"the packages of the extra {extra!r}" if extra else "the packages of the base install"
        found = f"the module {missing!r} is not installed" if missing else "they are not installed"
        super().__init__(f"{feature} needs {of}, and {found}; run: {install_command(extra)}")
        self.feature, self.extra, self.missing = feature, extra, missing


class TaskError(HedgerowError):
    """A user's task is wrong; every mistake that was found is listed at once.

    Attributes:
        mistakes: One sentence for each mistake.
    """

    def __init__(self, task: str, mistakes: Sequence[str]) -> None:
        self.task, self.mistakes = task, tuple(mistakes)
        listed = "; ".join(self.mistakes)
        super().__init__(f"the task {task} cannot be used: {listed}")


class PluginError(HedgerowError):
    """What a user brings by an entry point or a file of their own cannot be used.

    Attributes:
        kind: What it is to be, such as ``strategy``.
        name: How it was named.
        mistake: What was expected, what was found, and what to do.
    """

    def __init__(self, kind: str, name: str, mistake: str) -> None:
        self.kind, self.name, self.mistake = kind, name, mistake
        super().__init__(f"the {kind} {name!r} cannot be used: {mistake}")


class LinkError(HedgerowError):
    """The message link to the fleet failed."""


class BrokerUnreachableError(LinkError):
    """No MQTT broker answered."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"expected an MQTT broker at {host}:{port}, found none ({reason}); start one or correct the address"
        )
        self.host, self.port, self.reason = host, port, reason


class PortInUseError(HedgerowError):
    """A port that we want to serve on is taken."""

    def __init__(self, what: str, host: str, port: int) -> None:
        super().__init__(
            f"{what} wants to listen on {host}:{port}, but another program already does; stop it or choose another port"
        )
        self.host, self.port = host, port


class UnsupportedSystemError(HedgerowError):
    """This operating system lacks what Hedgerow's processes are built on: POSIX signals, forks and limits."""

    def __init__(self, system: str) -> None:
        super().__init__(
            f"expected Linux, on which Hedgerow's agent and commands run, found {system}; use a Linux machine, or a "
            "container or virtual machine with Linux"
        )
        self.system = system
