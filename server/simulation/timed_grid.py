"""A grid in virtual time: another grid trains, this one says who is there, who is in time, and how late it is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict

from hedgerow.decode import Fields
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.errors import NotEnoughDevicesError
from hedgerow.server.flower import error_codes, received_message, set_refusal_kind
from hedgerow.server.grids.synchronous import SynchronousGrid
from hedgerow.server.replies import Kind
from hedgerow.server.round_settings import SERVER_ROUND, message_settings
from hedgerow.server.simulation.availability import AlwaysAvailable
from hedgerow.server.simulation.battery import BatteryLedger
from hedgerow.server.simulation.clock import DAY_HOURS, HOUR_S, VirtualClock
from hedgerow.server.simulation.deadlines import DeviceOutcome, DeviceWork, RoundPolicy, RoundSchedule, schedule_round
from hedgerow.server.simulation.draws import Numbers, uniforms
from hedgerow.server.simulation.population import Population

__all__ = ["SampleCounts", "TimedGrid", "TimedRound", "sizes_of"]

SampleCounts = Callable[[Numbers], Numbers]
"""Device numbers ``int64[n]`` -> samples of each ``int64[n]``."""

_WAIT_STEP_S = 900.0
_LONGEST_WAIT_S = 366 * DAY_HOURS * HOUR_S
_REASONS = {
    DeviceOutcome.LATE: "it was not done when the round ended",
    DeviceOutcome.DROPPED: "it dropped out",
    DeviceOutcome.UNAVAILABLE: "it was not available when the round began",
}

_KINDS = {DeviceOutcome.LATE: Kind.LATE, DeviceOutcome.DROPPED: Kind.DROPPED, DeviceOutcome.UNAVAILABLE: Kind.ABSENT}


def sizes_of(clients: ClientIndex) -> SampleCounts:
    """Return how to ask *clients* for many sizes at once."""
    return lambda devices: np.array([clients.size(int(device)) for device in devices], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class TimedRound:
    """When a round was, and what came of its devices.

    Attributes:
        round: Its number.
        started_s: Virtual time at its start.
        ended_s: Virtual time at its end.
        counts: DeviceOutcome (``done``, ``partial``, ``late``, ``dropped``, ``unavailable``) -> devices.
    """

    round: int
    started_s: float
    ended_s: float
    counts: Mapping[str, int]


class TimedGrid(SynchronousGrid):
    """Puts a population's times and absences round a grid that knows neither.

    Strategies see the devices that can train at the virtual time. Train messages are scheduled: those of devices that
    are done in time go to the inner grid, the others get Flower's error replies, and the clock moves to the round's
    end. A device that keeps partial work gets its message with fewer ``epochs`` in the configuration. Other messages,
    such as evaluations, pass at no cost.

    Attributes:
        clock: Moved by rounds, and by waiting for devices.
        rounds: What was, in order.
    """

    def __init__(
        self,
        inner: SynchronousGrid,
        population: Population,
        *,
        work: DeviceWork,
        samples: SampleCounts | int,
        policy: RoundPolicy | None = None,
        clock: VirtualClock | None = None,
        minimum_nodes: int = 1,
        listed: int | None = None,
    ) -> None:
        """Wrap *inner*.

        Args:
            inner: Trains. Its node ids follow one another; the first is device 0.
            population: As many devices as *inner* has nodes.
            work: What a device does in a round; a message's ``epochs`` take the place of the work's.
            samples: Samples of each device: one number for all, or :func:`sizes_of` a client index.
            policy: When a round ends; None: when all are done.
            clock: None: a new one.
            minimum_nodes: Virtual time passes until so many devices are available.
            listed: Show strategies a uniform draw of at most so many available devices; None: all of them. To look at
                a million devices takes a while; a strategy that samples a fixed number (``min_train_nodes``) samples
                as well from a draw, but one that samples a fraction takes the fraction of the draw.

        Raises:
            ValueError: The numbers do not fit each other.
            FlowerVersionError: The installed Flower was not tested.
        """
        super().__init__()
        nodes = inner.get_node_ids()
        if len(nodes) != population.devices or nodes[-1] - nodes[0] != len(nodes) - 1:
            raise ValueError(
                f"expected {population.devices} nodes with ids that follow one another, found {len(nodes)}"
            )
        if not 1 <= minimum_nodes <= (listed or minimum_nodes) <= population.devices:
            raise ValueError(f"expected 1 <= minimum_nodes <= listed <= devices, found {minimum_nodes} and {listed}")
        self.clock = clock or VirtualClock()
        self._inner, self._first_id, self._population = inner, nodes[0], population
        self._work, self._policy = work, policy or RoundPolicy()
        self._samples = samples if callable(samples) else _equal(samples)
        self._minimum_nodes, self._listed = minimum_nodes, listed
        self._ledger = BatteryLedger()
        self._rounds: list[TimedRound] = []
        self._available: tuple[tuple[float, int], list[int]] | None = None
        always = isinstance(population.availability, AlwaysAvailable) and population.battery is None
        self._everybody = nodes if always and listed is None else None

    @property
    def kind(self) -> str:
        """The inner grid's kind, and that it is timed."""
        return f"{self._inner.kind}, timed"

    @property
    def virtual_s(self) -> float:
        """Now, on the virtual clock."""
        return self.clock.now_s

    @property
    def rounds(self) -> tuple[TimedRound, ...]:
        """What was, in order."""
        return tuple(self._rounds)

    def get_node_ids(self) -> Sequence[int]:
        """Return the ids of the devices that can train now; lets virtual time pass until there are enough.

        Raises:
            NotEnoughDevicesError: Not even in a year.
        """
        if self._everybody is not None:
            return self._everybody
        key = (self.clock.now_s, len(self._rounds))
        if self._available is None or self._available[0] != key:
            devices = self._wait_for_devices()
            self._available = ((self.clock.now_s, len(self._rounds)), (devices + self._first_id).tolist())
        return self._available[1]

    def node_name(self, node_id: int) -> str:
        """Return the inner grid's name of the node."""
        return self._inner.node_name(node_id)

    @property
    def trouble(self) -> str:
        """Why the inner grid cannot say which nodes are there."""
        return self._inner.trouble

    def reply_names(self, reply: Message) -> tuple[str, ...]:
        """Return the inner grid's names of the clients that *reply* stands for."""
        return self._inner.reply_names(reply)

    def answer(self, messages: Sequence[Message], timeout_s: float | None) -> Iterable[Message]:
        """Schedule the train messages, and let the inner grid answer what is in time."""
        train = [message for message in messages if message.metadata.message_type.split(".")[0] == MessageType.TRAIN]
        passing = [message for message in messages if message.metadata.message_type.split(".")[0] != MessageType.TRAIN]
        replies = []
        if train:
            work = replace(self._work, epochs=int(message_settings(train[0]).get("epochs", self._work.epochs)))
            schedule = self._schedule(train, work)
            shortened: dict[int, RecordDict] = {}
            for message, outcome, epochs in zip(
                train, schedule.outcomes.tolist(), schedule.epochs.tolist(), strict=True
            ):
                if outcome == DeviceOutcome.DONE:
                    passing.append(message)
                elif outcome == DeviceOutcome.PARTIAL:
                    if epochs not in shortened:
                        shortened[epochs] = _with_epochs(message.content, epochs)
                    passing.append(received_message(message, shortened[epochs]))
                else:
                    replies.append(_refusal(message, DeviceOutcome(outcome)))
        return [*replies, *self._inner.answer(passing, timeout_s)] if passing else replies

    def judge(self, messages: Sequence[Message], replies: Iterable[Message]) -> list[Message]:
        """Return *replies* as the inner grid judges them: it knows its nodes."""
        return self._inner.judge(messages, replies)

    def fit_to(self, needed: Mapping[str, tuple[float, float]], *, clips: bool) -> None:
        """Fit the inner grid's border to a strategy."""
        self._inner.fit_to(needed, clips=clips)

    def state(self) -> dict[str, Any]:
        """Return what carries on to the next round as plain JSON values, for a run that is resumed."""
        return {
            "now_s": self.clock.now_s,
            "batteries": self._ledger.to_record(),
            "rounds": [
                {"round": r.round, "started_s": r.started_s, "ended_s": r.ended_s, "counts": dict(r.counts)}
                for r in self._rounds
            ],
        }

    def restore(self, fields: Fields) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            DecodeError: It is another document.
        """
        now_s = fields.number("now_s", minimum=0)
        ledger = BatteryLedger.from_fields(fields.nested("batteries"))
        rounds = fields.sequence("rounds", _timed_round, maximum_items=2**24)
        fields.finish()
        self.clock.now_s, self._ledger, self._rounds, self._available = now_s, ledger, list(rounds), None

    def _schedule(self, messages: Sequence[Message], work: DeviceWork) -> RoundSchedule:
        devices = np.array([message.metadata.dst_node_id for message in messages], dtype=np.int64) - self._first_id
        number = int(message_settings(messages[0]).get(SERVER_ROUND, len(self._rounds) + 1))
        battery, now_s = self._population.battery, self.clock.now_s
        schedule = schedule_round(
            self._population,
            devices,
            work,
            samples=self._samples(devices),
            now_s=now_s,
            round_number=number,
            policy=self._policy,
            used_j=0.0 if battery is None else self._ledger.used_j(battery, devices, now_s),
        )
        if battery is not None:
            self._ledger.take(battery, devices, now_s, schedule.energy_j)
        self.clock.advance_to(schedule.ends_at_s)
        self._rounds.append(TimedRound(number, now_s, schedule.ends_at_s, schedule.counts()))
        return schedule

    def _wait_for_devices(self) -> Numbers:
        began_s = self.clock.now_s
        while len(devices := self._present()) < self._minimum_nodes:
            everybody = np.arange(self._population.devices)
            starts = self._population.availability.next_start(everybody, self.clock.now_s)
            enough_s = float(np.partition(starts, self._minimum_nodes - 1)[self._minimum_nodes - 1])
            # Those who are there may have an empty battery, for whose charging nobody names a time.
            next_s = enough_s if enough_s > self.clock.now_s else self.clock.now_s + _WAIT_STEP_S
            if next_s - began_s > _LONGEST_WAIT_S:
                raise NotEnoughDevicesError(self._minimum_nodes, len(devices), self.clock.now_s - began_s)
            self.clock.advance_to(next_s)
        return devices

    def _present(self) -> Numbers:
        """Return the devices that can train now, or a draw of them, sorted."""
        if self._listed is None:
            return self._able(np.arange(self._population.devices))
        devices, seed = self._population.devices, self._population.seed
        purpose = f"listed {len(self._rounds)} {self.clock.now_s}"
        able, drawn = np.zeros(0, dtype=np.int64), 0
        while len(able) < self._listed and drawn < devices:
            block = np.arange(drawn, drawn + 2 * self._listed)
            found = self._able((uniforms(seed, purpose, block) * devices).astype(np.int64))
            able = np.concatenate([able, found])
            able = able[np.sort(np.unique(able, return_index=True)[1])]  # each once, in the order of the draw
            drawn += len(block)
        if len(able) < self._listed:  # few are there: look at all, and draw among them
            able = self._able(np.arange(devices))
            able = able[np.argsort(uniforms(seed, purpose, able), kind="stable")]
        return np.sort(able[: self._listed])

    def _able(self, devices: Numbers) -> Numbers:
        """Return those of *devices* that are available and whose batteries are full enough, in their order."""
        now_s, battery = self.clock.now_s, self._population.battery
        able = devices[self._population.availability.is_available(devices, now_s)]
        if battery is None:
            return able
        level = battery.level(able, now_s, self._ledger.used_j(battery, able, now_s))
        return able[level >= self._policy.minimum_battery]


def _equal(samples: int) -> SampleCounts:
    if samples < 1:
        raise ValueError(f"expected at least 1 sample for each device, found {samples}")
    return lambda devices: np.full(len(devices), samples, dtype=np.int64)


def _with_epochs(content: RecordDict, epochs: int) -> RecordDict:
    """Return *content* with another number of epochs; the arrays are the same objects."""
    records = dict(content.items())
    name, config = next(iter(content.config_records.items()), ("config", ConfigRecord()))
    holder = next((held for held, record in content.config_records.items() if "epochs" in record), name)
    records[holder] = ConfigRecord({**dict(content.config_records.get(holder, config)), "epochs": epochs})
    return RecordDict(records)


def _refusal(message: Message, outcome: DeviceOutcome) -> Message:
    codes = error_codes()
    code = codes.NODE_UNAVAILABLE if outcome == DeviceOutcome.UNAVAILABLE else codes.REPLY_MESSAGE_UNAVAILABLE
    reply = Message(Error(code, _REASONS[outcome]), reply_to=message)
    set_refusal_kind(reply, _KINDS[outcome])
    return reply


def _timed_round(fields: Fields) -> TimedRound:
    counts = fields.nested("counts")
    timed = TimedRound(
        fields.integer("round"),
        fields.number("started_s", minimum=0),
        fields.number("ended_s", minimum=0),
        {name: counts.integer(name) for name in counts.names()},
    )
    fields.finish()
    return timed
