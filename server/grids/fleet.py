"""A grid whose nodes are enrolled devices: Flower's strategies here, the train graph there, a transport between."""

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict

from hedgerow.server.errors import LocalTermError
from hedgerow.server.flower import array_record, clipping_keys, error_codes
from hedgerow.server.grids.synchronous import SynchronousGrid, error_reply, mismatch, sent_arrays
from hedgerow.server.grids.transport import DeviceUpdate, RoundTransport, RoundWork
from hedgerow.weights import Arrays

__all__ = ["FleetGrid", "device_node_id"]

_LOG = logging.getLogger(__name__)


def device_node_id(device: str) -> int:
    """Return a device's Flower node id: a hash of its name, so that it is the same in every run."""
    return int.from_bytes(hashlib.sha256(device.encode()).digest()[:8], "big") >> 1


class FleetGrid(SynchronousGrid):
    """Trains on devices that a :class:`RoundTransport` reaches.

    A train message becomes a :class:`RoundWork` and an update a reply. The message's configuration overrides this
    grid's defaults through the keys ``run``, ``server-round``, ``epochs``, ``learning-rate``, ``seed`` and
    ``minimum-samples``. An update that failed, was declined, is late, missing or does not match the weights that were
    sent becomes a Flower error reply, which strategies leave out. Devices do not evaluate: evaluation messages get
    error replies.
    """

    def __init__(
        self,
        transport: RoundTransport,
        *,
        run: str = "run",
        epochs: int = 1,
        learning_rate: float = 0.1,
        seed: int = 0,
        minimum_samples: int = 1,
        deadline_s: float = 600.0,
    ) -> None:
        """Make a grid.

        Args:
            transport: Reaches the devices.
            run: Identity of the training run.
            epochs: Passes over a device's samples.
            learning_rate: Step size on the device.
            seed: Of the order of samples.
            minimum_samples: A device with fewer declines.
            deadline_s: The longest that a round may take; a shorter timeout of the strategy wins.

        Raises:
            FlowerVersionError: The installed Flower was not tested.
        """
        super().__init__()
        self._transport = transport
        self._defaults: Mapping[str, Any] = {
            "run": run,
            "epochs": epochs,
            "learning-rate": learning_rate,
            "seed": seed,
            "minimum-samples": minimum_samples,
        }
        self._deadline_s = deadline_s
        self._names: dict[int, str] = {}
        self._present: set[int] = set()

    @property
    def kind(self) -> str:
        """``fleet``."""
        return "fleet"

    def get_node_ids(self) -> Sequence[int]:
        """Return the ids of the devices that can train now, sorted.

        Between two rounds the answer only grows: Flower waits without end when a node vanishes between two calls of
        one round. A device that did vanish times out and becomes an error reply.
        """
        for device in self._transport.devices():
            node = device_node_id(device)
            self._names[node] = device
            self._present.add(node)
        return sorted(self._present)

    def node_name(self, node_id: int) -> str:
        """Return the device's name."""
        return self._names.get(node_id, str(node_id))

    def answer(self, messages: Sequence[Any], timeout_s: float | None) -> Iterable[Any]:
        """Carry the messages, one round of the transport for each distinct content."""
        self._present = set()
        replies: list[Any] = []
        groups: dict[int, list[Any]] = {}
        for message in messages:
            groups.setdefault(id(message.content), []).append(message)
        for group in groups.values():
            weights = sent_arrays(group[0])
            if weights is None:
                replies.extend(self._refuse(message) for message in group)
            else:
                replies.extend(self._train(group, weights, timeout_s))
        return replies

    def _refuse(self, message: Any) -> Any:
        kind = message.metadata.message_type
        reason = f"devices take train messages with one ArrayRecord, not {kind}"
        return error_reply(
            message, error_codes().MOD_FAILED_PRECONDITION, self.node_name(message.metadata.dst_node_id), reason
        )

    def _train(self, messages: Sequence[Any], weights: Arrays, timeout_s: float | None) -> list[Any]:
        by_device = {self.node_name(message.metadata.dst_node_id): message for message in messages}
        work = self._work(messages[0], weights, tuple(sorted(by_device)), timeout_s)
        updates: dict[str, DeviceUpdate] = {}
        for update in self._transport.run_round(work):
            if update.device in by_device:
                updates.setdefault(update.device, update)
            else:
                _LOG.warning("round %d: %s answered without being asked", work.round, update.device)
        refusals = {device: _refusal(updates.get(device), work) for device in work.devices}
        usable = [updates[device] for device in work.devices if refusals[device] is None]
        common = _common_metrics(usable)
        return [
            self._reply(by_device[device], updates.get(device), refusals[device], common) for device in work.devices
        ]

    def _work(self, message: Any, weights: Arrays, devices: tuple[str, ...], timeout_s: float | None) -> RoundWork:
        settings: dict[str, Any] = {"server-round": 1, **self._defaults}
        for record in message.content.config_records.values():
            settings.update(record)
        for setting in ("proximal-mu", clipping_keys()[0]):
            value = float(settings.get(setting, 0.0))
            if value != 0.0:
                raise LocalTermError(setting, value)
        return RoundWork(
            run=str(settings["run"]),
            round=int(settings["server-round"]),
            weights=weights,
            devices=devices,
            epochs=int(settings["epochs"]),
            learning_rate=float(settings["learning-rate"]),
            seed=int(settings["seed"]),
            minimum_samples=int(settings["minimum-samples"]),
            deadline_s=self._deadline_s if timeout_s is None else min(timeout_s, self._deadline_s),
        )

    def _reply(
        self, message: Any, update: DeviceUpdate | None, refusal: tuple[int, str] | None, common: frozenset[str]
    ) -> Any:
        if update is None or update.weights is None or refusal is not None:
            code, reason = refusal or (error_codes().UNKNOWN, "it sent no weights")
            return error_reply(message, code, self.node_name(message.metadata.dst_node_id), reason)
        metrics = {name: float(update.metrics[name]) for name in sorted(common)}
        content = RecordDict(
            {
                "arrays": array_record(update.weights),
                "metrics": MetricRecord({**metrics, "num-examples": update.examples}),
            }
        )
        return Message(content, reply_to=message)


def _refusal(update: DeviceUpdate | None, work: RoundWork) -> tuple[int, str] | None:
    """Return Flower's error code and the reason why *update* is not used, or None if it is."""
    codes = error_codes()
    if update is None or update.state == "timed out":
        late = f"no answer within {work.deadline_s:g} s"
        return codes.REPLY_MESSAGE_UNAVAILABLE, (update.reason if update is not None and update.reason else late)
    if update.state != "done":
        code = codes.NODE_UNAVAILABLE if update.state == "declined" else codes.CLIENT_APP_RAISED_EXCEPTION
        return code, f"{update.state}: {update.reason or 'no reason given'}"
    if update.weights is None:
        return codes.MOD_FAILED_PRECONDITION, "it says done but sent no weights"
    if update.examples < 1:
        return codes.MOD_FAILED_PRECONDITION, f"it says done on {update.examples} samples"
    wrong = mismatch(update.weights, work.weights, update.device)
    return None if wrong is None else (codes.MOD_FAILED_PRECONDITION, wrong)


def _common_metrics(updates: Sequence[DeviceUpdate]) -> frozenset[str]:
    """Return the metrics that all updates have and that are finite: Flower averages only equal sets."""
    names = [
        {name for name, value in update.metrics.items() if math.isfinite(value) and name != "num-examples"}
        for update in updates
    ]
    return frozenset(set.intersection(*names)) if names else frozenset()
