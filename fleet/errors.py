"""What can go wrong in the fleet, as one tree.

- FleetError: the root of this folder's errors.
  - AdminKeyError: the admin key is absent, unreadable or not the fleet's.
  - BrokerEndedError: a development broker ended although nobody asked it to.
  - BrokerStartError: a development broker did not start.
  - ChildDiedError: a child process ended although nobody asked it to.
  - CommandConflictError: the id of a command was used for another one.
  - CommandNotBegunError: the service was too busy to begin a command in time; it is never carried out.
  - CommandUnderWayError: a command was begun and is not over; it is carried out whether anybody waits or not.
  - DemoError: the demo cannot run as asked (demo/errors.py).
    - DemoInterruptedError: a signal ended the demo.
    - DemoTimeoutError: something that the demo waited for did not happen.
  - DeployError: a checkpoint cannot be deployed as asked.
  - FleetFolderError: a folder is not the fleet's that it should be.
  - InvalidTransitionError: a rollout's state does not allow the event.
  - KeyFileError: the file of a signing key cannot be used.
  - NoDevicesError: a release fits no device of the fleet.
  - PlanError: a rollout, gate or drift plan contradicts itself.
  - RefusedRequestError: the fleet service will not do what it was asked.
  - ReleaseError: a release, or what it is to be made from, is not what it should be.
    - FailedChecksError: a build's artifacts failed checks.
  - RetrainError: retraining cannot start or go on.
  - RolloutConflictError: another rollout is not finished yet.
  - ServeError: the HTTP server cannot listen where it was told to.
  - ServiceSettingsError: a setting has a value that cannot be used.
  - ServiceStoppedError: the fleet service was stopped while it was asked for something.
  - ServiceUnreachableError: no fleet service answered.
  - SigningError: the signed repository, or what should go into it, is not what it should be.
  - StoreError: the fleet's database cannot be used.
  - TrainingRoundError: a device's part in a training round is refused.
  - UnknownCommandError: no command of that id is known.
  - UnknownDeviceError: no device of that name was ever heard of.
  - UnknownReleaseError: a release is not listed in the signed metadata.
  - UnknownRolloutError: there is no rollout of that id.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hedgerow.children.ended import Ended
from hedgerow.errors import HedgerowError

__all__ = [
    "AdminKeyError",
    "BrokerEndedError",
    "BrokerStartError",
    "ChildDiedError",
    "CommandConflictError",
    "CommandNotBegunError",
    "CommandUnderWayError",
    "DeployError",
    "FailedChecksError",
    "FleetError",
    "FleetFolderError",
    "InvalidTransitionError",
    "KeyFileError",
    "NoDevicesError",
    "PlanError",
    "RefusedRequestError",
    "ReleaseError",
    "RetrainError",
    "RolloutConflictError",
    "ServeError",
    "ServiceSettingsError",
    "ServiceStoppedError",
    "ServiceUnreachableError",
    "SigningError",
    "StoreError",
    "TrainingRoundError",
    "UnknownCommandError",
    "UnknownDeviceError",
    "UnknownReleaseError",
    "UnknownRolloutError",
]


class FleetError(HedgerowError):
    """The root of the fleet's errors."""


class UnknownReleaseError(FleetError):
    """A release is not listed in the signed metadata."""

    def __init__(self, release: str, known: Sequence[str]) -> None:
        listed = ", ".join(known) or "none"
        super().__init__(f"expected a signed release, found {release!r}; the signed ones are: {listed}")
        self.release, self.known = release, tuple(known)


class ServiceSettingsError(FleetError):
    """A setting has a value that cannot be used.

    Attributes:
        name: The setting or its environment variable.
        value: What was found.
    """

    def __init__(self, name: str, value: str, expected: str) -> None:
        super().__init__(f"{name}: expected {expected}, found {value!r}; correct it or leave it out")
        self.name, self.value, self.expected = name, value, expected


class StoreError(FleetError):
    """The fleet's database cannot be used."""

    def __init__(self, path: str, expected: str, found: str, advice: str) -> None:
        super().__init__(f"the store {path}: expected {expected}, found {found}; {advice}")
        self.path = path


