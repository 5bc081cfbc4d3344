"""Turns a verified slot into a model that runs: picks the runtime, loads the artifact, replays the golden samples.

A runtime's native code may end the process that loads or runs a file. What may end it so is in :func:`try_model` and
:func:`try_train_graph`, and trial.py lets a child process call them first.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.blame import is_raised_by_hedgerow
from hedgerow.client.errors import AgentFaultError, ClientError, InstallError, RejectedError, TrainingError
from hedgerow.client.runtimes import LoadedModel, Runtime, TrainStep, load_runtime
from hedgerow.client.runtimes.prepared import PreparedModel, first_half
from hedgerow.client.runtimes.stepped import SteppedModel, is_stepped
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.client.trainer import train
from hedgerow.errors import DecodeError, ExtraNotInstalledError, InputError, UnknownNameError
from hedgerow.installation import install_command
from hedgerow.model_schema import ModelSchema
from hedgerow.weights import Arrays, decode_arrays

__all__ = [
    "Answers",
    "LoadRuntime",
    "ReadyModel",
    "find_runtime",
    "load_model",
    "load_train_step",
    "replay_golden",
    "try_model",
    "try_train_graph",
]

_log = logging.getLogger(__name__)
_GOLDEN_LIMIT_BYTES = 256 * 2**20
_REASON_CHARS = 300

LoadRuntime = Callable[[str], Runtime]


@dataclass(slots=True)
class Answers:
    """How a model has done since it serves.

    Attributes:
        given: Batches that it answered.
        failed: Batches on which it raised, or gave what is no answer.
        reason: What was wrong last.
    """

    given: int = 0
    failed: int = 0
    reason: str = ""

    def missed(self, reason: str, *, was_given: bool = False) -> None:
        """Count a batch as failed; *was_given*: it was counted as answered before anybody looked at it."""
        self.given -= was_given
        self.failed += 1
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model in memory, with the slot that it came from.

    Attributes:
        slot: Verified.
        model: Loaded.
        answers: What :attr:`model` has answered; whoever asks it counts.
    """

    slot: OpenSlot
    model: LoadedModel
    answers: Answers = field(default_factory=Answers)

    @property
    def release(self) -> str:
        """The release's identity, ``name@number``."""
        return self.slot.manifest.release


def find_runtime(name: str, release: str, runtimes: LoadRuntime = load_runtime) -> Runtime:
    """Return the runtime that *release* needs.

    Raises:
        RejectedError: It is unknown here or not installed.
        InstallError: It is installed and cannot be loaded; :class:`AgentFaultError` when that is our fault.
    """
    try:
        return runtimes(name)
    except UnknownNameError as exc:
        found = f"only {', '.join(exc.known)}"
        raise RejectedError(release, f"the runtime {name}", found, "install it or compile for another one") from exc
    except ExtraNotInstalledError as exc:
        found = f"no module {exc.missing!r}" if exc.missing else "that it is not installed"
        advice = f"run: {install_command(exc.extra)}, or compile for another one"
        raise RejectedError(release, f"the runtime {name}", found, advice) from exc
    except ClientError:
        raise
    # What a native library lacks on this machine comes as an ImportError, an OSError or anything else.
    except Exception as exc:
        what = f"loading the runtime {name}"
        found = _unless_ours(what, exc)
        raise InstallError(what, "one that works here", found, "install it anew") from exc


def load_model(slot: OpenSlot, runtimes: LoadRuntime = load_runtime) -> ReadyModel:
    """Load a slot's artifact.

    Raises:
        RejectedError: Its runtime is unknown here or not installed.
        InstallError: The runtime does not take the file; :class:`AgentFaultError` when a line of ours failed on it.
    """
    artifact, schema = slot.artifact, slot.manifest.model_schema
    runtime = find_runtime(artifact.runtime, slot.manifest.release, runtimes)
    try:
        model = runtime.load(slot.blob(artifact.blob), artifact)
        if (before := first_half(artifact)) is not None:
            model = PreparedModel(runtime.load(slot.blob(before.blob), before), model, schema.state)
        if is_stepped(artifact, schema):
            model = SteppedModel(model, artifact, schema)
        return ReadyModel(slot, model)
    except ClientError:
        raise
    # Runtimes raise what they like, and one that cannot be loaded must not end the agent.
    except Exception as exc:
        found = _unless_ours("loading the artifact", exc)
        raise InstallError("loading the artifact", f"a file for {artifact.runtime}", found) from exc


def _unless_ours(what: str, exc: Exception) -> str:
    """Return what foreign code said in one line.

    Raises:
        AgentFaultError: A line of ours raised it.
    """
    found = " ".join(f"{type(exc).__name__}: {exc}".split())[:_REASON_CHARS]
    if is_raised_by_hedgerow(exc):
        _log.error("%s failed by a bug of the agent's own", what, exc_info=exc)
        raise AgentFaultError(what, found) from exc
    return found


