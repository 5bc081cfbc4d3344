"""What can go wrong in federated training, as one tree.

- ServerError: the root of this folder's errors.
  - ClientTrainingError: a client's training failed, or ended its worker process (cohort/errors.py).
  - CohortMemoryError: memory does not hold one client (cohort/errors.py).
  - FlowerVersionError: a Flower that our adapter was not tested with.
  - LocalTermError: a strategy that devices cannot follow.
  - NotEnoughDevicesError: too few devices can train.
  - RoundFailedError: a round's updates give no weights.
    - NoUpdateError: rounds, or the last one, used no update.
  - RunFolderError: a run folder cannot be used.
    - RunMismatchError: a run folder is another run's.
  - SimulationError: settings that no simulation can have (simulation/errors.py).
    - NoGpuError: a GPU was asked for and there is none.
  - StrategyOptionError: a strategy's option that it does not have or cannot be.
  - UntraceableError: a model cannot be trained for many clients in one step (cohort/errors.py).
  - WeightsFileError: a file holds no weights that can be taken (weights/errors.py).
  - WeightsMisfitError: the weights of a file are not those of a task's model (weights/errors.py).
  - WorkerStartError: a worker process cannot make the ClientApp that it is to call.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hedgerow.errors import HedgerowError

__all__ = [
    "FlowerVersionError",
    "LocalTermError",
    "NoUpdateError",
    "NotEnoughDevicesError",
    "RoundFailedError",
    "RunFolderError",
    "RunMismatchError",
    "ServerError",
    "StrategyOptionError",
    "WorkerStartError",
]


class ServerError(HedgerowError):
    """The root of this folder's errors."""


class FlowerVersionError(ServerError):
    """The installed Flower is not one that our use of its internals was tested with."""

    def __init__(self, found: str, tested: Sequence[str]) -> None:
        super().__init__(
            f"expected Flower {' or '.join(tested)}, whose internals Hedgerow was tested with, found {found}; "
            f"run: pip install 'flwr=={tested[-1]}.*'"
        )
        self.found, self.tested = found, tuple(tested)


class NotEnoughDevicesError(ServerError):
    """Fewer devices than the minimum can train."""

    def __init__(self, needed: int, found: int, waited_s: float, trouble: str = "") -> None:
        why = f" ({trouble})" if trouble else ""
        super().__init__(
            f"expected at least {needed} devices that can train, found {found} after {waited_s:g} s{why}; "
            "connect more devices or lower the minimum"
        )
        self.needed, self.found, self.waited_s = needed, found, waited_s


class RoundFailedError(ServerError):
    """A round's updates give no weights, and the run ends.

    Attributes:
        round_number: The round's number, from 1.
        reasons: Node name -> why its update was not used, in that round.
        kinds: Why updates were not used -> how many, in all rounds that the error is about.
    """

    def __init__(
        self,
        round_number: int,
        reasons: Mapping[str, str],
        found: str,
        *,
        expected: str = "usable updates",
        kinds: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(
            f"round {round_number}: expected {expected}, found {found}; correct the cause and run it again, finished "
            "rounds are kept"
        )
        self.round_number, self.reasons, self.kinds = round_number, dict(reasons), dict(kinds or {})

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"error": str(self), "round": self.round_number, "refused": self.kinds}


class NoUpdateError(RoundFailedError):
    """Too many rounds in a row, or the last one, used no update: the weights are not what was asked for.

    Attributes:
        rounds: So many rounds in a row.
    """

    def __init__(self, round_number: int, rounds: int, reasons: Mapping[str, str], kinds: Mapping[str, int]) -> None:
        span = "none" if rounds == 1 else f"none in the last {rounds} rounds"
        counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) or "nobody was asked"
        first = next(iter(sorted(reasons.items())), None)
        said = "" if first is None else f"; {first[0]}: {first[1]}"[:300]
        super().__init__(
            round_number,
            reasons,
            f"{span} ({counted}{said})",
            expected="at least one update that can be used",
            kinds=kinds,
        )
        self.rounds = rounds


class LocalTermError(ServerError):
    """A strategy changes the local steps, which a device's train graph cannot."""

    def __init__(self, setting: str, value: float) -> None:
        super().__init__(
            f"expected a strategy whose clients take plain SGD steps, as train graphs do, found {setting} {value:g}; "
            "train on devices with fedavg, fedadam or another strategy of the server side"
        )
        self.setting, self.value = setting, value


class StrategyOptionError(ServerError):
    """The part of a strategy's name that sets options cannot be followed."""

    def __init__(self, name: str, found: str, advice: str = "correct the options") -> None:
        super().__init__(
            f"expected a strategy such as fedavg+client-fixed:clip=1,noise=0.5, found {name!r} with {found}; {advice}"
        )
        self.name = name


class WorkerStartError(ServerError):
    """A worker process cannot make the ClientApp that it is to call."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"expected a ClientApp in the worker process, found {reason}; correct the reference or the function that "
            "makes it"
        )
        self.reason = reason


class RunFolderError(ServerError):
    """A run folder cannot be used."""

    def __init__(self, folder: Path, expected: str, found: str, advice: str) -> None:
        super().__init__(f"expected {expected} at {folder}, found {found}; {advice}")
        self.folder = folder


class RunMismatchError(RunFolderError):
    """A run folder holds a run with other settings.

    Attributes:
        differing: Name of the setting -> (in the folder, asked for).
    """

    def __init__(self, folder: Path, differing: Mapping[str, tuple[object, object]]) -> None:
        listed = ", ".join(f"{name} {was!r} instead of {asked!r}" for name, (was, asked) in sorted(differing.items()))
        super().__init__(
            folder, "a run with the same settings", f"one with {listed}", "choose another folder or start with --fresh"
        )
        self.differing = dict(differing)