class FleetFolderError(FleetError):
    """A folder is not the fleet's that it should be."""

    def __init__(self, path: str, expected: str, found: str, advice: str) -> None:
        super().__init__(f"{path}: expected {expected}, found {found}; {advice}")
        self.path = path


class UnknownDeviceError(FleetError):
    """No device of that name was ever heard of."""

    def __init__(self, device: str) -> None:
        super().__init__(
            f"expected a device that has reported itself, found no {device!r}; correct the name, or wait for its report"
        )
        self.device = device


class UnknownRolloutError(FleetError):
    """There is no rollout of that id."""

    def __init__(self, rollout: str) -> None:
        super().__init__(f"expected the id of a rollout, found {rollout!r}; `hedgerow rollout status` lists them")
        self.rollout = rollout


class RolloutConflictError(FleetError):
    """Another rollout is not finished yet."""

    def __init__(self, rollout: str, state: str) -> None:
        super().__init__(
            f"expected no unfinished rollout, found {rollout} ({state}); wait until it ends, or abort it with "
            f"POST /v1/rollouts/{rollout}/abort"
        )
        self.rollout, self.state = rollout, state


class NoDevicesError(FleetError):
    """A release fits no device of the fleet."""

    def __init__(self, release: str, targets: Sequence[str], devices: int) -> None:
        super().__init__(
            f"expected devices with one of the targets of {release} ({', '.join(sorted(targets))}), found none among "
            f"{devices} known devices; start agents with these targets or compile for theirs"
        )
        self.release, self.targets, self.devices = release, tuple(targets), devices


class ServiceUnreachableError(FleetError):
    """No fleet service answered.

    Attributes:
        was_sent: Whether the request went out whole, so that what it asked for may have been done.
    """

    def __init__(self, url: str, reason: str, *, was_sent: bool = False) -> None:
        advice = "start one with `hedgerow fleet serve` or correct --server"
        if was_sent:
            advice = "it may do what it was asked all the same, so look before you ask again"
        found = "no answer" if was_sent else "none"
        super().__init__(f"expected a fleet service at {url}, found {found} ({reason}); {advice}")
        self.url, self.reason, self.was_sent = url, reason, was_sent


class ServiceStoppedError(FleetError):
    """The fleet service was stopped while it was asked for something."""

    def __init__(self) -> None:
        super().__init__("expected a running fleet service, found that it was stopped; start it and ask again")


class CommandNotBegunError(FleetError):
    """The service was too busy to begin a command in time. It was taken back and is never carried out.

    Attributes:
        command: Its id.
        retry_after_s: When it makes sense to ask again.
    """

    retry_after_s = 5

    def __init__(self, command: str, timeout_s: float) -> None:
        super().__init__(
            f"expected the fleet service to begin within {timeout_s:g} s, found it busy with other work; nothing was "
            "done and nothing will be: ask again"
        )
        self.command = command


class CommandUnderWayError(FleetError):
    """A command was begun and is not over; it is carried out whether anybody waits or not.

    Attributes:
        command: Its id, under which the answer can be had.
    """

    def __init__(self, command: str, timeout_s: float) -> None:
        super().__init__(
            f"expected an answer within {timeout_s:g} s, found the command {command} still being carried out; do not "
            f"ask for it again, ask how it ended: GET /v1/commands/{command}"
        )
        self.command = command


class CommandConflictError(FleetError):
    """The id of a command was used for another one."""

    def __init__(self, command: str, known: str, found: str) -> None:
        super().__init__(
            f"expected {known!r} under the id {command}, found {found!r}; an idempotency key belongs to one request"
        )
        self.command = command


class UnknownCommandError(FleetError):
    """No command of that id is known."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"expected the id of a command since the service was started, found {command!r}; it was never begun, or is "
            "long over: look at what it should have changed"
        )
        self.command = command


class AdminKeyError(FleetError):
    """The admin key is absent, unreadable or not the fleet's."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"expected the fleet's admin key, found {found}; pass --key-file <fleet folder>/admin.key or set "
            "HEDGEROW_ADMIN_KEY"
        )