def replay_golden(ready: ReadyModel) -> float | None:
    """Run the golden samples and compare with what the artifact gave when it was built.

    Returns:
        The largest absolute difference, or None when the release has no golden samples.

    Raises:
        InstallError: It is above the artifact's tolerance of an output, or the golden samples do not fit the model.
    """
    slot, artifact = ready.slot, ready.slot.artifact
    if artifact.golden is None:
        return None
    try:
        golden = decode_arrays(
            slot.blob(artifact.golden).read_bytes(), "golden samples", limit_bytes=_GOLDEN_LIMIT_BYTES
        )
    except DecodeError as exc:
        raise InstallError("the golden samples", exc.expected, exc.found, "compile the release again") from exc
    inputs = {name.removeprefix("input."): array for name, array in golden.items() if name.startswith("input.")}
    slot.manifest.model_schema.check_inputs(inputs)
    recorded = {name.removeprefix("output."): array for name, array in golden.items() if name.startswith("output.")}
    outputs = _replayed(ready, inputs, recorded)
    largest = 0.0
    absent = set(recorded) - set(outputs)
    if absent:
        raise InstallError(
            "the golden samples", f"the outputs {', '.join(sorted(absent))}", "a model without them", "compile it again"
        )
    for name, got in outputs.items():
        want = recorded.get(name)
        if want is None or want.shape != got.shape:
            found = "none" if want is None else f"shape {want.shape}"
            raise InstallError("the golden samples", f"{name} of shape {got.shape}", found, "compile the release again")
        difference = np.abs(want.astype(np.float64) - got.astype(np.float64))
        # A NaN is different from everything, also when it was there at build time.
        farthest = float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
        if farthest > artifact.tolerance_of(name):
            raise InstallError(
                "replaying the golden samples",
                f"outputs within {artifact.tolerance_of(name):g} of those at build time",
                f"a difference of {farthest:g}",
                "this device computes differently; compile with a wider tolerance or for another target",
            )
        largest = max(largest, farthest)
    return largest


def _replayed(ready: ReadyModel, inputs: Arrays, recorded: Arrays) -> dict[str, NDArray[Any]]:
    """Return what the model gives for golden samples.

    With state they are steps of sequences. Where a sample took what the sample before it gave, this device's own state
    is carried, as it will be in service; elsewhere a sequence begins with the state that was recorded.
    """
    pairs = {into: out for into, out in ready.slot.manifest.model_schema.state.items() if out in recorded}
    total = len(next(iter(inputs.values())))
    if not pairs or not total:
        return ready.model.predict(inputs)
    steps: list[dict[str, NDArray[Any]]] = []
    for place in range(total):
        row = {name: values[place : place + 1] for name, values in inputs.items()}
        if place and all(_is_carried(inputs[into], recorded[out], place) for into, out in pairs.items()):
            row |= {into: np.asarray(steps[-1][out], inputs[into].dtype) for into, out in pairs.items()}
        steps.append(ready.model.predict(row))
    return {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}


def _is_carried(taken: NDArray[Any], given: NDArray[Any], place: int) -> bool:
    return place <= len(given) and np.array_equal(taken[place], given[place - 1])


def try_model(slot: OpenSlot, runtimes: LoadRuntime, enter: Callable[[str], None]) -> ReadyModel:
    """Load a slot's artifact, run it on its golden samples (on zeros where it has none), and return it.

    Args:
        slot: Verified.
        runtimes: Finds a runtime by name.
        enter: Told ``load`` and ``replay`` before each begins.

    Raises:
        RejectedError: Its runtime is unknown here or not installed.
        InstallError: The runtime does not take the file, or it computes otherwise than at build time.
    """
    enter("load")
    ready = load_model(slot, runtimes)
    enter("replay")
    if slot.artifact.golden is None:
        ready.model.predict(_ZeroSamples(slot.manifest.model_schema, 1).read(np.zeros(1, np.int64))[0])
        return ready
    try:
        replay_golden(ready)
    except InputError as exc:
        raise InstallError("the golden samples", "inputs of the schema", str(exc), "compile the release again") from exc
    return ready


def load_train_step(slot: OpenSlot, runtimes: LoadRuntime = load_runtime) -> TrainStep:
    """Load a slot's train graph.

    Raises:
        RejectedError: Its runtime is unknown here or not installed.
        InstallError: There is none, or the runtime does not take the file.
    """
    graph, release = slot.train_graph, slot.manifest.release
    if graph is None:
        raise InstallError("loading the train graph", f"one in {release}", "none", "compile one into it")
    return find_runtime(graph.runtime, release, runtimes).load_train_graph(slot.blob(graph.blob), graph)


class _ZeroSamples:
    """One batch of zeros, target values too."""

    def __init__(self, schema: ModelSchema, size: int) -> None:
        self._schema, self._size = schema, size

    def __len__(self) -> int:
        return self._size

    def read(self, indices: NDArray[np.int64]) -> tuple[Arrays, Arrays]:
        size = len(indices)
        inputs = {spec.name: np.zeros((size, *spec.shape), spec.dtype) for spec in self._schema.inputs}
        wanted = {
            name: np.zeros((size, *output.target_shape), output.target_dtype)
            for name, output in self._schema.answers.items()
        }
        return inputs, wanted


def try_train_graph(slot: OpenSlot, runtimes: LoadRuntime, enter: Callable[[str], None]) -> None:
    """Load a slot's train graph and take one step with it, on zeros: what counts is that the process lives on.

    Raises:
        RejectedError: Its runtime is unknown here or not installed.
        InstallError: There is none, or the runtime does not take the file.
    """
    enter("load")
    step = load_train_step(slot, runtimes)
    enter("step")
    graph = slot.train_graph
    if graph is None:
        return
    zeros = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in graph.parameters}
    samples = _ZeroSamples(slot.manifest.model_schema, graph.batch_size)
    try:
        train(step, graph, samples, zeros, epochs=1, learning_rate=0.0, rng=np.random.default_rng(0))
    except TrainingError:
        # Zeros may well give no finite loss; a graph that cannot be trained says so when it is to be.
        return
