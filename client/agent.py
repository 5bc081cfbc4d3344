"""The agent's process: one loop that carries out what agent_rules.py decides, and threads for what takes long.

The loop owns the state, the link and the files; it never waits for the network or a model. Installing and training run
in a thread each, one job at a time, and serving in another; they report back through a queue. None of them outlives
:meth:`Agent.run` by more than a step.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from hedgerow import __version__
from hedgerow.client import slots as rules
from hedgerow.client.actions import Action, Compare, FallBack, FlushSpool, Install, Prove, RetryLater, Save, Send, Train
from hedgerow.client.agent_rules import advance
from hedgerow.client.agent_state import Identity
from hedgerow.client.buffer import LabelledBuffer
from hedgerow.client.errors import StoppedError
from hedgerow.client.events import (
    DesiredArrived,
    Event,
    HealthChanged,
    LinkDown,
    LinkUp,
    Proved,
    RetryDue,
    StepEntered,
    TrainArrived,
    Trained,
    Unhealthy,
    WindowStored,
)
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.health import Health, Part
from hedgerow.client.health_period import HealthDecision, HealthPeriod, Signs, is_stuck
from hedgerow.client.install import Installer, Step
from hedgerow.client.install_rules import jumps_too_far
from hedgerow.client.jobs import Jobs
from hedgerow.client.loading import LoadRuntime
from hedgerow.client.model_work import ModelWork
from hedgerow.client.outlet import Outlet
from hedgerow.client.presence import new_boot
from hedgerow.client.runtimes import available_runtimes, load_runtime
from hedgerow.client.serving import ActiveModel
from hedgerow.client.settings import AgentSettings
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.source import Sink, Source, SourceContext
from hedgerow.client.spool import Spool
from hedgerow.client.start_up import load_active, rest, settle
from hedgerow.client.state_folder import StateFile
from hedgerow.client.state_keeper import StateKeeper
from hedgerow.client.stream import Stream
from hedgerow.client.training_round import RoundTrainer
from hedgerow.client.trial import ChildTrials, Trials
from hedgerow.client.trust import open_trust, read_trusted_root
from hedgerow.client.uplink import Uplink
from hedgerow.errors import DecodeError
from hedgerow.link import Connected, Disconnected, Link, Message
from hedgerow.window import Window
from hedgerow.wire.device import Desired, Presence
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.topics import Channel, parse_topic
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = ["Agent"]

_log = logging.getLogger(__name__)
_IDLE_WAIT_S, _BUSY_WAIT_S = 0.05, 0.01
_JOIN_S = 0.4
_TRAIN_GRAPH_KEPT_S = 60.0


class Agent:
    """One device.

    Args:
        settings: What it is and where its fleet is.
        link: The link to the broker; the agent closes it.
        source: The origin of samples; None: it serves nothing by itself.
        sinks: Get the answer to each sample of the source; each in a thread of its own.
        boot: Identity of this start, as in the link's will.
        runtimes: Finds a runtime by name.
        trials: Tries a release before it is loaded into this process; None: in a child process.
        stopping: Ends the agent when it is set.
        clock: Unix seconds.
        timer: Rising seconds. Waits for the network go by neither of the two.

    Raises:
        SettingsError: The trusted root cannot be read, or an address is wrong.
    """

    def __init__(
        self,
        settings: AgentSettings,
        link: Link,
        source: Source | None = None,
        *,
        sinks: Sequence[Sink] = (),
        boot: str | None = None,
        runtimes: LoadRuntime = load_runtime,
        trials: Trials | None = None,
        stopping: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._link, self._source, self._runtimes = settings, link, source, runtimes
        self._timer = timer
        self._stopping = stopping or threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        folder = settings.state_folder
        root = read_trusted_root(settings.trusted_root)
        self._http = FleetHttp(settings.server)
        self._health_news = threading.Event()
        self.health = Health(self._health_news.set, timer=timer)
        self._slots = SlotFolders(folder, settings.target, health=self.health)
        self._buffer = LabelledBuffer(folder / "buffer", limit_samples=settings.buffer_samples, clock=clock)
        self._spool = Spool(folder / "spool", limit_messages=settings.spool_windows, health=self.health)
        self._trials = trials or ChildTrials(runtimes, pause=self._pause, timeout_s=settings.trial_timeout_s)
        file = StateFile(folder / "agent.json")
        self._keeper = StateKeeper(file, self._slots, self.health, timer=timer)
        self._uplink = Uplink(link, settings.fleet, settings.device, self._spool, self.health)
        # For the log alone: anybody can send what this device refuses.
        self._refusals = Health(timer=timer)
        self._outlets = [Outlet(sink, self.health) for sink in sinks]
        self.active = ActiveModel(
            settings.window_samples, self._store_window, health=self.health, clock=clock, timer=timer
        )
        self._installer = Installer(
            slots=self._slots,
            http=self._http,
            trust=lambda release: open_trust(
                folder / "tuf", root, self._http, release, clock=lambda: datetime.fromtimestamp(clock(), UTC)
            ),
            target=settings.target,
            downloads=folder / "downloads",
            pause=self._pause,
            runtimes=runtimes,
            trials=self._trials,
        )
        self._trainer = RoundTrainer(
            settings.device,
            self._slots,
            self._buffer,
            self._http,
            self._pause,
            self._trials,
            runtimes=runtimes,
            clock=timer,
            wall_clock=clock,
        )
        identity = Identity(
            boot=boot or new_boot(), target=settings.target, agent_version=__version__, runtimes=available_runtimes()
        )
        self._state = file.load(identity)
        self._models = ModelWork(self._slots, self._installer, self.active, runtimes, self.health, self._report)
        self._window_sequence = 0
        self._jobs = Jobs()
        self._retry_at: float | None = None
        self._health_period = HealthPeriod(settings.healthy_after_s)
        self._rest_at: float | None = None

    @property
    def has_model(self) -> bool:
        """Whether a slot holds a release to serve."""
        return self._slots.state.active is not None or (self._slots.was_rebuilt and bool(self._slots.state.contents))

    def stop(self) -> None:
        """Ask :meth:`run` to return; may be called from any thread or a signal handler."""
        self._stopping.set()

    def run(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Be the device until :meth:`stop`.

        Args:
            check: Called in each turn of the loop; may raise to end the agent.
        """
        serving = threading.Thread(target=self._serve, args=(self._source,), name="serve", daemon=True)
        is_own_fault = True
        try:
            self._start()
            if self._source is not None:
                for outlet in self._outlets:
                    outlet.start()
                serving.start()
            for channel in (Channel.DESIRED, Channel.TRAIN):
                self._link.subscribe(self._uplink.topic(channel))
            while not self._stopping.is_set():
                is_own_fault = False
                check()
                is_own_fault = True
                self._turn()
            is_own_fault = False
        finally:
            self._shut_down(serving)
            # An agent that dies of an exception has crashed like one that dies of a signal, and the start counts.
            if not is_own_fault:
                rest(self._slots)
            _log.info("stopped")

    # Start and stop

    def _start(self) -> None:
        wanted = self._state.desired.release if self._state.desired is not None else None
        try:
            ready, restored = load_active(
                self._slots, self._runtimes, self._settings.crash_limit, self._trials, wanted=wanted
            )
        except StoppedError:
            return
        if ready is not None:
            self._models.activate(ready)
        self._handle(restored)
        # A copy that was found damaged is put right.
        self._keeper.save(self._state)
        if self._state.installing is None:
            # What was being tried when the last start ended is not wanted any more.
            self._slots.assume(rules.tried)

    def _shut_down(self, serving: threading.Thread) -> None:
        self._stopping.set()
        if serving.is_alive():
            serving.join(_JOIN_S)
        for outlet in self._outlets:
            outlet.close(_JOIN_S / len(self._outlets))
        self._jobs.join(_JOIN_S)
        self._drain()
        self.active.cut(_JOIN_S)
        if self._state.is_connected:
            self._uplink.flush_spool()
            self._uplink.publish(
                Channel.PRESENCE, Presence(online=False, boot=self._state.identity.boot).encode(), retain=True
            )
        self._link.close()
        try:
            self._buffer.close()
        except OSError as exc:
            # A full disk must not make an orderly stop look like a crash of the release.
            _log.error("the labelled samples could not be synced: %s", exc)
        self._http.close()

    # The loop

    def _turn(self) -> None:
        event = self._link.receive(_BUSY_WAIT_S if self._jobs.is_busy else _IDLE_WAIT_S)
        match event:
            case Message():
                self._take(event)
            case Connected():
                _log.info("connected")
                self._handle(LinkUp())
            case Disconnected(reason):
                _log.warning("disconnected: %s", reason)
                self._handle(LinkDown())
        self._drain()
        if self._health_news.is_set():
            self._health_news.clear()
            self._handle(HealthChanged(self.health.problems))
        if self._is_stuck and Part.MODEL not in self.health.failing:
            self.health.failed(Part.MODEL, f"expected {self.active.release} to answer, found it busy with one sample")
        now = self._timer()
        self._keeper.tend(self._state)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._handle(RetryDue())
        if self._health_period.is_running:
            self._prove()
        if self._rest_at is not None and now >= self._rest_at and self._state.training is None:
            self._rest_at = None
            self._trainer.rest()

    @property
    def _is_stuck(self) -> bool:
        """Whether the model is busy with one sample for longer than what has proved itself, or has yet to, may be."""
        is_proved = self._slots.state.is_proved
        return is_stuck(self.active.busy_s, is_proved=is_proved, length_s=self._settings.healthy_after_s)

    def _prove(self) -> None:
        """Look whether the health period has come to its end."""
        release = self.active.release
        reason = self._models.failing(release)
        signs = Signs(
            release=release,
            is_failing=reason is not None,
            is_stuck=self._is_stuck,
            is_proving=self._state.is_proving,
            is_proved=self._slots.state.is_proved,
        )
        match self._health_period.look(self._timer(), signs):
            case HealthDecision.HEALTHY:
                settle(self._slots, release)
                self._handle(Proved())
            case HealthDecision.UNHEALTHY:
                self._handle(Unhealthy(reason or ""))
            case HealthDecision.SAY_ALIVE:
                self._handle(StepEntered(Step.SWAP.value))

    def _drain(self) -> None:
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return
            self._handle(event)

    def _take(self, message: Message) -> None:
        settings = self._settings
        place = parse_topic(message.topic)
        failures = self._keeper.failures
        try:
            if place == (settings.fleet, settings.device, Channel.DESIRED):
                # An empty payload is how MQTT deletes a retained message.
                if message.payload:
                    desired = Desired.decode(message.payload)
                    if jumps_too_far(self._state, desired):
                        _log.warning("refused version %d of what is wanted: it jumps too far", desired.version)
                    self._handle(DesiredArrived(desired))
            elif place == (settings.fleet, settings.device, Channel.TRAIN):
                self._handle(TrainArrived(TrainTask.decode(message.payload)))
            else:
                _log.debug("ignored a message for %s", message.topic[:200])
        except DecodeError as exc:
            self._refusals.failed(Part.MESSAGE, exc)
        else:
            self._refusals.worked(Part.MESSAGE)
        # The state is on disk by now, or the message is of no use. When the disk failed, the broker is to keep it.
        if self._keeper.failures == failures:
            self._link.acknowledge(message)

    def _handle(self, event: Event) -> None:
        self._state, actions = advance(self._state, event)
        for action in actions:
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Save():
                self._keeper.save(self._state)
            case Send(channel, message, retain):
                self._uplink.publish(channel, message.encode(), retain=retain)
            case Install(release):
                self._retry_at = None
                self._jobs.start("install", lambda: self._report(self._models.install(release)))
            case Prove():
                self._health_period.begin(self._timer(), self.active.release)
            case FallBack(reason):
                self._jobs.start("fall back", lambda: self._report(self._models.fall_back(reason)))
            case RetryLater(after_s):
                self._retry_at = self._timer() + after_s
            case Compare(is_wanted):
                ready = self._models.ready
                self._jobs.start("compare", lambda: self._models.compare(ready, is_wanted=is_wanted))
            case Train(task):
                self._rest_at = self._timer() + _TRAIN_GRAPH_KEPT_S
                self._jobs.start("train", lambda: self._report(self._train(task)))
            case FlushSpool():
                self._uplink.flush_spool()

    # Threads

    def _pause(self, seconds: float) -> bool:
        return self._stopping.wait(seconds) if seconds else self._stopping.is_set()

    def _report(self, event: Event | None) -> None:
        if event is not None:
            self._events.put(event)

    def _train(self, task: TrainTask) -> Event | None:
        try:
            return Trained(self._trainer.answer(task))
        except StoppedError:
            return None
        except Exception as exc:  # noqa: BLE001 - the thread's outermost step
            # Whatever a train graph does to a runtime must not end the agent.
            _log.exception("round %d of %s failed", task.round, task.run)
            reason = f"{type(exc).__name__}: {exc}"[:1024]
            return Trained(TrainUpdate(run=task.run, round=task.round, state="failed", reason=reason))

    def _serve(self, source: Source) -> None:
        settings = self._settings
        Stream(
            source,
            SourceContext(settings.device, settings.state_folder, settings.source_options),
            self.active,
            self._buffer,
            self.health,
            pause=self._pause,
            timer=self._timer,
            sinks=[outlet.offer for outlet in self._outlets],
        ).run()

    def _store_window(self, window: Window) -> None:
        message = Telemetry(boot=self._state.identity.boot, sequence=self._window_sequence, window=window)
        # Counted before it is kept: a window that is lost shows as a gap.
        self._window_sequence += 1
        self._spool.put(message.encode())
        self._events.put(WindowStored())