class RefusedRequestError(FleetError):
    """The fleet service answered that it will not do what it was asked.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class ServeError(FleetError):
    """The HTTP server cannot listen where it was told to."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"expected to listen on {host}:{port}, found that it cannot ({reason}); choose another address"
        )
        self.host, self.port = host, port


class TrainingRoundError(FleetError):
    """A device's part in a training round is refused.

    Attributes:
        status: The HTTP status that says so.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class RetrainError(FleetError):
    """Retraining cannot start or go on."""


class KeyFileError(FleetError):
    """The file of a signing key cannot be used."""

    def __init__(self, path: Path, expected: str, found: str, advice: str) -> None:
        super().__init__(f"expected {expected} at {path}, found {found}; {advice}")
        self.path = path


class SigningError(FleetError):
    """The signed repository, or what should go into it, is not what it should be."""

    def __init__(self, path: Path, expected: str, found: str, advice: str) -> None:
        super().__init__(f"expected {expected} at {path}, found {found}; {advice}")
        self.path = path


class DeployError(FleetError):
    """A checkpoint cannot be deployed as asked."""

    def __init__(self, expected: str, found: str, advice: str) -> None:
        super().__init__(f"expected {expected}, found {found}; {advice}")
        self.expected, self.found = expected, found


class ReleaseError(FleetError):
    """A release, or what it is to be made from, is not what it should be.

    Attributes:
        what: The release or the file that is wrong.
    """

    def __init__(self, what: str | Path, expected: str, found: str, advice: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}; {advice}")
        self.what = what


class FailedChecksError(ReleaseError):
    """Artifacts of a build failed checks.

    Attributes:
        failed: Target -> names of the checks that its artifact failed.
    """

    def __init__(self, folder: Path, failed: Mapping[str, Sequence[str]]) -> None:
        listed = "; ".join(f"{target}: {', '.join(names)}" for target, names in sorted(failed.items()))
        super().__init__(
            folder, "artifacts that passed their checks", f"failed ones ({listed})", "compile again with another recipe"
        )
        self.failed = {target: tuple(names) for target, names in failed.items()}


class PlanError(FleetError):
    """A plan cannot be used; every mistake that was found is listed at once.

    Attributes:
        what: Which plan, such as ``rollout plan``.
        mistakes: One sentence for each mistake.
    """

    def __init__(self, what: str, mistakes: Sequence[str]) -> None:
        self.what, self.mistakes = what, tuple(mistakes)
        super().__init__(f"the {what} cannot be used: {'; '.join(self.mistakes)}")


class InvalidTransitionError(FleetError):
    """The rollout's state does not allow the event.

    Attributes:
        rollout: Its identity.
        state: Its state.
        event: Name of the event, such as ``Paused``.
        allowed: States in which the event is legal.
    """

    def __init__(self, rollout: str, state: str, event: str, allowed: Iterable[str]) -> None:
        self.rollout, self.state, self.event, self.allowed = rollout, state, event, tuple(sorted(allowed))
        super().__init__(
            f"{event} needs the rollout {rollout} to be {' or '.join(self.allowed)}, and it is {state}; "
            "look at its status and choose another action"
        )


class BrokerStartError(FleetError):
    """A development broker did not start."""

    def __init__(self, broker: str, found: str, advice: str) -> None:
        super().__init__(f"expected the broker {broker} to start, found: {found}; {advice}")
        self.broker = broker


class BrokerEndedError(FleetError):
    """A development broker ended although nobody asked it to."""

    def __init__(self, broker: str, host: str, port: int) -> None:
        super().__init__(
            f"expected the broker {broker} to run on at {host}:{port}, found that it ended; start it again"
        )
        self.broker, self.host, self.port = broker, host, port


class ChildDiedError(FleetError):
    """A child process ended although nobody asked it to.

    Attributes:
        ended: How.
        log_path: What it said.
    """

    def __init__(self, ended: Ended, log_path: Path) -> None:
        how = f"was ended by {ended.signal_name}" if ended.signal_name else f"ended with exit code {ended.code}"
        said = " | ".join(ended.last_lines) or "nothing"
        super().__init__(
            f"expected the process {ended.name} to run on, but it {how} and last said: {said}; see {log_path}"
        )
        self.ended, self.log_path = ended, log_path
