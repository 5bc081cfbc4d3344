"""One training round on this device: fetch the weights, train, send the update, say how it went."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hedgerow.client.buffer import LabelledBuffer
from hedgerow.client.errors import (
    ClientError,
    DeclinedError,
    InstallError,
    OtherTargetError,
    RejectedError,
    SlotDamagedError,
    StoppedError,
    TrainingError,
    TransferError,
)
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.loading import LoadRuntime, load_train_step
from hedgerow.client.runtimes import TrainStep, load_runtime
from hedgerow.client.slot_folders import OpenSlot, SlotFolders
from hedgerow.client.trainer import TrainedWeights, train
from hedgerow.client.trial import Trials
from hedgerow.errors import DecodeError
from hedgerow.local_work import work_of_train_task
from hedgerow.manifest.content import Blob
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.weights import decode_arrays, encode_arrays
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = ["RoundTrainer"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LoadedGraph:
    release: str
    slot: OpenSlot
    graph: TrainGraph
    step: TrainStep


class RoundTrainer:
    """Answers rounds, one at a time. A train graph stays loaded from one round to the next, until :meth:`rest`.

    Args:
        device: Name of this device.
        slots: The slots; one holds the train graph.
        buffer: What to train on.
        http: Fetches weights and sends updates.
        pause: Waits the seconds it is given; returns True when the agent is stopping.
        trials: Tries a train graph before it is loaded into this process.
        runtimes: Finds a runtime by name.
        clock: Rising seconds.
        wall_clock: Unix seconds, the clock of the buffer.
    """

    def __init__(
        self,
        device: str,
        slots: SlotFolders,
        buffer: LabelledBuffer,
        http: FleetHttp,
        pause: Callable[[float], bool],
        trials: Trials,
        *,
        runtimes: LoadRuntime = load_runtime,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._device, self._slots, self._buffer, self._http = device, slots, buffer, http
        self._pause, self._trials, self._runtimes, self._clock = pause, trials, runtimes, clock
        self._wall_clock = wall_clock
        self._loaded: _LoadedGraph | None = None

    def rest(self) -> None:
        """Give the train graph's memory back."""
        self._loaded = None

    def answer(self, task: TrainTask) -> TrainUpdate:
        """Train *task* and send the update; return the answer for the fleet.

        Raises:
            StoppedError: The agent is stopping; nothing is answered.
        """
        started = self._clock()
        try:
            result, blob = self._trained(task, started + task.deadline_s)
        except StoppedError:
            raise
        except DeclinedError as exc:
            return TrainUpdate(run=task.run, round=task.round, state="declined", reason=str(exc))
        except (ClientError, DecodeError, OSError) as exc:
            _log.warning("round %d of %s failed: %s", task.round, task.run, exc)
            return TrainUpdate(run=task.run, round=task.round, state="failed", reason=str(exc))
        seconds = self._clock() - started
        metrics = {"loss": result.loss, "seconds": seconds}
        _log.info(
            "round %d of %s: %d samples, loss %.4f, %.2f s", task.round, task.run, result.examples, result.loss, seconds
        )
        return TrainUpdate(
            run=task.run, round=task.round, state="done", examples=result.examples, metrics=metrics, weights=blob
        )

    def _trained(self, task: TrainTask, deadline: float) -> tuple[TrainedWeights, Blob]:
        loaded = self._graph(task.release)
        work = work_of_train_task(task, self._device, batch_size=loaded.graph.batch_size)
        age_s = task.maximum_age_s
        since = None if age_s is None else self._wall_clock() - age_s
        schema = loaded.slot.manifest.model_schema
        with self._buffer.samples(schema, since=since) as samples:
            if len(samples) < max(1, work.minimum_samples):
                new = "" if age_s is None else f" of the last {age_s:.0f} s, after the world changed here"
                raise DeclinedError(
                    f"expected {max(1, work.minimum_samples)} or more labelled samples{new}, found {len(samples)}; "
                    f"{schema.answers.request}"
                )
            place, bearer = f"v1/training/{task.run}/{task.round}", {"Authorization": f"Bearer {task.token}"}
            payload = self._http.get(f"{place}/weights", limit_bytes=task.weights.length_bytes, headers=bearer)
            if hashlib.sha256(payload).hexdigest() != task.weights.sha256:
                raise TransferError("the global weights", f"SHA-256 {task.weights.sha256[:12]}...", "other bytes")
            weights = decode_arrays(payload, "the global weights", limit_bytes=task.weights.length_bytes)

            def proceed() -> None:
                if self._pause(0):
                    raise StoppedError
                if self._clock() > deadline:
                    raise TrainingError(
                        f"expected to finish within {task.deadline_s:g} s, found no time left; ask for fewer epochs"
                    )

            result = train(
                loaded.step,
                loaded.graph,
                samples,
                weights,
                epochs=work.epochs,
                learning_rate=work.learning_rate,
                rng=np.random.default_rng(work.order_seed),
                proceed=proceed,
            )
        body = encode_arrays(result.weights)
        self._http.put(f"{place}/updates/{self._device}", body, headers=bearer)
        return result, Blob(hashlib.sha256(body).hexdigest(), len(body))

    def _graph(self, release: str) -> _LoadedGraph:
        if self._loaded is not None and self._loaded.release == release:
            return self._loaded
        self._loaded = None
        state = self._slots.state
        held = state.holds(release)
        if held is None or not (held is state.active or state.contents[held].was_healthy):
            raise DeclinedError(
                f"expected the train graph of {release}, found that it is in no slot that has proved itself; roll it "
                "out first"
            )
        try:
            slot = self._slots.open(held)
        except (OtherTargetError, SlotDamagedError) as exc:
            raise DeclinedError(str(exc)) from exc
        graph = slot.train_graph
        if graph is None:
            raise DeclinedError(
                f"expected a train graph for {slot.artifact.runtime} in {release}, found none; compile one into it"
            )
        try:
            self._trials.train_graph(slot)
            step = load_train_step(slot, self._runtimes)
        except (InstallError, RejectedError) as exc:
            raise TrainingError(str(exc)) from exc
        self._loaded = _LoadedGraph(release, slot, graph, step)
        return self._loaded
